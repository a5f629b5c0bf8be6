package dispatcher

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/peers"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// secured is a manager behind the port that it has in life.
type secured struct {
	*manager
	cluster swarm.Cluster
	address string
}

func newSecured(t *testing.T) *secured {
	t.Helper()
	m := newManager(t)
	m.strict.Store(true)
	authority, err := identity.NewAuthority("c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := &secured{manager: m, cluster: swarm.Cluster{ID: "c1", Authority: authority}}
	m.propose(store.Command{PutCluster: &s.cluster})
	for _, node := range []swarm.Node{{ID: "w1", Role: swarm.RoleWorker}, {ID: "w2", Role: swarm.RoleWorker}, {ID: "m2", Role: swarm.RoleManager}} {
		m.propose(store.Command{PutNode: &node})
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	own := s.issue(t, "m1", swarm.RoleManager)
	port := identity.Listen(listener, func() *tls.Config { return own.Server(identity.ProtocolWire) }, slog.New(slog.DiscardHandler))
	answers := peers.Answers{Sessions: m.dispatcher, Store: m.store, Content: m.blobs}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 2)
	wires := port.For(identity.ProtocolWire)
	go func() { served <- port.Serve(ctx) }()
	go func() { served <- wire.Serve(ctx, wires, wire.Services{Agents: m.dispatcher, Managers: answers}) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-served, <-served); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *secured) issue(t testing.TB, node swarm.NodeID, role string) *identity.Node {
	t.Helper()
	key, csr, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := identity.Issue(s.cluster.Authority, csr, identity.Peer{Node: node, Role: role, Cluster: "c1"}, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	n, err := identity.Create(t.TempDir(), key, chain, s.cluster.Authority.Trust)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// as makes agents come with a certificate.
func (s *secured) as(n *identity.Node) *secured {
	s.dial = func(ctx context.Context) (net.Conn, error) { return n.Dial(ctx, s.address, identity.ProtocolWire) }
	return s
}

func TestANodeSpeaksForItselfAlone(t *testing.T) {
	s := newSecured(t)
	plain := s.dial
	w1 := s.issue(t, "w1", swarm.RoleWorker)
	s.as(w1).join("w1", wire.Held{}).mute()
	if _, err := s.tryJoin("w2", wire.Held{}); !contains(err, "its certificate is another's") {
		t.Errorf("as w2, w1 was answered %v", err)
	}

	s.dial = plain // the socket of this machine
	s.join("m1", wire.Held{}).mute()
	if _, err := s.tryJoin("w2", wire.Held{}); !contains(err, "did not prove who it is") {
		t.Errorf("as w2, this machine was answered %v", err)
	}
	s.dial = func(ctx context.Context) (net.Conn, error) {
		return identity.Dial(ctx, s.address, identity.Unverified(identity.ProtocolWire))
	}
	if _, err := s.tryJoin("w2", wire.Held{}); err == nil {
		t.Error("whoever shows no certificate was let in")
	}
}

func TestOneNodesSessionGivesAnotherNoBlobs(t *testing.T) {
	s := newSecured(t)
	s.shop(s.task(web1, "w1"))
	one := s.as(s.issue(t, "w1", swarm.RoleWorker)).join("w1", wire.Held{})
	two := s.as(s.issue(t, "w2", swarm.RoleWorker)).join("w2", wire.Held{})
	if _, err := one.client.Blob(t.Context(), one.welcome.Session, s.spec); err != nil {
		t.Error(err)
	}
	if _, err := two.client.Blob(t.Context(), one.welcome.Session, s.spec); !contains(err, "its certificate is another's") {
		t.Errorf("with the session of w1, w2 was answered %v", err)
	}
}

func TestANodeThatWasRemovedIsNotLetIn(t *testing.T) {
	s := newSecured(t)
	if _, err := s.as(s.issue(t, "gone", swarm.RoleWorker)).tryJoin("gone", wire.Held{}); !contains(err, "removed from the cluster") {
		t.Errorf("it was answered %v", err)
	}
	if _, known := s.store.View().Node("gone"); known {
		t.Error("the node is known now")
	}
}

func TestANodeIsAskedToRenewWhenItsRoleOrTheAuthorityChanges(t *testing.T) {
	s := newSecured(t)
	one := s.as(s.issue(t, "w1", swarm.RoleWorker)).join("w1", wire.Held{})
	two := s.as(s.issue(t, "w2", swarm.RoleWorker)).join("w2", wire.Held{})
	renews := func(p *puppet) int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.renews
	}
	s.propose(store.Command{By: "ana", PutNode: &swarm.Node{ID: "w1", Role: swarm.RoleManager, Availability: swarm.NodeActive}})
	within(t, 5*time.Second, "w1 is asked to renew", func() bool { return renews(one) == 1 })

	rotated, err := identity.Rotate(s.cluster.Authority, "c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cluster, _ := s.store.View().Cluster()
	cluster.Authority = rotated
	s.propose(store.Command{PutCluster: &cluster})
	within(t, 5*time.Second, "w2 is asked to renew", func() bool { return renews(two) == 1 })
	if renews(one) != 1 {
		t.Errorf("w1 was asked %d times, though it has not answered yet", renews(one))
	}

	two.send(wire.FromAgent{Papers: &wire.Papers{Role: swarm.RoleWorker, Issuer: identity.IssuerOf(rotated)}})
	cluster, _ = s.store.View().Cluster()
	if cluster.Authority, err = identity.Rotate(rotated, "c1", time.Now()); err != nil {
		t.Fatal(err)
	}
	s.propose(store.Command{PutCluster: &cluster})
	within(t, 5*time.Second, "w2 is asked once more", func() bool { return renews(two) == 2 })
}

func TestABeatIsTakenFromTheManagerThatItNames(t *testing.T) {
	s := newSecured(t)
	beat := func(n *identity.Node, manager swarm.NodeID) error {
		client, err := wire.Dial(func(ctx context.Context) (net.Conn, error) { return n.Dial(ctx, s.address, identity.ProtocolWire) })
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		_, err = client.Beat(t.Context(), wire.Beat{Manager: manager, Full: true})
		return err
	}
	m2 := s.issue(t, "m2", swarm.RoleManager)
	if err := beat(m2, "m2"); err != nil {
		t.Error(err)
	}
	if err := beat(m2, "m3"); !contains(err, "its certificate is another's") {
		t.Errorf("as m3, m2 was answered %v", err)
	}
	if err := beat(s.issue(t, "w1", swarm.RoleWorker), "m2"); !contains(err, "not a manager's") {
		t.Errorf("a worker was answered %v", err)
	}
}
