package store

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// managers are several stores in one process, each with its own disk and keys.
type managers struct {
	t          *testing.T
	root       string
	servers    []raft.Server
	keyrings   []*seal.Keyring
	stores     []*Store
	transports []*raft.InmemTransport
}

func newManagers(t *testing.T, root string, n int) *managers {
	m := &managers{
		t: t, root: root, keyrings: make([]*seal.Keyring, n),
		stores: make([]*Store, n), transports: make([]*raft.InmemTransport, n),
	}
	for i := range n {
		name := fmt.Sprint("m", i)
		m.servers = append(m.servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(name)})
		keyring, err := seal.Create(filepath.Join(root, name+".keys"))
		if err != nil {
			t.Fatal(err)
		}
		m.keyrings[i] = keyring
	}
	for i := range n {
		m.start(i)
	}
	return m
}

func (m *managers) start(i int) {
	m.t.Helper()
	_, transport := raft.NewInmemTransport(m.servers[i].Address)
	s, err := Open(Config{
		Dir: filepath.Join(m.root, string(m.servers[i].ID)), Node: swarm.NodeID(m.servers[i].ID), Keyring: m.keyrings[i],
		SnapshotThreshold: 20, SnapshotInterval: 5 * time.Second, TrailingLogs: 5,
		transport: transport, servers: m.servers,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.stores[i], m.transports[i] = s, transport
	for j, other := range m.transports {
		if j != i && m.stores[j] != nil {
			transport.Connect(m.servers[j].Address, other)
			other.Connect(m.servers[i].Address, transport)
		}
	}
}

func (m *managers) stop(i int) {
	m.t.Helper()
	for j := range m.transports {
		if j != i && m.stores[j] != nil {
			m.transports[j].Disconnect(m.servers[i].Address)
		}
	}
	m.transports[i].DisconnectAll()
	shut(m.t, m.stores[i])
	m.stores[i] = nil
}

// propose finds the leader and gives it the command; it returns who that was.
func (m *managers) propose(c Command) int {
	m.t.Helper()
	for range 1000 {
		for i, s := range m.stores {
			if s == nil {
				continue
			}
			switch _, err := s.Propose(m.t.Context(), c); {
			case err == nil:
				return i
			case !errors.Is(err, ErrNotLeader):
				m.t.Fatal(err)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.t.Fatal("no leader")
	return 0
}

// TestThreeManagersAgreeWhileLeadersComeAndGo: nothing forbids more than one
// voter. A manager that comes back is brought up from the log or a snapshot,
// with keys of its own.
func TestThreeManagersAgreeWhileLeadersComeAndGo(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m := newManagers(t, root, 3)
		m.propose(putSource("main"))
		wanted := 0
		for round := range 6 {
			leader := m.propose(accept(fmt.Sprintf("stack-%d", round), "v1"))
			m.stop(leader)
			for i := range 10 + 15*round { // beyond what the log keeps, later on
				m.propose(accept(fmt.Sprintf("stack-%d-%d", round, i), "v1"))
			}
			wanted += 11 + 15*round
			time.Sleep(30 * time.Second)
			m.start(leader)
			time.Sleep(30 * time.Second)
		}

		want := state(t, m.stores[0])
		for i, s := range m.stores {
			if got := state(t, s); !bytes.Equal(got, want) || len(s.View().Stacks()) != wanted {
				t.Errorf("m%d has %d of %d stacks", i, len(s.View().Stacks()), wanted)
			}
			select {
			case err := <-s.Failed():
				t.Error(err)
			default:
			}
		}
		for i := range m.stores {
			m.stop(i)
		}
	})
}
