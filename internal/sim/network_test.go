package sim

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Kinds of a link's health.
type health int

const (
	sound   health = iota
	silent         // nothing arrives, and nobody is told: packets are lost until it is sound again
	severed        // connections break and none can be made
)

// link is a pair of hosts, in their order.
type link [2]string

func linkOf(a, b string) link {
	if a > b {
		a, b = b, a
	}
	return link{a, b}
}

// network joins hosts by connections in memory. Bytes arrive in order, after a
// while.
type network struct {
	mu        sync.Mutex
	chance    *rand.Rand
	slowest   time.Duration // that a packet takes
	listeners map[string]*listener
	links     map[link]health
	conns     map[*conn]bool // one end of each connection
}

func newNetwork(seed uint64) *network {
	return &network{
		chance: rand.New(rand.NewPCG(seed, 1)), slowest: 2 * time.Millisecond,
		listeners: make(map[string]*listener), links: make(map[link]health), conns: make(map[*conn]bool),
	}
}

// delay is how long the next packet takes.
func (n *network) delay() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Duration(n.chance.Int64N(int64(n.slowest)))
}

func (n *network) slow(slowest time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.slowest = slowest
}

// set makes a link healthy or not.
func (n *network) set(l link, h health) {
	n.mu.Lock()
	n.links[l] = h
	var on []*conn
	for c := range n.conns {
		if c.link == l {
			on = append(on, c)
		}
	}
	n.mu.Unlock()
	for _, c := range on {
		if h == severed {
			c.reset()
			continue
		}
		c.in.hold(h == silent)
		c.out.hold(h == silent)
	}
}

// heal makes every link sound.
func (n *network) heal() {
	n.mu.Lock()
	links := make([]link, 0, len(n.links))
	for l := range n.links {
		links = append(links, l)
	}
	n.mu.Unlock()
	for _, l := range links {
		n.set(l, sound)
	}
}

// reaches reports whether a host has sound links to all of the others.
func (n *network) reaches(host string, others []string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, other := range others {
		if n.links[linkOf(host, other)] != sound {
			return false
		}
	}
	return true
}

// crash ends every connection of a host, and all that it listens to.
func (n *network) crash(host string) {
	n.mu.Lock()
	var on []*conn
	for c := range n.conns {
		if c.link[0] == host || c.link[1] == host {
			on = append(on, c)
		}
	}
	for address, l := range n.listeners {
		if l.host == host {
			delete(n.listeners, address)
		}
	}
	n.mu.Unlock()
	for _, c := range on {
		c.reset()
	}
}

func (n *network) listen(host, service string) *listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &listener{host: host, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[host+"/"+service] = l
	return l
}

// dial connects from one host to a service of another.
func (n *network) dial(ctx context.Context, from, to, service string) (net.Conn, error) {
	n.mu.Lock()
	l, h := n.listeners[to+"/"+service], n.links[linkOf(from, to)]
	n.mu.Unlock()
	switch {
	case h == silent:
		<-ctx.Done()
		return nil, ctx.Err()
	case h == severed || l == nil:
		return nil, fmt.Errorf("dial %s of %s from %s: %w", service, to, from, syscall.ECONNREFUSED)
	}

	near, far := n.pair(linkOf(from, to))
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	near.reset()
	return nil, fmt.Errorf("dial %s of %s from %s: %w", service, to, from, syscall.ECONNREFUSED)
}

func (n *network) pair(l link) (near, far *conn) {
	there, back := newPipe(n.delay), newPipe(n.delay)
	near = &conn{network: n, link: l, in: back, out: there}
	far = &conn{network: n, link: l, in: there, out: back}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[near] = true
	near.first, far.first = near, near
	return near, far
}

func (n *network) forget(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// listener is one service of a host.
type listener struct {
	host   string
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.host, Net: "sim"} }

// conn is one end of a connection.
type conn struct {
	network *network
	link    link
	first   *conn // the end that the network knows
	in, out *pipe
	once    sync.Once
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close implements net.Conn. What was written before arrives.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.out.end(io.EOF)
		c.in.abandon()
		if c.in.over() && c.out.over() {
			c.network.forget(c.first)
		}
	})
	return nil
}

// reset breaks both directions at once.
func (c *conn) reset() {
	c.in.reset()
	c.out.reset()
	c.network.forget(c.first)
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return &net.UnixAddr{Name: c.link[0], Net: "sim"} }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return &net.UnixAddr{Name: c.link[1], Net: "sim"} }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.in.setReadDeadline(t)
	c.out.setWriteDeadline(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setReadDeadline(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setWriteDeadline(t)
	return nil
}

// pipeRoom is how many bytes may be under way before a writer waits.
const pipeRoom = 256 << 10

// packet is what one Write gave.
type packet struct {
	due  time.Time
	data []byte
}

// pipe is one direction of a connection.
type pipe struct {
	delay func() time.Duration

	mu                  sync.Mutex
	queue               []packet
	bytes               int
	held                bool  // nothing arrives
	closed              error // of reads, once the queue is empty
	broken              bool  // reset: at once, both ways
	deaf                bool  // the reader has left
	changed             chan struct{}
	readUntil, writeEnd time.Time
}

func newPipe(delay func() time.Duration) *pipe {
	return &pipe{delay: delay, changed: make(chan struct{})}
}

// tell wakes who waits. The caller holds mu.
func (p *pipe) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pipe) alter(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.tell()
}

func (p *pipe) hold(on bool) {
	p.alter(func() { p.held = on })
}

func (p *pipe) end(why error) {
	p.alter(func() { p.closed = why })
}

func (p *pipe) reset() {
	p.alter(func() { p.broken, p.queue = true, nil })
}

func (p *pipe) abandon() {
	p.alter(func() { p.deaf, p.queue = true, nil })
}

func (p *pipe) setReadDeadline(t time.Time) {
	p.alter(func() { p.readUntil = t })
}

func (p *pipe) setWriteDeadline(t time.Time) {
	p.alter(func() { p.writeEnd = t })
}

// over reports whether both sides have left.
func (p *pipe) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken || p.deaf && p.closed != nil
}

func (p *pipe) read(into []byte) (int, error) {
	for {
		p.mu.Lock()
		n, until, err := p.take(into)
		changed := p.changed
		p.mu.Unlock()
		if n > 0 || err != nil || len(into) == 0 {
			return n, err
		}
		pause(changed, until)
	}
}

// take is what a reader gets now, or when to look again. The caller holds mu.
func (p *pipe) take(into []byte) (n int, until time.Time, err error) {
	now := time.Now()
	switch {
	case p.broken:
		return 0, until, syscall.ECONNRESET
	case p.deaf:
		return 0, until, net.ErrClosed
	case !p.readUntil.IsZero() && !now.Before(p.readUntil):
		return 0, until, os.ErrDeadlineExceeded
	}
	until = p.readUntil
	if p.held {
		return 0, until, nil
	}
	for len(p.queue) > 0 && n < len(into) {
		head := &p.queue[0]
		if head.due.After(now) {
			if until.IsZero() || head.due.Before(until) {
				until = head.due
			}
			return n, until, nil
		}
		copied := copy(into[n:], head.data)
		n, head.data, p.bytes = n+copied, head.data[copied:], p.bytes-copied
		if len(head.data) == 0 {
			p.queue = p.queue[1:]
		}
	}
	if n > 0 {
		if p.bytes+n > pipeRoom/2 {
			p.tell()
		}
		return n, until, nil
	}
	if len(p.queue) == 0 && p.closed != nil {
		return 0, until, p.closed
	}
	return 0, until, nil
}

func (p *pipe) write(data []byte) (int, error) {
	delay := p.delay()
	for {
		p.mu.Lock()
		switch {
		case p.broken, p.deaf:
			p.mu.Unlock()
			return 0, syscall.ECONNRESET
		case p.closed != nil:
			p.mu.Unlock()
			return 0, net.ErrClosed
		case !p.writeEnd.IsZero() && !time.Now().Before(p.writeEnd):
			p.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case p.bytes < pipeRoom:
			p.send(data, delay)
			p.mu.Unlock()
			return len(data), nil
		}
		changed, until := p.changed, p.writeEnd
		p.mu.Unlock()
		pause(changed, until)
	}
}

// send puts a packet on its way, behind those before it. The caller holds mu.
func (p *pipe) send(data []byte, delay time.Duration) {
	due := time.Now().Add(delay)
	if last := len(p.queue) - 1; last >= 0 && p.queue[last].due.After(due) {
		due = p.queue[last].due
	}
	p.queue = append(p.queue, packet{due, append([]byte(nil), data...)})
	p.bytes += len(data)
	p.tell()
}

// pause waits for a change, at most until then; zero is for ever.
func pause(changed <-chan struct{}, until time.Time) {
	if until.IsZero() {
		<-changed
		return
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}
