package network

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Limits of what one container can ask of its resolver at once.
const (
	maxConnections = 64
	maxForwarded   = 64
	maxUDPAnswer   = 1232 // bytes: passes every link unfragmented (DNS flag day 2020)
)

// listener answers the names of one container. Its sockets are in the
// container's namespace, its goroutines in this process.
type listener struct {
	zone     atomic.Pointer[zone]
	upward   *upstream
	at       ports
	servers  [2]*dns.Server
	ctx      context.Context
	cancel   context.CancelFunc
	forwards chan struct{} // one element for each query that others are asked
}

// listen starts a resolver in the namespace at path: on the preferred ports if
// they are free, else on any. Port 53 stays free for the container.
func listen(path string, prefer ports, z *zone, upward *upstream) (resolver, error) {
	var udp net.PacketConn
	var tcp net.Listener
	err := inside(path, func() (err error) {
		for _, port := range []uint16{prefer.udp, 0} {
			if udp, err = net.ListenPacket("udp4", place(port)); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
		for _, port := range []uint16{prefer.tcp, 0} {
			if tcp, err = net.Listen("tcp4", place(port)); err == nil {
				return nil
			}
		}
		_ = udp.Close()
		return err
	})
	if err != nil {
		return nil, err
	}

	l := &listener{upward: upward, forwards: make(chan struct{}, maxForwarded)}
	l.at = ports{udp: uint16(udp.LocalAddr().(*net.UDPAddr).Port), tcp: uint16(tcp.Addr().(*net.TCPAddr).Port)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.zone.Store(z)
	l.servers[0] = &dns.Server{PacketConn: udp, Handler: l, UDPSize: maxUDPAnswer}
	l.servers[1] = &dns.Server{Listener: newLimited(tcp, maxConnections), Handler: l}
	l.start()
	return l, nil
}

func place(port uint16) string {
	return net.JoinHostPort(resolverAddress.String(), strconv.Itoa(int(port)))
}

// start returns once both servers serve: only then can they be shut down.
func (l *listener) start() {
	var ready sync.WaitGroup
	for _, s := range l.servers {
		ready.Add(1)
		s.NotifyStartedFunc = ready.Done
		go func() { _ = s.ActivateAndServe() }() // ends with Shutdown
	}
	ready.Wait()
}

func (l *listener) ports() ports { return l.at }

func (l *listener) serve(z *zone) { l.zone.Store(z) }

func (l *listener) close() {
	l.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, s := range l.servers {
		_ = s.ShutdownContext(ctx)
	}
}

// ServeDNS answers one query.
func (l *listener) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	reply := l.answer(q)
	size := dns.MaxMsgSize
	if _, ok := w.RemoteAddr().(*net.UDPAddr); ok {
		size = dns.MinMsgSize
	}
	if edns := q.IsEdns0(); edns != nil {
		reply.SetEdns0(maxUDPAnswer, edns.Do())
		if size == dns.MinMsgSize {
			size = max(size, min(int(edns.UDPSize()), maxUDPAnswer))
		}
	}
	reply.Truncate(size)
	_ = w.WriteMsg(reply) // a client that is gone asks again
}

// answer never returns nil.
func (l *listener) answer(q *dns.Msg) *dns.Msg {
	reply := new(dns.Msg).SetReply(q)
	reply.RecursionAvailable = true
	switch {
	case q.Opcode != dns.OpcodeQuery:
		reply.Rcode = dns.RcodeNotImplemented
		return reply
	case len(q.Question) != 1:
		reply.Rcode = dns.RcodeFormatError
		return reply
	case q.Question[0].Qclass != dns.ClassINET:
		reply.Rcode = dns.RcodeRefused
		return reply
	}

	z := l.zone.Load()
	if z.answer(q.Question[0], reply) {
		return reply
	}
	if z.closed || !l.upward.exists() {
		reply.Rcode = dns.RcodeNameError
		return reply
	}
	select {
	case l.forwards <- struct{}{}:
		defer func() { <-l.forwards }()
	default:
		reply.Rcode = dns.RcodeServerFailure
		return reply
	}
	return l.upward.ask(l.ctx, q, reply)
}

// answer fills in the reply if the name is the zone's. A name that stands for
// nothing at present, or for no address of the type asked for, has an empty
// answer: the name is there.
func (z *zone) answer(q dns.Question, reply *dns.Msg) bool {
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	if ip, ok := reversed(name); ok {
		target, known := z.reverse[ip]
		switch {
		case known && q.Qtype == dns.TypePTR:
			reply.Answer = append(reply.Answer, &dns.PTR{Hdr: rrHeader(q.Name, dns.TypePTR, taskTTL), Ptr: target + "."})
		case !known && !z.owns(ip) && !ip.IsLoopback():
			return false
		case !known:
			reply.Rcode = dns.RcodeNameError
		}
		reply.Authoritative = true
		return true
	}

	a, ok := z.names[name]
	if !ok {
		return false
	}
	reply.Authoritative = true
	if q.Qtype != dns.TypeA && q.Qtype != dns.TypeANY {
		return true
	}
	for _, i := range rand.Perm(len(a.addresses)) {
		reply.Answer = append(reply.Answer, &dns.A{Hdr: rrHeader(q.Name, dns.TypeA, a.ttl), A: a.addresses[i].AsSlice()})
	}
	return true
}

func rrHeader(name string, kind uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// reversed parses "4.3.2.1.in-addr.arpa".
func reversed(name string) (netip.Addr, bool) {
	digits, ok := strings.CutSuffix(name, ".in-addr.arpa")
	parts := strings.Split(digits, ".")
	if !ok || len(parts) != 4 {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(fmt.Sprintf("%s.%s.%s.%s", parts[3], parts[2], parts[1], parts[0]))
	return ip, err == nil
}

// withResolver is the table with the resolver's ports in it.
func withResolver(t *table, p ports) *table {
	made := &table{Sets: map[string]set{}, Chains: t.Chains}
	for name, s := range t.Sets {
		made.Sets[name] = s
	}
	s := made.Sets["resolver"]
	s.Elements = map[string]string{"udp": strconv.Itoa(int(p.udp)), "tcp": strconv.Itoa(int(p.tcp))}
	made.Sets["resolver"] = s
	return made
}

// portsOf is the inverse of withResolver; 0 is a port that it does not have.
func portsOf(s set) ports {
	udp, _ := strconv.ParseUint(cmp.Or(s.Elements["udp"], "0"), 10, 16)
	tcp, _ := strconv.ParseUint(cmp.Or(s.Elements["tcp"], "0"), 10, 16)
	return ports{udp: uint16(udp), tcp: uint16(tcp)}
}

// limited accepts so many connections at a time.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newLimited(l net.Listener, n int) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

// Accept waits for a connection, and for one of the others to end if there are
// as many as may be.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &counted{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close ends a waiting Accept too.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type counted struct {
	net.Conn
	release func()
}

// Close gives the slot back.
func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}
