package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/peers"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// switchboard joins managers and agents in memory; links can be cut.
type switchboard struct {
	mu    sync.Mutex
	lines map[string]*pipeline
	alone map[string]bool // callers and called that are cut off
	calls []call
}

type call struct {
	from, to string
	conns    [2]net.Conn
}

// pipeline is one address that can be called.
type pipeline struct {
	address string
	conns   chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *pipeline) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeline) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeline) Addr() net.Addr { return &net.UnixAddr{Name: l.address, Net: "pipe"} }

func (b *switchboard) listen(address string) net.Listener {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := &pipeline{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	b.lines[address] = l
	return l
}

// dial calls a service of a manager: "raft" or "wire".
func (b *switchboard) dial(ctx context.Context, from, to, service string) (net.Conn, error) {
	b.mu.Lock()
	l := b.lines[to+"/"+service]
	if l == nil || from != to && (b.alone[from] || b.alone[to]) {
		b.mu.Unlock()
		return nil, fmt.Errorf("no line from %s to %s", from, to)
	}
	near, far := net.Pipe()
	b.calls = append(b.calls, call{from, to, [2]net.Conn{near, far}})
	b.mu.Unlock()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cut takes a manager's lines, to everybody.
func (b *switchboard) cut(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alone[name] = true
	for _, call := range b.calls {
		if call.from != call.to && (call.from == name || call.to == name) {
			_ = call.conns[0].Close()
			_ = call.conns[1].Close()
		}
	}
}

// trio is three managers with real stores, joined by a switchboard.
type trio struct {
	t        *testing.T
	board    *switchboard
	managers []*manager
	stop     []func()
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	t.Parallel() // it waits most of the time
	c := &trio{t: t, board: &switchboard{lines: make(map[string]*pipeline), alone: make(map[string]bool)}}
	for i := range 3 {
		c.start(fmt.Sprint("m", i+1), i > 0)
		if i > 0 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			member := store.Member{Node: swarm.NodeID(fmt.Sprint("m", i+1)), Address: fmt.Sprint("m", i+1)}
			if err := c.leader().store.Add(ctx, member); err != nil {
				t.Fatal(err)
			}
			cancel()
		}
	}
	c.leader().begin()
	return c
}

func (c *trio) start(name string, join bool) {
	c.t.Helper()
	dir := c.t.TempDir()
	keyring, err := seal.Create(filepath.Join(dir, "keyring"))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := keyring.SetCluster([]byte("0123456789abcdef0123456789abcdef")); err != nil {
		c.t.Fatal(err)
	}
	others := peers.New(peers.Config{
		Raft:     c.board.listen(name + "/raft"),
		DialRaft: func(ctx context.Context, to string) (net.Conn, error) { return c.board.dial(ctx, name, to, "raft") },
		DialWire: func(ctx context.Context, to string) (net.Conn, error) { return c.board.dial(ctx, name, to, "wire") },
	})
	state, err := store.Open(store.Config{Dir: filepath.Join(dir, "store"), Node: swarm.NodeID(name), Keyring: keyring, Address: name, Peers: others, Join: join})
	if err != nil {
		c.t.Fatal(err)
	}
	content, err := blobs.New(blobs.Config{Dir: filepath.Join(dir, "blobs"), Keyring: keyring, Peers: func() []blobs.Peer { return others.Blobs(swarm.NodeID(name), state) }})
	if err != nil {
		c.t.Fatal(err)
	}
	m := &manager{t: c.t, store: state, blobs: content}
	m.dial = func(ctx context.Context) (net.Conn, error) { return c.board.dial(ctx, "agent", name, "wire") }
	m.dispatcher = New(Config{
		Local: swarm.NodeID(name), Store: state, Blobs: content, Peers: others, Heartbeat: beat,
		Log: slog.New(slog.DiscardHandler), Plain: func(swarm.NodeID) bool { return true }, Role: swarm.RoleWorker,
	})

	ctx, cancel := context.WithCancel(c.t.Context())
	served := make(chan error, 2)
	answers := peers.Answers{Sessions: m.dispatcher, Store: state, Content: content}
	wires := c.board.listen(name + "/wire")
	go func() { served <- m.dispatcher.Run(ctx) }()
	go func() { served <- wire.Serve(ctx, wires, wire.Services{Agents: m.dispatcher, Managers: answers}) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-served, <-served, others.Close(), content.Close(), state.Close()); err != nil {
			c.t.Error(err)
		}
	})
	c.t.Cleanup(stop)
	c.managers, c.stop = append(c.managers, m), append(c.stop, stop)
}

// leader is the manager that leads, once one does.
func (c *trio) leader() *manager {
	c.t.Helper()
	return c.managers[c.leading()]
}

func (c *trio) leading() (at int) {
	c.t.Helper()
	within(c.t, 10*time.Second, "a manager leads", func() bool {
		for i, m := range c.managers {
			if m == nil {
				continue
			}
			leader, known := m.store.Leader()
			if known && leader.Node == m.dispatcher.config.Local {
				at = i
				return true
			}
		}
		return false
	})
	return at
}

// followers are the others.
func (c *trio) followers() (followers []*manager) {
	at := c.leading()
	for i, m := range c.managers {
		if i != at && m != nil {
			followers = append(followers, m)
		}
	}
	return followers
}

// kill ends a manager with all its connections.
func (c *trio) kill(m *manager) {
	c.t.Helper()
	for i := range c.managers {
		if c.managers[i] == m {
			c.board.cut(m.name())
			c.stop[i]()
			c.managers[i] = nil
		}
	}
}

func (m *manager) name() string { return string(m.dispatcher.config.Local) }

// downs lists the nodes that ever were called down.
func (m *manager) downs() (nodes []swarm.NodeID) {
	for _, event := range m.store.View().Events(0, 0) {
		if event.Kind == "node" && event.Node != "" && event.Text == "node "+string(event.Node)+" became down" {
			nodes = append(nodes, event.Node)
		}
	}
	return nodes
}
