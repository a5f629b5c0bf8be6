package agenttest

import (
	"context"
	"errors"
	"net"
	"sync"
)

// Pipe is a network of one listener, in memory: right for bubbles of virtual
// time.
type Pipe struct {
	conns chan net.Conn

	mu     sync.Mutex
	broken error
	open   []net.Conn
}

// NewPipe returns a listener that nobody has dialled.
func NewPipe() *Pipe { return &Pipe{conns: make(chan net.Conn)} }

// Accept gives the next connection.
func (p *Pipe) Accept() (net.Conn, error) {
	conn, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

// Close ends Accept.
func (p *Pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !errors.Is(p.broken, net.ErrClosed) {
		p.broken = net.ErrClosed
		close(p.conns)
	}
	return nil
}

// Addr is no address.
func (p *Pipe) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// Dial connects to the listener.
func (p *Pipe) Dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return nil, p.broken
	}
	select {
	case p.conns <- far:
		p.open = append(p.open, near, far)
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Cut ends all connections and, with an error, refuses new ones until Mend.
func (p *Pipe) Cut(refuse error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.open {
		_ = conn.Close()
	}
	p.open, p.broken = nil, refuse
}

// Mend takes connections again.
func (p *Pipe) Mend() { p.Cut(nil) }
