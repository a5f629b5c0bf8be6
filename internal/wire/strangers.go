package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/gitswarm/gitswarm/internal/identity"
)

// Bounds of strangers: connections without a certificate. They are answered by
// a server of their own, which knows one service, takes small messages and
// ends every connection soon. Each costs 200 KiB at most.
const (
	maxFromStranger  = 64 << 10 // bytes of one message
	maxStrangers     = 128
	maxStrangersFrom = 16 // of one address
	strangerStays    = 20 * time.Second
	strangerIdles    = 5 * time.Second
)

// maxOfNode bounds the connections of one node's certificate: an agent needs
// one, a manager a few.
const maxOfNode = 16

// serveStrangers answers the connections that hall lets in, until ctx ends.
func serveStrangers(ctx context.Context, hall *hall, services Services) error {
	s := grpc.NewServer(
		grpc.Creds(shaken{}),
		grpc.ForceServerCodec(cborCodec{}),
		grpc.MaxRecvMsgSize(maxFromStranger),
		grpc.MaxSendMsgSize(maxFromStranger),
		grpc.MaxHeaderListSize(8<<10),
		grpc.MaxConcurrentStreams(1),
		grpc.InitialWindowSize(maxFromStranger),
		grpc.InitialConnWindowSize(maxFromStranger),
		grpc.ReadBufferSize(bufferSize),
		grpc.WriteBufferSize(bufferSize),
		grpc.ConnectionTimeout(strangerIdles),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: strangerIdles, MaxConnectionAge: strangerStays, MaxConnectionAgeGrace: time.Second,
		}),
	)
	if services.Join != nil {
		s.RegisterService(&joinDescription, joins{server: services.Join, refusals: services.Refusals})
	}
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(hall); err != nil && ctx.Err() == nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve strangers: %w", err)
	}
	return nil
}

// door is a listener for nodes, and for this machine itself: it sends strangers
// to the hall.
type door struct {
	net.Listener
	hall     *hall
	nodes    *crowd
	refusals *identity.Refusals
}

func newDoor(listener net.Listener, refusals *identity.Refusals) door {
	return door{Listener: listener, hall: newHall(listener.Addr(), refusals), nodes: newCrowd(maxOfNode), refusals: refusals}
}

// Accept gives the next connection of a node.
func (d door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		secured, ok := conn.(*tls.Conn)
		if err != nil || !ok {
			return conn, err
		}
		peer, err := identity.PeerOf(secured.ConnectionState())
		if err != nil {
			d.hall.enter(secured)
			continue
		}
		if leave, ok := d.nodes.enter(string(peer.Node)); ok {
			return guest{Conn: secured, leave: leave}, nil
		}
		turnAway(secured, d.refusals, "its node has too many connections open")
	}
}

// turnAway ends a connection without a word: the other side may not listen.
func turnAway(conn *tls.Conn, refusals *identity.Refusals, cause string) {
	refusals.Note(conn.RemoteAddr(), cause)
	_ = conn.NetConn().Close()
}

// crowd counts connections by whose they are.
type crowd struct {
	each int // of one

	mu    sync.Mutex
	count map[string]int
	all   int
}

func newCrowd(each int) *crowd { return &crowd{each: each, count: make(map[string]int)} }

// enter counts one more, unless there are too many; leave may be called again.
func (c *crowd) enter(name string) (leave func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count[name] >= c.each {
		return nil, false
	}
	c.count[name]++
	c.all++
	return sync.OnceFunc(func() { c.leave(name) }), true
}

func (c *crowd) leave(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.count[name]--; c.count[name] == 0 {
		delete(c.count, name)
	}
}

func (c *crowd) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

// guest leaves its crowd when it is closed.
type guest struct {
	*tls.Conn
	leave func()
}

// Close ends the connection.
func (g guest) Close() error {
	g.leave()
	return g.Conn.Close()
}

// hall is a listener that holds a bounded number of strangers.
type hall struct {
	address   net.Addr
	refusals  *identity.Refusals
	strangers *crowd
	closed    chan struct{}

	mu    sync.Mutex
	done  bool
	conns chan net.Conn
}

func newHall(address net.Addr, refusals *identity.Refusals) *hall {
	return &hall{
		address: address, refusals: refusals, strangers: newCrowd(maxStrangersFrom),
		closed: make(chan struct{}), conns: make(chan net.Conn, maxStrangers),
	}
}

// enter lets a stranger in, or turns it away where there are too many.
func (h *hall) enter(conn *tls.Conn) {
	if !h.admit(conn) {
		turnAway(conn, h.refusals, "too many connections without a certificate are open")
	}
}

func (h *hall) admit(conn *tls.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	leave, ok := h.strangers.enter(hostOf(conn.RemoteAddr()))
	if !ok {
		return false
	}
	if h.done || h.strangers.size() > maxStrangers {
		leave()
		return false
	}
	h.conns <- guest{Conn: conn, leave: leave} // there is room for maxStrangers
	return true
}

func hostOf(address net.Addr) string {
	host, _, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	return host
}

// Accept gives the next stranger.
func (h *hall) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept, and the connections that nobody took.
func (h *hall) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done {
		return nil
	}
	h.done = true
	close(h.closed)
	for {
		select {
		case conn := <-h.conns:
			_ = conn.(guest).NetConn().Close()
		default:
			return nil
		}
	}
}

// Addr is the address that strangers come to.
func (h *hall) Addr() net.Addr { return h.address }
