package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// kernel is where a world is real. The host's namespace has the name "".
type kernel interface {
	spaces() ([]string, error)           // those of containers, sorted
	create(name string) error            // an empty one, its loopback up
	remove(name string) error            // no error if it is not there
	observe(name string) (*space, error) // what it holds of ours
	apply(name string, changes []change) error
	path(name string) string
}

// linux is the kernel that this process runs on.
type linux struct {
	names names
	host  string // path of the host's network namespace
	dir   string // where the namespaces of containers are mounted

	mu     sync.Mutex
	tables map[string]seen // by namespace
}

// batch is one call of apply.
type batch struct {
	kernel *linux
	space  string
	ns     *os.File
	link   *netlink.Handle
	tables *transaction // of nft changes that are not sent yet
}

func (k *linux) apply(name string, changes []change) (err error) {
	if len(changes) == 0 {
		return nil
	}
	b := &batch{kernel: k, space: name}
	defer b.close()
	if b.ns, err = os.Open(k.path(name)); err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	if b.link, err = netlink.NewHandleAt(netns.NsHandle(b.ns.Fd()), unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER); err != nil {
		return fmt.Errorf("open netlink in %s: %w", k.path(name), err)
	}

	for _, c := range changes {
		if err := b.do(c); err != nil {
			first, _, _ := strings.Cut(c.String(), "\n")
			return fmt.Errorf("%s: %w", first, err)
		}
	}
	return b.commit()
}

func (b *batch) close() {
	if b.link != nil {
		b.link.Close()
	}
	if b.ns != nil {
		_ = b.ns.Close()
	}
}

func (b *batch) do(c change) error {
	if queued, err := b.queue(c); queued || err != nil {
		return err
	}
	if err := b.commit(); err != nil {
		return err
	}

	switch c := c.(type) {
	case addBridge:
		return b.addBridge(c)
	case addPair:
		return b.addPair(c)
	case setLink:
		return b.setLink(c)
	case delLink:
		return b.delLink(c.name)
	case delLinks:
		return b.delLinks(c.names)
	case addAddress:
		return b.changeAddress(c.link, c.address, b.link.AddrReplace)
	case delAddress:
		return b.changeAddress(c.link, c.address, b.link.AddrDel)
	case setDefault:
		return b.setDefault(c)
	case setForwarding:
		return b.kernel.sysctls(b.space, map[string]string{"net/ipv4/ip_forward": c.value()})
	case forgetFlows:
		return b.forget(c)
	}
	panic(fmt.Sprintf("change %T is not known to the kernel", c))
}

func (b *batch) addBridge(c addBridge) error {
	mac, err := net.ParseMAC(c.link.MAC)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = c.name, c.link.MTU, mac
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := addLink(b.link, bridge); err != nil {
		return err
	}
	if err := b.link.LinkSetAlias(bridge, c.link.Alias); err != nil {
		return fmt.Errorf("set alias: %w", err)
	}

	// route_localnet: the node's 127.0.0.1 reaches published ports, and the
	// table lets nobody else use it. rp_filter: a container cannot pretend to
	// be on another network. No IPv6: the table does not speak it yet.
	conf := "net/ipv4/conf/" + c.name + "/"
	if err := b.kernel.sysctls(b.space, map[string]string{
		conf + "route_localnet": "1", conf + "rp_filter": "1",
		"net/ipv6/conf/" + c.name + "/disable_ipv6": "1",
	}); err != nil {
		return err
	}
	return b.setLink(setLink{c.name, c.link})
}

// addLink adds a link. One of that name is what a crash left of a link of ours
// that had no alias yet.
func addLink(handle *netlink.Handle, l netlink.Link) error {
	err := handle.LinkAdd(l)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := handle.LinkDel(l); err != nil {
		return fmt.Errorf("remove what a crash left: %w", err)
	}
	return handle.LinkAdd(l)
}

func (b *batch) addPair(c addPair) error {
	host, err := os.Open(b.kernel.host)
	if err != nil {
		return err
	}
	defer host.Close()
	link, err := netlink.NewHandleAt(netns.NsHandle(host.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer link.Close()

	bridge, err := linkNamed(link, c.outer.Master)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", c.outer.Master, err)
	}
	mac, err := net.ParseMAC(c.inner.MAC)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Flags = c.outerName, c.outer.MTU, net.FlagUp
	attrs.MasterIndex = bridge.Attrs().Index
	pair := &netlink.Veth{
		LinkAttrs: attrs, PeerName: c.innerName, PeerHardwareAddr: mac,
		PeerMTU: uint32(c.inner.MTU), PeerNamespace: netlink.NsFd(int(b.ns.Fd())),
	}
	if err := addLink(link, pair); err != nil {
		return err
	}
	if err := link.LinkSetAlias(pair, c.outer.Alias); err != nil {
		return fmt.Errorf("set alias: %w", err)
	}
	return b.raise(c, link)
}

// raise sets the inner end up and asks for all links in between. The kernel would
// otherwise tell the bridge of the carrier in its own time, up to a second
// later; asking makes it do so now (rtnl_getlink calls linkwatch_sync_dev).
func (b *batch) raise(c addPair, host *netlink.Handle) error {
	inner, err := linkNamed(b.link, c.innerName)
	if err != nil {
		return err
	}
	if err := b.link.LinkSetUp(inner); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if _, err := linkNamed(b.link, c.innerName); err != nil {
		return err
	}
	for _, name := range []string{c.outerName, c.outer.Master} { // the bridge's own carrier comes with its first port
		if _, err := linkNamed(host, name); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) setLink(c setLink) error {
	l, err := linkNamed(b.link, c.name)
	if err != nil {
		return err
	}
	if l.Attrs().MTU != c.link.MTU {
		if err := b.link.LinkSetMTU(l, c.link.MTU); err != nil {
			return err
		}
	}
	if c.link.Master != "" {
		bridge, err := linkNamed(b.link, c.link.Master)
		if err != nil {
			return fmt.Errorf("find bridge %s: %w", c.link.Master, err)
		}
		if err := b.link.LinkSetMasterByIndex(l, bridge.Attrs().Index); err != nil {
			return err
		}
	}
	return b.link.LinkSetUp(l)
}

// delLink removes a link; one that is not there is no error.
func (b *batch) delLink(name string) error {
	l, err := linkNamed(b.link, name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	return b.link.LinkDel(l)
}

// delLinks removes links by a group of their own. Each alone would cost 20 ms.
func (b *batch) delLinks(names []string) error {
	group := b.kernel.names.group()
	links, err := steady(b.link.LinkList)
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Attrs().Group == group && !strings.HasPrefix(l.Attrs().Alias, b.kernel.names.owner()) || len(names) == 1 {
			return b.delOneByOne(names)
		}
	}

	for _, l := range links {
		if !slices.Contains(names, l.Attrs().Name) {
			continue
		}
		// One that goes with its namespace at this moment is not there any more.
		if err := b.link.LinkSetGroup(l, int(group)); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("group %s: %w", l.Attrs().Name, err)
		}
	}
	return b.delGroup(group)
}

func (b *batch) delOneByOne(names []string) error {
	for _, name := range names {
		if err := b.delLink(name); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}

func (b *batch) delGroup(group uint32) error {
	conn, err := mdnetlink.Dial(unix.NETLINK_ROUTE, &mdnetlink.Config{NetNS: int(b.ns.Fd())})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	attributes := mdnetlink.NewAttributeEncoder()
	attributes.Uint32(unix.IFLA_GROUP, group)
	body, err := attributes.Encode()
	if err != nil {
		return err
	}
	_, err = conn.Execute(mdnetlink.Message{
		Header: mdnetlink.Header{Type: unix.RTM_DELLINK, Flags: mdnetlink.Request | mdnetlink.Acknowledge},
		Data:   append(make([]byte, unix.SizeofIfInfomsg), body...),
	})
	if errors.Is(err, unix.ENODEV) {
		return nil // all went with their namespaces
	}
	return err
}

func (b *batch) changeAddress(name string, address netip.Prefix, do func(netlink.Link, *netlink.Addr) error) error {
	l, err := linkNamed(b.link, name)
	if err != nil {
		return err
	}
	return do(l, &netlink.Addr{IPNet: ipNet(address)})
}

func (b *batch) setDefault(c setDefault) error {
	if !c.gateway.IsValid() {
		err := b.link.RouteDel(&netlink.Route{Dst: ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0))})
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return err
	}
	return b.link.RouteReplace(&netlink.Route{Gw: c.gateway.AsSlice()})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
