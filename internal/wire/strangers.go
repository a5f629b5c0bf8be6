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

// stranger reports whether a connection has TLS and showed no certificate.
func stranger(conn net.Conn) bool {
	secured, ok := conn.(*tls.Conn)
	if !ok {
		return false
	}
	_, err := identity.PeerOf(secured.ConnectionState())
	return err != nil
}

// serveStrangers answers the connections that hall lets in, until it is closed.
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
	if err := s.Serve(hall); err != nil && ctx.Err() == nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve strangers: %w", err)
	}
	return nil
}

// door is a listener for nodes: it sends strangers to the hall.
type door struct {
	net.Listener
	hall *hall
}

// Accept gives the next connection of a node.
func (d door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil || !stranger(conn) {
			return conn, err
		}
		d.hall.enter(conn.(*tls.Conn))
	}
}

// hall is a listener that holds a bounded number of strangers.
type hall struct {
	address  net.Addr
	refusals *identity.Refusals
	conns    chan net.Conn // room for all
	closed   chan struct{}

	mu   sync.Mutex
	done bool
	from map[string]int // strangers by address
	all  int
}

func newHall(address net.Addr, refusals *identity.Refusals) *hall {
	return &hall{
		address: address, refusals: refusals, from: make(map[string]int),
		conns: make(chan net.Conn, maxStrangers), closed: make(chan struct{}),
	}
}

// guest leaves the hall when it is closed.
type guest struct {
	*tls.Conn
	leave func()
}

// Close ends the connection.
func (g guest) Close() error {
	g.leave()
	return g.Conn.Close()
}

// enter lets a stranger in, or turns it away where there are too many.
func (h *hall) enter(conn *tls.Conn) {
	if h.admit(conn) {
		return
	}
	h.refusals.Note(conn.RemoteAddr(), "too many connections without a certificate are open")
	_ = conn.NetConn().Close() // without a word: it may not listen
}

func (h *hall) admit(conn *tls.Conn) bool {
	host := hostOf(conn.RemoteAddr())
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done || h.all >= maxStrangers || h.from[host] >= maxStrangersFrom {
		return false
	}
	h.all++
	h.from[host]++
	h.conns <- guest{Conn: conn, leave: sync.OnceFunc(func() { h.left(host) })}
	return true
}

func hostOf(address net.Addr) string {
	host, _, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	return host
}

func (h *hall) left(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all--
	if h.from[host]--; h.from[host] == 0 {
		delete(h.from, host)
	}
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
