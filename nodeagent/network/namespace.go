package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ownNamespace opens the one that this process was started in. /proc/self is no
// name for it: that is the main thread's, which is in a container's namespace
// whenever the scheduler has it do something there.
func ownNamespace() (*os.File, string, error) {
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, "", fmt.Errorf("open the host's namespace: %w", err)
	}
	return file, fmt.Sprintf("/proc/self/fd/%d", file.Fd()), nil
}

// path is the file that a namespace is mounted on.
func (k *linux) path(name string) string {
	if name == "" {
		return k.host
	}
	return filepath.Join(k.dir, name)
}

// spaces lists the namespaces of containers. A file without a namespace on it
// is what a crash left of one.
func (k *linux) spaces() ([]string, error) {
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var all []string
	for _, e := range entries {
		if !isNamespace(k.path(e.Name())) {
			if err := os.Remove(k.path(e.Name())); err != nil {
				return nil, fmt.Errorf("remove what a crash left: %w", err)
			}
			continue
		}
		all = append(all, e.Name())
	}
	return all, nil
}

func isNamespace(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Type == unix.NSFS_MAGIC
}

// create makes a namespace and mounts it on its file, which keeps it while no
// process is in it.
func (k *linux) create(name string) error {
	path := k.path(name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("create namespace: %w", err)
	}
	_ = f.Close()

	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		// Before it is visible to anyone, so that a namespace is whole or absent.
		if err := furnish(); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("create namespace %s: %w", path, err)
	}
	return nil
}

// furnish sets up the namespace of the calling thread.
func furnish() error {
	// As containers know it from Docker: ping works without privileges, and any
	// user may listen on port 80. IPv6 stays off until the tables speak it.
	for key, value := range map[string]string{
		"net/ipv4/ip_unprivileged_port_start":    "0",
		"net/ipv4/ping_group_range":              "0 2147483647",
		"net/ipv6/conf/default/disable_ipv6":     "1",
		"net/bridge/bridge-nf-call-iptables":     "0", // costs bridged packets a fifth of their speed
		"net/ipv4/conf/default/accept_redirects": "0",
	} {
		if err := sysctl(key, value); err != nil {
			return err
		}
	}

	link, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer link.Close()
	lo, err := linkNamed(link, "lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	return link.LinkSetUp(lo)
}

func (k *linux) remove(name string) error {
	path := k.path(name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove namespace: %w", err)
	}
	return nil
}

// onThread runs do on an operating system thread that nobody else uses
// meanwhile, and takes the thread back to the namespace that it came from. A
// thread that cannot be taken back ends.
func onThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- fmt.Errorf("open namespace of thread: %w", err)
			return
		}
		defer home.Close()
		err = do()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// inside runs do on a thread that is in the namespace at path. Sockets that do
// opens stay there.
func inside(path string, do func() error) error {
	return onThread(func() error {
		ns, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("open namespace: %w", err)
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", path, err)
		}
		return do()
	})
}

func (k *linux) sysctls(space string, values map[string]string) error {
	return inside(k.path(space), func() error {
		for _, key := range sorted(values) {
			if err := sysctl(key, values[key]); err != nil {
				return err
			}
		}
		return nil
	})
}

// sysctl sets a value in the calling thread's namespace. One that this kernel
// does not have is in nobody's way.
func sysctl(key, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set sysctl %s: %w", strings.ReplaceAll(key, "/", "."), err)
	}
	return nil
}

// observe reads back what a namespace holds: in the host what carries our
// alias, in a container all links.
func (k *linux) observe(name string) (*space, error) {
	ns, err := os.Open(k.path(name))
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	defer ns.Close()
	link, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", k.path(name), err)
	}
	defer link.Close()

	s := newSpace()
	if err := k.observeLinks(link, name, s); err != nil {
		return nil, err
	}
	if name == "" {
		if s.Forwarding, err = k.forwarding(); err != nil {
			return nil, err
		}
	} else if s.Default, err = observeDefault(link); err != nil {
		return nil, err
	}
	s.Table, err = k.observeTable(name, ns)
	return s, err
}

func (k *linux) observeLinks(handle *netlink.Handle, space string, s *space) error {
	links, err := steady(handle.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	addresses, err := steady(func() ([]netlink.Addr, error) { return handle.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}

	s.Foreign = map[string][]netip.Prefix{}
	byIndex := map[int]string{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		a := l.Attrs()
		own := prefixesOf(addresses, a.Index)
		switch {
		case a.Name == "lo":
			continue
		case space == "" && !strings.HasPrefix(a.Alias, k.names.owner()):
			s.Foreign[a.Name] = own
			continue
		}
		made := link{Kind: l.Type(), Alias: a.Alias, MAC: a.HardwareAddr.String(), MTU: a.MTU,
			Up: a.RawFlags&unix.IFF_UP != 0, Addresses: own}
		if space == "" {
			made.Master = byIndex[a.MasterIndex]
		}
		s.Links[a.Name] = made
	}
	return nil
}

// prefixesOf returns the addresses of the link with that index, sorted.
func prefixesOf(addresses []netlink.Addr, index int) []netip.Prefix {
	var all []netip.Prefix
	for _, address := range addresses {
		if address.LinkIndex != index {
			continue
		}
		ip, _ := netip.AddrFromSlice(address.IP.To4())
		bits, _ := address.Mask.Size()
		all = append(all, netip.PrefixFrom(ip, bits))
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return all
}

func observeDefault(link *netlink.Handle) (netip.Addr, error) {
	routes, err := steady(func() ([]netlink.Route, error) { return link.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil && (r.Dst.IP == nil || !r.Dst.IP.IsUnspecified()) || r.Gw == nil {
			continue
		}
		gateway, _ := netip.AddrFromSlice(r.Gw.To4())
		return gateway, nil
	}
	return netip.Addr{}, nil
}

func (k *linux) forwarding() (on bool, err error) {
	err = inside(k.host, func() error {
		b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		on = strings.TrimSpace(string(b)) == "1"
		return err
	})
	return on, err
}

// defaultMTU is that of the link to the outside, or Ethernet's.
func (k *linux) defaultMTU() int {
	const ethernet = 1500
	ns, err := os.Open(k.host)
	if err != nil {
		return ethernet
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return ethernet
	}
	defer handle.Close()

	routes, _ := steady(func() ([]netlink.Route, error) { return handle.RouteList(nil, unix.AF_INET) })
	for _, r := range routes {
		if r.Dst != nil && (r.Dst.IP == nil || !r.Dst.IP.IsUnspecified()) || r.Gw == nil {
			continue
		}
		if l, err := handle.LinkByIndex(r.LinkIndex); err == nil {
			return l.Attrs().MTU
		}
	}
	return ethernet
}
