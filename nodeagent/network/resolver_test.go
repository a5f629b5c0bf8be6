package network

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/gitswarm/gitswarm/swarm"
)

// query asks the resolver of a container, as a program in it would.
func (l *lab) query(where, network, name string, kind uint16) (*dns.Msg, error) {
	conn, err := l.dial(where, network, "127.0.0.11:53")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := &dns.Client{Net: network, Timeout: 5 * time.Second}
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	q.SetEdns0(1232, false)
	said, _, err := client.ExchangeWithConn(q, &dns.Conn{Conn: conn})
	return said, err
}

// lookup returns an answer's code and records, sorted, as one line.
func (l *lab) lookup(where, name string, kind uint16) string {
	l.t.Helper()
	said, err := l.query(where, "udp", name, kind)
	check(l.t, err)
	records := []string{dns.RcodeToString[said.Rcode]}
	for _, rr := range said.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			records = append(records, rr.A.String())
		case *dns.PTR:
			records = append(records, rr.Ptr)
		}
		if ttl := rr.Header().Ttl; ttl > 5 && strings.HasPrefix(where, "shop/") && strings.Contains(name, "web") {
			l.t.Errorf("%s: TTL %d", name, ttl)
		}
	}
	slices.Sort(records[1:])
	return strings.Join(records, " ")
}

// upstreamServer is a DNS server of the outside. It knows one host, and counts
// the queries.
func (l *lab) upstreamServer() *atomic.Int64 {
	l.t.Helper()
	asked := new(atomic.Int64)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		reply := new(dns.Msg).SetReply(q)
		switch strings.ToLower(q.Question[0].Name) {
		case "example.com.":
			reply.Answer = append(reply.Answer, &dns.A{Hdr: rrHeader(q.Question[0].Name, dns.TypeA, 300), A: net.IPv4(192, 0, 2, 1)})
		case "big.example.com.":
			for i := range 200 {
				reply.Answer = append(reply.Answer, &dns.A{Hdr: rrHeader(q.Question[0].Name, dns.TypeA, 300), A: net.IPv4(192, 0, 2, byte(i))})
			}
		case "silent.example.com.":
			return
		default:
			reply.Rcode = dns.RcodeNameError
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			reply.Truncate(1232)
		}
		_ = w.WriteMsg(reply)
	})
	var udp net.PacketConn
	var tcp net.Listener
	check(l.t, inside(l.path("outside"), func() (err error) {
		if udp, err = net.ListenPacket("udp4", ":53"); err == nil {
			tcp, err = net.Listen("tcp4", ":53")
		}
		return err
	}))
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		l.t.Cleanup(func() { _ = s.Shutdown() })
	}
	return asked
}

func namedConfig(t *testing.T) Config {
	cfg := parseConfig(t, `
		network shop/default 10.20.0.0/24 10.20.0.1
		network infra/shared 10.21.0.0/24 10.21.0.1
		network blog/closed 10.22.0.0/24 10.22.0.1 internal
		task shop/web.1.aaaaaa shop/default=10.20.0.11
		task shop/web.2.aaaaaa shop/default=10.20.0.12
		task shop/client.1.bbbbbb shop/default=10.20.0.100 infra/shared=10.21.0.100
		task blog/web.1.aaaaaa infra/shared=10.21.0.11
		task blog/db.1.aaaaaa blog/closed=10.22.0.11
		service shop/web shop/default=10.20.0.2 shop/web.1.aaaaaa shop/web.2.aaaaaa
		service shop/rr dnsrr shop/web.1.aaaaaa shop/web.2.aaaaaa
		service blog/web infra/shared=10.21.0.2 blog/web.1.aaaaaa
		service blog/api infra/shared=10.21.0.3
		service blog/db blog/closed=10.22.0.2 blog/db.1.aaaaaa`)
	cfg.Services[0].Aliases = []swarm.Alias{{Network: "shop/default", Name: "Www"}, {Network: "blog/closed", Name: "hidden"}}
	cfg.Services[1].Aliases = []swarm.Alias{{Network: "shop/default", Name: "www"}}
	cfg.Services[1].Backends[0].Hostname = "alpha"
	cfg.Upstream = []string{outsideAddress}
	return cfg
}

func TestAnswersTheNamesThatAContainerShares(t *testing.T) {
	l := newLab(t)
	l.config = namedConfig(t)
	l.upstreamServer()
	l.set()
	for _, c := range []struct {
		name, want string
		kind       uint16
	}{
		{"web", "NOERROR 10.20.0.2", dns.TypeA}, // its own stack's, though blog has one too
		{"WEB", "NOERROR 10.20.0.2", dns.TypeA},
		{"web", "NOERROR", dns.TypeAAAA},
		{"shop_web", "NOERROR 10.20.0.2", dns.TypeA},
		{"web.shop", "NOERROR 10.20.0.2", dns.TypeA},
		{"blog_web", "NOERROR 10.21.0.2", dns.TypeA},
		{"web.blog", "NOERROR 10.21.0.2", dns.TypeA},
		{"tasks.web", "NOERROR 10.20.0.11 10.20.0.12", dns.TypeA},
		{"tasks.web.blog", "NOERROR 10.21.0.11", dns.TypeA},
		{"web.2", "NOERROR 10.20.0.12", dns.TypeA},
		{"web.1.blog", "NOERROR 10.21.0.11", dns.TypeA},
		{"rr", "NOERROR 10.20.0.11 10.20.0.12", dns.TypeA},
		{"www", "NOERROR 10.20.0.11 10.20.0.12 10.20.0.2", dns.TypeA}, // an alias of two services
		{"alpha", "NOERROR 10.20.0.11", dns.TypeA},
		{"api", "NOERROR 10.21.0.3", dns.TypeA},
		{"tasks.api", "NOERROR", dns.TypeA}, // it is known, and has no task now
		{"db", "NXDOMAIN", dns.TypeA},       // on a network of others
		{"hidden", "NXDOMAIN", dns.TypeA},
		{"2.0.20.10.in-addr.arpa", "NOERROR web.shop.", dns.TypePTR},
		{"11.0.21.10.in-addr.arpa", "NOERROR web.1.blog.", dns.TypePTR},
		{"99.0.20.10.in-addr.arpa", "NXDOMAIN", dns.TypePTR},
		{"example.com", "NOERROR 192.0.2.1", dns.TypeA},
		{"nowhere.example.com", "NXDOMAIN", dns.TypeA},
	} {
		if got := l.lookup(client, c.name, c.kind); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, dns.TypeToString[c.kind], got, c.want)
		}
	}
}

func TestNamesOnlyHealthyTasks(t *testing.T) {
	l := newLab(t)
	l.config = namedConfig(t)
	l.set()
	for i := range l.config.Services {
		if b := l.config.Services[i].Backends; len(b) == 2 {
			l.config.Services[i].Backends = b[1:]
		}
	}
	l.set()
	for name, want := range map[string]string{"rr": "NOERROR 10.20.0.12", "tasks.web": "NOERROR 10.20.0.12", "web": "NOERROR 10.20.0.2", "web.2": "NOERROR 10.20.0.12"} {
		if got := l.lookup(client, name, dns.TypeA); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestAnInternalNetworkAsksNobodyElse(t *testing.T) {
	l := newLab(t)
	l.config = namedConfig(t)
	asked := l.upstreamServer()
	l.set()
	for _, name := range []string{"example.com", "1.2.0.192.in-addr.arpa"} {
		if got := l.lookup("blog/db.1.aaaaaa", name, dns.TypeA); got != "NXDOMAIN" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := l.lookup("blog/db.1.aaaaaa", "db", dns.TypeA); got != "NOERROR 10.22.0.2" {
		t.Errorf("its own name: %s", got)
	}
	if asked.Load() > 0 {
		t.Errorf("%d queries left the node", asked.Load())
	}
}

func TestAsksTheUpstreamOnceAndKeepsTheAnswer(t *testing.T) {
	l := newLab(t)
	l.config = namedConfig(t)
	asked := l.upstreamServer()
	l.set()
	for range 5 {
		for _, where := range []string{client, web(1)} {
			if got := l.lookup(where, "Example.com", dns.TypeA); got != "NOERROR 192.0.2.1" {
				t.Fatal(got)
			}
		}
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestAnswersTooLongForADatagramComeByTCP(t *testing.T) {
	l := newLab(t)
	l.config = namedConfig(t)
	l.upstreamServer()
	l.set()
	said, err := l.query(client, "udp", "big.example.com", dns.TypeA)
	check(t, err)
	said.Compress = true // as it came
	if !said.Truncated || said.Len() > maxUDPAnswer {
		t.Errorf("by UDP: truncated %v, %d bytes", said.Truncated, said.Len())
	}
	said, err = l.query(client, "tcp", "big.example.com", dns.TypeA)
	check(t, err)
	if len(said.Answer) != 200 {
		t.Errorf("by TCP: %d records", len(said.Answer))
	}
}

func TestASilentUpstreamIsAFailureInTime(t *testing.T) {
	l := newLab(t)
	l.config = namedConfig(t)
	l.upstreamServer()
	l.set()
	began := time.Now()
	if got := l.lookup(client, "silent.example.com", dns.TypeA); got != "SERVFAIL" || time.Since(began) > 4*time.Second {
		t.Errorf("%s after %v", got, time.Since(began))
	}
}

func TestPort53IsLeftToTheContainer(t *testing.T) {
	l := newLab(t)
	l.config = namedConfig(t)
	l.set()
	l.serve(web(1), 53)
	if name, _, err := l.ask(client, "udp", "10.20.0.11:53"); err != nil || name != web(1) {
		t.Errorf("%s, %v", name, err)
	}
	if got := l.lookup(web(1), "web", dns.TypeA); got != "NOERROR 10.20.0.2" {
		t.Errorf("its resolver: %s", got)
	}
}

func TestRendersTheContainersFiles(t *testing.T) {
	n := newFakeNetwork(t, newFake())
	cfg := shop(1)
	cfg.Upstream = []string{"192.0.2.53"}
	cfg.Endpoints[0].Hosts = []swarm.Host{{Name: "node", Address: "host-gateway"}, {Name: "mail", Address: "192.0.2.25"}}
	cfg.Endpoints[1].Hostname = "box"
	reached, err := n.Set(t.Context(), cfg)
	check(t, err)
	first, second := reached.Endpoints[swarm.TaskID(web(1))], reached.Endpoints[client]
	if want := "nameserver 127.0.0.11\noptions ndots:0\n"; string(first.ResolvConf) != want {
		t.Errorf("resolv.conf is %q", first.ResolvConf)
	}
	local := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if want := local + "10.20.0.1\tnode\n192.0.2.25\tmail\n10.20.0.11\tweb.1.aaaaaa\n"; string(first.Hosts) != want {
		t.Errorf("hosts is %q, want %q", first.Hosts, want)
	}
	if want := local + "10.20.0.100\tbox\n"; string(second.Hosts) != want {
		t.Errorf("hosts is %q, want %q", second.Hosts, want)
	}
}

func TestManyConnectionsDoNotKeepTheResolverFromOthers(t *testing.T) {
	l := newLab(t)
	l.config = namedConfig(t)
	l.set()
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			_ = c.Close()
		}
	}()
	for range maxConnections + 10 {
		c, err := l.dial(web(1), "tcp", "127.0.0.11:53")
		check(t, err)
		idle = append(idle, c)
	}
	for _, where := range []string{web(1), client} {
		if got := l.lookup(where, "web", dns.TypeA); got != "NOERROR 10.20.0.2" {
			t.Errorf("%s by UDP: %s", where, got)
		}
	}
	if said, err := l.query(client, "tcp", "web", dns.TypeA); err != nil || len(said.Answer) != 1 {
		t.Errorf("another container by TCP: %v, %v", said, err)
	}
}

// FuzzAnswer holds that no query makes the resolver panic or answer another.
func FuzzAnswer(f *testing.F) {
	z := newZone(Endpoint{Task: "shop/client.1.bbbbbb", Service: "shop/client", Addresses: []swarm.Address{{Network: "shop/default", IP: "10.20.0.9"}}},
		shop(3).Networks, shop(3).Services)
	z.closed = true
	for _, name := range []string{"web", "tasks.web", "2.0.20.10.in-addr.arpa", "1.1.in-addr.arpa", ".", "x"} {
		packed, err := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	l := &listener{upward: newUpstream(""), forwards: make(chan struct{}, 1)}
	l.zone.Store(z)
	f.Fuzz(func(t *testing.T, packet []byte) {
		q := new(dns.Msg)
		if q.Unpack(packet) != nil {
			return
		}
		reply := l.answer(q)
		if reply == nil || reply.Id != q.Id || !reply.Response {
			t.Fatal(fmt.Sprint(reply))
		}
		if _, err := reply.Pack(); err != nil && len(reply.Answer) > 0 {
			t.Fatal(err)
		}
	})
}
