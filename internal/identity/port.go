package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Bounds of connections that have not proved themselves yet. Each holds some
// 10 KiB while it waits and 100 KiB at most while it shakes hands.
const (
	handshakeTime  = 5 * time.Second // from accept until a protocol's listener took it
	handshakeBytes = 64 << 10        // read of one handshake
	maxWaiting     = 2048            // connections; the kernel holds what comes beyond
	maxOfSource    = 1024            // connections of one address; more are closed at once
	maxHandshakes  = 256             // at a time
	maxOfSourceNow = 64              // handshakes of one address at a time
)

var (
	errTooMuch = errors.New("its handshake is too long")
	errSilent  = errors.New("it never said a word") // somebody looked whether the port is open
	errNobody  = errors.New("the manager does not serve this protocol now")
)

// refused is Admit's error.
type refused struct{ error }

// Port is a listener on which several protocols meet, told apart by ALPN. It
// hands on connections whose handshake is done.
type Port struct {
	// Admit judges a peer that showed a valid certificate: whether the state
	// still knows it, in that role. Its error closes the connection and must be
	// a constant sentence. Optional; set before Serve.
	Admit func(peer Peer, protocol string) error

	listener net.Listener
	config   func() *tls.Config
	refusals *Refusals
	waiting  chan struct{}
	shaking  chan struct{}

	mu        sync.Mutex
	protocols map[string]*protocol
	sources   map[string]*source
}

// source is one remote address with connections that wait.
type source struct {
	waiting int
	shaking chan struct{}
}

// Listen takes over l. The configuration is asked for at each handshake.
func Listen(l net.Listener, config func() *tls.Config, log *slog.Logger) *Port {
	return &Port{
		listener: l, config: config, refusals: NewRefusals(log),
		waiting: make(chan struct{}, maxWaiting), shaking: make(chan struct{}, maxHandshakes),
		protocols: make(map[string]*protocol), sources: make(map[string]*source),
	}
}

// For returns the listener of a protocol; its connections are *tls.Conn. The
// protocol must be among the configuration's.
func (p *Port) For(name string) net.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.protocols[name]
	if l == nil {
		l = &protocol{address: p.listener.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
		p.protocols[name] = l
	}
	return l
}

// Serve accepts until ctx ends, which is not an error. It closes the listener,
// every listener of For, and the connections nobody took.
func (p *Port) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { p.listener.Close() })
	defer stop()
	var connections sync.WaitGroup
	defer connections.Wait()
	defer p.close()
	defer cancel()

	for {
		select {
		case p.waiting <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := p.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept connections on %s: %w", p.listener.Addr(), err)
		case err != nil: // no more file descriptors, or it is gone already
			<-p.waiting
			p.refusals.Note(p.listener.Addr(), "this machine has no file descriptor left for it")
			pause(ctx)
			continue
		}
		connections.Go(func() {
			defer func() { <-p.waiting }()
			p.receive(ctx, conn)
		})
	}
}

// pause lets descriptors come free.
func pause(ctx context.Context) {
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
	}
}

func (p *Port) close() {
	p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.protocols {
		l.Close()
	}
}

// receive brings one connection from accept to the listener of its protocol.
func (p *Port) receive(ctx context.Context, raw net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	from, leave, ok := p.enter(raw.RemoteAddr())
	if !ok {
		raw.Close()
		p.refusals.Note(raw.RemoteAddr(), "its address has too many connections that wait")
		return
	}
	defer leave()

	conn, err := p.handshake(ctx, raw, from)
	if err == nil {
		err = p.hand(ctx, conn)
	}
	if err == nil {
		return
	}
	raw.Close()
	ending := errors.Is(ctx.Err(), context.Canceled)
	if !ending && !errors.Is(err, errSilent) {
		p.refusals.Note(raw.RemoteAddr(), causeOf(err))
	}
}

// enter counts a connection of an address.
func (p *Port) enter(remote net.Addr) (from *source, leave func(), ok bool) {
	name, _, err := net.SplitHostPort(remote.String())
	if err != nil {
		name = remote.String()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	from = p.sources[name]
	if from == nil {
		from = &source{shaking: make(chan struct{}, maxOfSourceNow)}
		p.sources[name] = from
	}
	if from.waiting == maxOfSource {
		return nil, nil, false
	}
	from.waiting++
	return from, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if from.waiting--; from.waiting == 0 {
			delete(p.sources, name)
		}
	}, true
}

// handshake waits for its turn, first among the connections of its own address.
func (p *Port) handshake(ctx context.Context, raw net.Conn, from *source) (*tls.Conn, error) {
	for _, turn := range []chan struct{}{from.shaking, p.shaking} {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	bounded := &boundedConn{Conn: raw, left: handshakeBytes}
	conn := tls.Server(bounded, p.config())
	if err := conn.HandshakeContext(ctx); err != nil {
		if !bounded.heard && errors.Is(err, io.EOF) {
			return nil, errSilent
		}
		return nil, err
	}
	bounded.done = true
	return conn, p.admit(conn.ConnectionState())
}

func (p *Port) admit(state tls.ConnectionState) error {
	peer, err := PeerOf(state)
	if err != nil || p.Admit == nil {
		return nil // without a certificate: Server's configuration allowed it
	}
	if err := p.Admit(peer, spoken(state)); err != nil {
		return refused{err}
	}
	return nil
}

func (p *Port) hand(ctx context.Context, conn *tls.Conn) error {
	p.mu.Lock()
	l := p.protocols[spoken(conn.ConnectionState())]
	p.mu.Unlock()
	if l == nil {
		return errNobody
	}
	select {
	case l.conns <- conn:
		return nil
	case <-l.closed:
		return errNobody
	case <-ctx.Done():
		return errNobody
	}
}

// protocol is the listener of one protocol.
type protocol struct {
	address net.Addr
	conns   chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *protocol) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *protocol) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *protocol) Addr() net.Addr { return l.address }
