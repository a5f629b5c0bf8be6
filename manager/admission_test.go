package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// gate is a cluster of one manager that lets machines in.
type gate struct {
	*testing.T
	*Manager
	self    *identity.Node // the manager's own
	address string
}

func newGate(t *testing.T) *gate {
	keyring, err := seal.Create(filepath.Join(t.TempDir(), "keys"))
	must(t, err)
	state, err := store.Open(store.Config{Dir: filepath.Join(t.TempDir(), "raft"), Node: "m1", Keyring: keyring})
	must(t, err)
	t.Cleanup(func() { state.Close() })
	for !<-state.Leading() {
	}
	g := &gate{T: t, Manager: &Manager{store: state, log: slog.New(slog.DiscardHandler)}}
	cluster, err := Found("", swarm.ClusterSettings{}, nil, time.Now())
	must(t, err)
	must(t, g.propose(t.Context(), store.Command{PutCluster: &cluster}))
	must(t, g.propose(t.Context(), store.Command{PutNode: &swarm.Node{ID: "m1", Role: swarm.RoleManager}}))

	key, csr, err := identity.NewRequest()
	must(t, err)
	chain, err := identity.Issue(cluster.Authority, csr, identity.Peer{Node: "m1", Role: swarm.RoleManager, Cluster: cluster.ID}, 0, time.Now())
	must(t, err)
	g.self, err = identity.Create(t.TempDir(), key, chain, cluster.Authority.Trust)
	must(t, err)
	g.open()
	return g
}

func (g *gate) open() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(g.T, err)
	g.address = listener.Addr().String()
	admission := Admission{Store: g.store, Log: g.log}
	port := identity.Listen(listener, func() *tls.Config { return g.self.Server(identity.ProtocolWire) }, g.log)
	port.Admit = admission.Admit
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = port.Serve(ctx) })
	parts.Go(func() { _ = wire.Serve(ctx, port.For(identity.ProtocolWire), wire.Services{Join: admission}) })
	g.Cleanup(func() {
		cancel()
		parts.Wait()
	})
}

func (g *gate) cluster() swarm.Cluster {
	cluster, _ := g.store.View().Cluster()
	return cluster
}

// token is what an operator would copy now.
func (g *gate) token(rotate bool) identity.Token {
	g.Helper()
	text, err := g.JoinToken(g.Context(), swarm.RoleWorker, rotate, "ana")
	must(g.T, err)
	token, err := identity.ParseToken(text)
	must(g.T, err)
	return token
}

func (g *gate) join(token identity.Token) (*identity.Node, error) {
	g.Helper()
	key, csr, err := identity.NewRequest()
	must(g.T, err)
	joined, err := wire.Join(g.Context(), g.address, token, wire.JoinRequest{CSR: csr})
	if err != nil {
		return nil, err
	}
	return identity.Create(g.TempDir(), key, joined.Chain, joined.Trust)
}

func (g *gate) joined() *identity.Node {
	g.Helper()
	node, err := g.join(g.token(false))
	must(g.T, err)
	return node
}

// rotating reports whether an old root is still trusted, once the leader had
// its chance to drop it.
func (g *gate) rotating() bool {
	g.Helper()
	must(g.T, g.finishRotation(g.Context()))
	return identity.Rotating(g.cluster().Authority)
}

func TestTheOldRootGoesWhenEveryNodeHasShownANewCertificate(t *testing.T) {
	g := newGate(t)
	w1, w2 := g.joined(), g.joined()
	before := g.token(false)
	must(t, g.RotateCA(t.Context(), "ana"))
	must(t, g.RotateCA(t.Context(), "ana"))
	w3 := g.joined() // by a manager that has not renewed, with the token of before
	for _, node := range []*identity.Node{g.self, w1} {
		must(t, wire.Renew(t.Context(), node, g.address))
	}
	if !g.rotating() {
		t.Fatal("a root went that a certificate in use is of")
	}

	client, err := wire.Dial(func(ctx context.Context) (net.Conn, error) { return w2.Dial(ctx, g.address, identity.ProtocolWire) })
	must(t, err)
	defer client.Close()
	_, csr, err := identity.NewRequest()
	must(t, err)
	_, err = client.Renew(t.Context(), csr) // the answer is lost
	must(t, err)
	if !g.rotating() {
		t.Fatal("a root went that a node still needs whose new certificate was lost")
	}
	must(t, wire.Renew(t.Context(), w2, g.address))
	if g.rotating() {
		t.Fatal("the old root stays when nobody needs it")
	}

	for _, node := range []*identity.Node{g.self, w1, w2, w3} {
		must(t, wire.FollowTrust(t.Context(), node, g.address))
	}
	if _, err := g.join(before); !errors.Is(err, identity.ErrOtherAuthority) {
		t.Errorf("a token of the old root: %v", err)
	}
	g.joined()
}

func TestARotatedTokenStopsNewJoinsOnly(t *testing.T) {
	g := newGate(t)
	old, w1 := g.token(false), g.joined()
	fresh := g.token(true)
	if _, err := g.join(old); err == nil || !strings.Contains(err.Error(), wire.ErrBadToken.Error()) {
		t.Errorf("the old token: %v", err)
	}
	if _, err := g.join(fresh); err != nil {
		t.Errorf("the new token: %v", err)
	}
	must(t, wire.Renew(t.Context(), w1, g.address))
}

func TestARemovedNodeIsShutOut(t *testing.T) {
	g := newGate(t)
	w1, w2 := g.joined(), g.joined()
	must(t, g.RemoveNode(t.Context(), w1.Peer().Node, true, "ana"))
	if err := wire.Renew(t.Context(), w1, g.address); err == nil {
		t.Error("a removed node renews its certificate")
	}
	must(t, wire.Renew(t.Context(), w2, g.address))
}

func TestAManagerThatWasDemotedKeepsItsCertificateForNothing(t *testing.T) {
	g := newGate(t)
	cluster, admission := g.cluster(), Admission{Store: g.store, Log: g.log}
	m2 := identity.Peer{Node: "m2", Role: swarm.RoleManager, Cluster: cluster.ID}
	must(t, g.propose(t.Context(), store.Command{PutNode: &swarm.Node{ID: "m2", Role: swarm.RoleManager}}))
	if err := admission.Admit(m2, identity.ProtocolRaft); err != nil {
		t.Errorf("a manager: %v", err)
	}
	must(t, g.propose(t.Context(), store.Command{By: "ana", PutNode: &swarm.Node{ID: "m2", Role: swarm.RoleWorker, Availability: swarm.NodeActive}}))
	for _, protocol := range []string{identity.ProtocolRaft, identity.ProtocolAPI} {
		if err := admission.Admit(m2, protocol); !errors.Is(err, identity.ErrRole) {
			t.Errorf("%s of a demoted one: %v", protocol, err)
		}
	}
	if err := admission.Admit(m2, identity.ProtocolWire); err != nil {
		t.Errorf("its agent: %v", err)
	}
}

// The only one that keeps the log is the clearest case of one that is needed.
func TestAManagerStaysOneUntilTheOthersHaveLetGoOfIt(t *testing.T) {
	g := newGate(t)
	admission := Admission{Store: g.store, Log: g.log}
	must(t, g.propose(t.Context(), store.Command{PutNode: &swarm.Node{ID: "m2", Role: swarm.RoleManager}}))
	must(t, g.propose(t.Context(), store.Command{By: "ana", PutNode: &swarm.Node{ID: "m1", Role: swarm.RoleWorker}}))
	for _, protocol := range []string{identity.ProtocolRaft, identity.ProtocolAPI, identity.ProtocolWire} {
		if err := admission.Admit(g.self.Peer(), protocol); err != nil {
			t.Errorf("%s: it could not hand over: %v", protocol, err)
		}
	}
	before := g.self.Peer()
	if err := wire.Renew(t.Context(), g.self, g.address); err == nil || !strings.Contains(err.Error(), errKept.Error()) {
		t.Errorf("it was made a worker that keeps the log: %v", err)
	}
	if g.self.Peer() != before {
		t.Errorf("it is %+v", g.self.Peer())
	}
}
