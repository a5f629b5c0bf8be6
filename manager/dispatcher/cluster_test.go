package dispatcher

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// beat is the heartbeat of tests: a silent node is down after some three.
const beat = 200 * time.Millisecond

// calm is that of tests in which no node falls silent, on however busy a
// machine.
const calm = 10 * beat

// manager is a dispatcher over a real store, real blobs and a unix socket.
type manager struct {
	t          *testing.T
	store      *store.Store
	blobs      *blobs.Blobs
	dispatcher *Dispatcher
	dial       func(context.Context) (net.Conn, error) // as an agent does
	socket     string
	heartbeat  time.Duration
	strict     atomic.Bool // nodes prove who they are
	spec       swarm.Digest
}

func newManager(t *testing.T) *manager {
	t.Helper()
	return newManagerThatHears(t, calm)
}

// newManagerThatHears has a heartbeat of its own.
func newManagerThatHears(t *testing.T, heartbeat time.Duration) *manager {
	t.Helper()
	t.Parallel() // it waits most of the time
	dir := t.TempDir()
	keyring, err := seal.Create(filepath.Join(dir, "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	content, err := blobs.Open(filepath.Join(dir, "blobs"), keyring)
	if err != nil {
		t.Fatal(err)
	}
	state, err := store.Open(store.Config{Dir: filepath.Join(dir, "store"), Node: "m1", Keyring: keyring})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close() })

	m := &manager{t: t, heartbeat: heartbeat, store: state, blobs: content, socket: filepath.Join(dir, "agents.sock")}
	m.dial = func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", m.socket)
	}
	m.serve()
	m.begin()
	return m
}

// begin makes what every test needs.
func (m *manager) begin() {
	m.t.Helper()
	m.spec = m.put(swarm.TaskSpec{Image: "hello:1", Hostname: "web", Networks: []swarm.Attachment{{Network: "default", Aliases: []string{"www"}}}})
	m.propose(store.Command{AcceptStacks: &store.AcceptStacks{Stacks: []store.AcceptStack{{Name: "shop", Head: swarm.Rendered{Revision: "main@sha1:1", Content: "sha256:1"}}}}})
}

func (m *manager) serve() {
	listener, err := net.Listen("unix", m.socket)
	if err != nil {
		m.t.Fatal(err)
	}
	m.dispatcher = New(Config{
		Local: "m1", Store: m.store, Blobs: m.blobs, Heartbeat: m.heartbeat, Log: slog.New(slog.DiscardHandler),
		Plain: func(node swarm.NodeID) bool { return node == "m1" || !m.strict.Load() },
	})
	ctx, cancel := context.WithCancel(m.t.Context())
	served := make(chan error, 2)
	go func() { served <- m.dispatcher.Run(ctx) }()
	go func() { served <- wire.Serve(ctx, listener, wire.Services{Agents: m.dispatcher}) }()
	m.t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-served, <-served); err != nil {
			m.t.Error(err)
		}
	})
}

func (m *manager) put(spec swarm.TaskSpec) swarm.Digest {
	m.t.Helper()
	data, err := codec.Encode(spec)
	if err != nil {
		m.t.Fatal(err)
	}
	digest, err := m.blobs.Put(m.t.Context(), data)
	if err != nil {
		m.t.Fatal(err)
	}
	return digest
}

func (m *manager) propose(c store.Command) uint64 {
	m.t.Helper()
	c.At = time.Now()
	index, err := m.store.Propose(m.t.Context(), c)
	if err != nil {
		m.t.Fatal(err)
	}
	return index
}

func (m *manager) decide(d store.Decide) uint64 {
	m.t.Helper()
	record, _ := m.store.View().Stack("shop")
	d.Decision.Stack, d.Decision.Version = "shop", record.Version
	return m.propose(store.Command{Decide: &d})
}

// task is one of shop/web, on a node and the stack's network.
func (m *manager) task(id swarm.TaskID, node swarm.NodeID) swarm.Task {
	return swarm.Task{
		ID: id, Service: "shop/web", Slot: 1, Node: node, Spec: m.spec, Desired: swarm.DesiredRun,
		Addresses: []swarm.Address{{Network: "shop/default", IP: "10.0.0.5"}},
	}
}

// shop makes the stack's network and service and these tasks of it.
func (m *manager) shop(tasks ...swarm.Task) {
	m.t.Helper()
	m.decide(store.Decide{
		Decision:  swarm.Decision{Create: tasks},
		Networks:  []swarm.AllocatedNetwork{{ID: "shop/default", Subnet: "10.0.0.0/24"}},
		Endpoints: []swarm.Endpoint{{Service: "shop/web", Mode: swarm.VIP, VIPs: []swarm.Address{{Network: "shop/default", IP: "10.0.0.2"}}}},
	})
}

func (m *manager) desire(task swarm.TaskID, desired swarm.Desired) {
	m.t.Helper()
	m.decide(store.Decide{Decision: swarm.Decision{Desire: []swarm.Desire{{Task: task, Desired: desired}}}})
}

func (m *manager) status(task swarm.TaskID) swarm.TaskStatus {
	found, _ := m.store.View().Task(task)
	return found.Status
}

// within polls until the claim holds.
func within(t *testing.T, limit time.Duration, claim string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %s it is still not so that %s", limit, claim)
		}
	}
}

// puppet is an agent's end of the real wire, moved by hand.
type puppet struct {
	t       *testing.T
	client  *wire.Client
	stream  wire.Stream[wire.FromAgent, wire.FromManager]
	welcome wire.Welcome
	mute    context.CancelFunc // ends its signs of life

	sending sync.Mutex
	mu      sync.Mutex
	held    wire.Held
	deltas  []wire.Delta
	opens   []wire.Open
	renews  int
	err     error
}

// join opens a session as node, holding what held says.
func (m *manager) join(node swarm.NodeID, held wire.Held) *puppet {
	m.t.Helper()
	p, err := m.tryJoin(node, held)
	if err != nil {
		m.t.Fatal(err)
	}
	return p
}

func (m *manager) tryJoin(node swarm.NodeID, held wire.Held) (*puppet, error) {
	client, err := wire.Dial(m.dial)
	if err != nil {
		return nil, err
	}
	m.t.Cleanup(func() { _ = client.Close() })
	stream, err := client.Session(m.t.Context())
	if err != nil {
		return nil, err
	}
	p := &puppet{t: m.t, client: client, stream: stream, held: held}
	p.send(wire.FromAgent{Hello: &wire.Hello{Node: node, Index: held.Index, Hash: held.Hash, Description: swarm.NodeDescription{Hostname: string(node)}}})
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	p.welcome = *first.Welcome

	ctx, mute := context.WithCancel(m.t.Context())
	p.mute = mute
	go p.live(ctx)
	go p.hear()
	return p, nil
}

func (p *puppet) live(ctx context.Context) {
	tick := time.NewTicker(beat / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.send(wire.FromAgent{})
		}
	}
}

func (p *puppet) hear() {
	for {
		m, err := p.stream.Recv()
		p.mu.Lock()
		if err != nil {
			p.err = err
			p.mu.Unlock()
			return
		}
		if m.Delta != nil {
			p.deltas = append(p.deltas, *m.Delta)
			if p.held, err = wire.Apply(p.held, *m.Delta); err != nil {
				p.t.Errorf("delta: %v", err)
			}
		}
		if m.Open != nil {
			p.opens = append(p.opens, *m.Open)
		}
		if m.Renew {
			p.renews++
		}
		p.mu.Unlock()
	}
}

func (p *puppet) send(m wire.FromAgent) {
	p.sending.Lock()
	defer p.sending.Unlock()
	_ = p.stream.Send(&m) // the receiver tells of a broken stream
}

func (p *puppet) report(task swarm.TaskID, state swarm.TaskState, message string) {
	p.send(wire.FromAgent{Reports: []wire.Report{{Task: task, Status: swarm.TaskStatus{State: state, Message: message}}}})
}

// applies says that the network is as the held assignment wants it.
func (p *puppet) applies() { p.send(wire.FromAgent{Applied: p.now().Index}) }

func (p *puppet) now() wire.Held {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// got returns the deltas that came.
func (p *puppet) got() []wire.Delta {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deltas
}

func (p *puppet) ended() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// sees waits until the puppet's assignment shows as text.
func (p *puppet) sees(want string) {
	p.t.Helper()
	var got string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if got = show(p.now().Assignment); got == want {
			return
		}
	}
	p.t.Fatalf("the node sees:\n%s\nwant:\n%s", got, want)
}

// show prints an assignment, one part a line.
func show(a swarm.Assignment) string {
	var lines []string
	for _, t := range a.Tasks {
		lines = append(lines, "task "+string(t.ID)+" "+t.Desired.String())
	}
	for _, n := range a.Networks {
		lines = append(lines, "network "+string(n.ID))
	}
	for _, s := range a.Services {
		line := "service " + string(s.ID)
		for _, b := range s.Backends {
			line += " " + string(b.Task)
		}
		for _, alias := range s.Aliases {
			line += " " + alias.Name + "@" + string(alias.Network)
		}
		lines = append(lines, line)
	}
	for _, v := range a.Volumes {
		lines = append(lines, "volume "+string(v))
	}
	return strings.Join(lines, "\n")
}
