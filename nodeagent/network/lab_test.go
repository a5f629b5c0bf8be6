package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/gitswarm/gitswarm/swarm"
)

const childMark = "GITSWARM_NETWORK_TEST"

// TestMain runs the tests in a mount and a network namespace of their own:
// whatever way they end, the kernel removes all that they made.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(childMark) != "" {
		os.Exit(m.Run())
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), childMark+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := self.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "run tests in namespaces of their own:", err)
		os.Exit(1)
	}
	os.Exit(self.ProcessState.ExitCode())
}

// lab is a host and an outside client, each a network namespace, and a Network
// on the host.
type lab struct {
	t       testing.TB
	dir     string
	spaces  *linux // host and outside
	network *Network
	config  Config
	ports   atomic.Int32 // that UDP sockets were given, from 10,000 on
}

const (
	hostAddress    = "10.99.0.1"
	outsideAddress = "10.99.0.2"
)

func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	l := &lab{t: t, dir: t.TempDir()}
	l.spaces = &linux{dir: filepath.Join(l.dir, "lab")}
	check(t, os.MkdirAll(l.spaces.dir, 0o700))
	for _, name := range []string{"host", "outside"} {
		check(t, l.spaces.create(name))
		t.Cleanup(func() { _ = l.spaces.remove(name) })
	}
	l.join("host", hostAddress, "outside", outsideAddress)
	l.open()
	t.Cleanup(func() {
		check(t, l.network.Destroy(context.Background()))
		l.network.Close()
	})
	return l
}

// join connects two namespaces by a veth pair named eth0.
func (l *lab) join(a, aAddress, b, bAddress string) {
	l.t.Helper()
	other, err := os.Open(l.spaces.path(b))
	check(l.t, err)
	defer other.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	l.handle(l.spaces.path(a), func(h *netlink.Handle) {
		check(l.t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(other.Fd()))}))
	})
	for path, address := range map[string]string{l.spaces.path(a): aAddress, l.spaces.path(b): bAddress} {
		l.handle(path, func(h *netlink.Handle) {
			eth0, err := h.LinkByName("eth0")
			check(l.t, err)
			check(l.t, h.AddrAdd(eth0, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(address + "/24"))}))
			check(l.t, h.LinkSetUp(eth0))
		})
	}
	for _, path := range []string{l.spaces.path(a), l.spaces.path(b)} {
		l.handle(path, func(h *netlink.Handle) { // as raise does
			_, err := h.LinkByName("eth0")
			check(l.t, err)
		})
	}
}

func (l *lab) handle(path string, do func(*netlink.Handle)) {
	l.t.Helper()
	ns, err := os.Open(path)
	check(l.t, err)
	defer ns.Close()
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	check(l.t, err)
	defer h.Close()
	do(h)
}

// open opens the Network, as a daemon does when it starts.
func (l *lab) open() {
	l.t.Helper()
	n, err := Open(l.t.Context(), Options{Dir: filepath.Join(l.dir, "state"), RunDir: filepath.Join(l.dir, "run"), HostNetNS: l.spaces.path("host")})
	check(l.t, err)
	l.network = n
}

// set sets the lab's config and wants it reached.
func (l *lab) set() Reached {
	l.t.Helper()
	reached, err := l.network.Set(l.t.Context(), l.config)
	check(l.t, err)
	return reached
}

// path is that of a task's namespace, or of "host" or "outside".
func (l *lab) path(where string) string {
	if where == "host" || where == "outside" {
		return l.spaces.path(where)
	}
	return l.network.kernel.path(strings.ReplaceAll(where, "/", "~"))
}

// run runs a command inside a namespace.
func (l *lab) run(where string, args ...string) string {
	l.t.Helper()
	var out []byte
	check(l.t, inside(l.path(where), func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
		return err
	}))
	return string(out)
}

// dial connects from inside a namespace. Each UDP socket has a port that no
// earlier one had: conntrack remembers a closed socket's for 30 s, and the
// kernel's own choice now and then falls on it.
func (l *lab) dial(where, network, address string) (c net.Conn, err error) {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	if network == "udp" {
		dialer.LocalAddr = &net.UDPAddr{Port: int(10_000 + l.ports.Add(1))}
	}
	err = inside(l.path(where), func() error {
		c, err = dialer.Dial(network, address)
		return err
	})
	return c, err
}

// ask connects, and returns what the server says: its name and the client's
// address as it saw it.
func (l *lab) ask(where, network, address string) (name, seen string, err error) {
	c, err := l.dial(where, network, address)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	return converse(c)
}

// converse asks the server at the other end for its name.
func converse(c net.Conn) (name, seen string, err error) {
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(c, "who\n"); err != nil {
		return "", "", err
	}
	b := make([]byte, 256)
	n, err := c.Read(b)
	if err != nil {
		return "", "", err
	}
	name, seen, _ = strings.Cut(string(b[:n]), " ")
	return name, seen, nil
}

// serve answers on TCP and UDP port inside a namespace until the test ends or
// the returned function is called.
func (l *lab) serve(where string, port int) (stop func()) {
	l.t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	check(l.t, inside(l.path(where), func() (err error) {
		if tcp, err = net.Listen("tcp4", fmt.Sprintf(":%d", port)); err == nil {
			udp, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
		}
		return err
	}))
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 256)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					fmt.Fprintf(c, "%s %s", where, c.RemoteAddr().(*net.TCPAddr).IP)
				}
			}()
		}
	}()
	go func() {
		b := make([]byte, 256)
		for {
			_, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(fmt.Appendf(nil, "%s %s", where, from.(*net.UDPAddr).IP), from)
		}
	}()
	stop = sync.OnceFunc(func() { _ = tcp.Close(); _ = udp.Close() })
	l.t.Cleanup(stop)
	return stop
}

// spread asks n times and counts the answers by server.
func (l *lab) spread(where, network, address string, n int) map[string]int {
	l.t.Helper()
	count := map[string]int{}
	for range n {
		name, _, err := l.ask(where, network, address)
		check(l.t, err)
		count[name]++
	}
	return count
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// eventually waits until nothing is wrong any more.
func (l *lab) eventually(wrong func() string) {
	l.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		w := wrong()
		if w == "" {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatal(w)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shop is a stack of a web service with that many replicas, published at 8080,
// and a client.
func shop(replicas int) Config {
	cfg := Config{Node: "n1", Networks: []swarm.AssignedNetwork{
		{ID: "shop/default", VNI: 4097, Subnet: "10.20.0.0/24", Gateway: "10.20.0.1"},
	}}
	web := swarm.AssignedService{ID: "shop/web", Mode: swarm.VIP,
		VIPs:  []swarm.Address{{Network: "shop/default", IP: "10.20.0.2"}},
		Ports: []swarm.Port{{Target: 80, Published: 8080, Protocol: swarm.TCP}, {Target: 80, Published: 8080, Protocol: swarm.UDP}}}
	for i := 1; i <= replicas; i++ {
		task := swarm.TaskID(fmt.Sprintf("shop/web.%d.aaaaaa", i))
		at := []swarm.Address{{Network: "shop/default", IP: fmt.Sprintf("10.20.0.%d", 10+i)}}
		cfg.Endpoints = append(cfg.Endpoints, Endpoint{Task: task, Service: "shop/web", Slot: i, Addresses: at})
		web.Backends = append(web.Backends, swarm.Backend{Task: task, Slot: i, Node: "n1", Addresses: at})
	}
	cfg.Endpoints = append(cfg.Endpoints, Endpoint{Task: "shop/client.1.bbbbbb", Service: "shop/client", Slot: 1,
		Addresses: []swarm.Address{{Network: "shop/default", IP: "10.20.0.100"}}})
	cfg.Services = []swarm.AssignedService{web}
	return cfg
}

const client = "shop/client.1.bbbbbb"

func web(i int) string { return fmt.Sprintf("shop/web.%d.aaaaaa", i) }
