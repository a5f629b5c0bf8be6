package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	walfs "github.com/hashicorp/raft-wal/fs"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// fabric joins managers in one process by pipes, and cuts them apart.
type fabric struct {
	mu        sync.Mutex
	listeners map[string]*pipes
	stores    map[string]*Store
	cut       map[[2]string]bool
	still     map[string]bool // these answer no question
	conns     map[[2]string][]net.Conn
}

func newFabric() *fabric {
	return &fabric{
		listeners: map[string]*pipes{}, stores: map[string]*Store{},
		cut: map[[2]string]bool{}, still: map[string]bool{}, conns: map[[2]string][]net.Conn{},
	}
}

// link is the pair of addresses in their order.
func link(a, b string) [2]string {
	if a > b {
		a, b = b, a
	}
	return [2]string{a, b}
}

// sever cuts one manager off from the others, or heals that.
func (f *fabric) sever(address string, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for other := range f.listeners {
		l := link(address, other)
		f.cut[l] = on
		if on {
			for _, conn := range f.conns[l] {
				conn.Close()
			}
			delete(f.conns, l)
		}
	}
}

// store is the one that runs at an address, or nil.
func (f *fabric) store(address string) *Store {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stores[address]
}

// freeze makes a manager stand still: raft loses it, and whoever has asked it
// something waits for its answer.
func (f *fabric) freeze(address string) {
	f.mu.Lock()
	f.still[address] = true
	f.mu.Unlock()
	f.sever(address, true)
}

// ask returns the store at an address once it answers.
func (f *fabric) ask(ctx context.Context, from, to string) (*Store, error) {
	f.mu.Lock()
	still := f.still[to]
	f.mu.Unlock()
	if still {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return f.reach(from, to)
}

// reach returns the store at an address if one may talk to it now.
func (f *fabric) reach(from, to string) (*Store, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stores[to]
	if s == nil || f.cut[link(from, to)] {
		return nil, fmt.Errorf("%s does not reach %s", from, to)
	}
	return s, nil
}

// peer is one manager's end of the fabric.
type peer struct {
	fabric *fabric
	own    string
}

// Listener implements Peers.
func (p *peer) Listener() net.Listener {
	l := &pipes{address: p.own, conns: make(chan net.Conn), closed: make(chan struct{})}
	p.fabric.mu.Lock()
	defer p.fabric.mu.Unlock()
	p.fabric.listeners[p.own] = l
	return l
}

// Dial implements Peers.
func (p *peer) Dial(ctx context.Context, address string) (net.Conn, error) {
	f := p.fabric
	f.mu.Lock()
	l := f.listeners[address]
	if l == nil || f.cut[link(p.own, address)] {
		f.mu.Unlock()
		return nil, fmt.Errorf("%s does not reach %s", p.own, address)
	}
	near, far := net.Pipe()
	f.conns[link(p.own, address)] = append(f.conns[link(p.own, address)], near, far)
	f.mu.Unlock()

	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Forward implements Peers.
func (p *peer) Forward(ctx context.Context, address string, entry []byte) (uint64, error) {
	leader, err := p.fabric.ask(ctx, p.own, address)
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err != nil:
		return 0, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	index, err := leader.Accept(ctx, entry)
	if _, lost := p.fabric.reach(p.own, address); lost != nil {
		return 0, lost // the answer, whatever it was, is not heard
	}
	return index, err
}

// ReadIndex implements Peers.
func (p *peer) ReadIndex(ctx context.Context, address string) (uint64, error) {
	leader, err := p.fabric.ask(ctx, p.own, address)
	if err != nil {
		return 0, err
	}
	index, err := leader.ReadIndex(ctx)
	if _, lost := p.fabric.reach(p.own, address); lost != nil {
		return 0, lost
	}
	return index, err
}

// pipes is a listener in memory.
type pipes struct {
	address string
	conns   chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

// Accept implements net.Listener.
func (l *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (l *pipes) Addr() net.Addr { return streamAddr(l.address) }

// Close implements net.Listener.
func (l *pipes) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// managers are several stores in one process, each with its own disk and keys.
// The first begins the cluster, the others join it.
type managers struct {
	t        *testing.T
	root     string
	fabric   *fabric
	keyrings []*seal.Keyring
	disks    []*failingDisk
	stores   []*Store // nil while stopped
}

func nodeName(i int) swarm.NodeID { return swarm.NodeID(fmt.Sprint("m", i)) }

// form makes a cluster of that many.
func (m *managers) form(n int) {
	m.t.Helper()
	for i := len(m.stores); i < n; i++ {
		keyring, err := seal.Create(filepath.Join(m.root, fmt.Sprint("m", i, ".keys")))
		if err != nil {
			m.t.Fatal(err)
		}
		m.keyrings = append(m.keyrings, keyring)
		m.disks = append(m.disks, &failingDisk{VFS: walfs.New()})
		m.stores = append(m.stores, nil)
		m.start(i)
		if i > 0 {
			m.add(i)
		}
	}
}

func (m *managers) config(i int) Config {
	name := string(nodeName(i))
	return Config{
		Dir: filepath.Join(m.root, name), Node: nodeName(i), Keyring: m.keyrings[i],
		Address: name, Peers: &peer{m.fabric, name}, Join: i > 0,
		SnapshotThreshold: 20, SnapshotInterval: 5 * time.Second, TrailingLogs: 5,
		vfs: m.disks[i],
	}
}

func (m *managers) start(i int) {
	m.t.Helper()
	s, err := Open(m.config(i))
	if err != nil {
		m.t.Fatal(err)
	}
	m.fabric.mu.Lock()
	m.fabric.stores[string(nodeName(i))] = s
	m.fabric.mu.Unlock()
	m.stores[i] = s
}

// add makes manager i a member, at whoever leads.
func (m *managers) add(i int) {
	m.t.Helper()
	err := m.stores[m.leader()].Add(m.t.Context(), Member{Node: nodeName(i), Address: string(nodeName(i))})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *managers) stop(i int) {
	m.t.Helper()
	m.fabric.mu.Lock()
	delete(m.fabric.stores, string(nodeName(i)))
	m.fabric.mu.Unlock()
	shut(m.t, m.stores[i])
	m.stores[i] = nil
}

func (m *managers) stopAll() {
	for i, s := range m.stores {
		if s != nil {
			m.stop(i)
		}
	}
}

// leader waits until one of the managers can say that it leads.
func (m *managers) leader() int {
	m.t.Helper()
	for range 1000 {
		for i, s := range m.stores {
			if s == nil {
				continue
			}
			if _, err := s.ReadIndex(m.t.Context()); err == nil {
				return i
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	m.t.Fatal("no leader")
	return 0
}

// follower is any manager that runs and does not lead.
func (m *managers) follower() int {
	m.t.Helper()
	leader := m.leader()
	for i, s := range m.stores {
		if s != nil && i != leader {
			return i
		}
	}
	m.t.Fatal("no follower")
	return 0
}

// propose gives the command to manager i. One whose outcome is not known is
// proposed again: that is as good for what these stories propose.
func (m *managers) propose(i int, c Command) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	_, err := m.stores[i].Propose(ctx, c)
	for errors.Is(err, ErrUncertain) && ctx.Err() == nil {
		time.Sleep(leaderAsk)
		_, err = m.stores[i].Propose(ctx, c)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// wipe takes the folder of a manager that is stopped.
func (m *managers) wipe(i int) {
	m.t.Helper()
	if err := os.RemoveAll(filepath.Join(m.root, string(nodeName(i)))); err != nil {
		m.t.Fatal(err)
	}
}

// sever cuts manager i off from the others, or heals that.
func (m *managers) sever(i int, on bool) { m.fabric.sever(string(nodeName(i)), on) }
