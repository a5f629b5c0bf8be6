package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/swarm"
)

// town is a cluster's state as joining needs it: it answers the service Join,
// and agents by echo.
type town struct {
	echo
	ManagerServer // none of its calls is answered: only who may call is looked at

	mu        sync.Mutex
	authority swarm.Authority
	tokens    swarm.JoinTokens
	roles     map[swarm.NodeID]string // of nodes that are there
	saw       identity.Peer           // who asked for the authority last
}

func newTown(t testing.TB) *town {
	t.Helper()
	a, err := identity.NewAuthority("c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	town := &town{authority: a, roles: map[swarm.NodeID]string{}}
	town.newTokens(t)
	return town
}

func (c *town) newTokens(t testing.TB) {
	t.Helper()
	var err [2]error
	c.tokens.Worker, err[0] = identity.NewToken(c.authority)
	c.tokens.Manager, err[1] = identity.NewToken(c.authority)
	if err := errors.Join(err[:]...); err != nil {
		t.Fatal(err)
	}
}

// change is what an operator does while the manager serves.
func (c *town) change(t testing.TB, do func() error) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := do(); err != nil {
		t.Fatal(err)
	}
}

func (c *town) asked() identity.Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.saw
}

func (c *town) Authority(_ context.Context, caller identity.Peer) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.saw = caller
	return c.authority.Trust, nil
}

func (c *town) Join(_ context.Context, r JoinRequest) (Joined, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	role := identity.RoleOf(c.tokens, r.Token)
	if role == "" {
		return Joined{}, ErrBadToken
	}
	node, err := identity.NodeOf(r.CSR)
	if err != nil {
		return Joined{}, err
	}
	c.roles[node] = role
	chain, err := identity.Issue(c.authority, r.CSR, identity.Peer{Node: node, Role: role, Cluster: "c1"}, 0, time.Now())
	return Joined{Node: node, Cluster: "c1", Role: role, Chain: chain, Trust: c.authority.Trust, Managers: []string{"m1:2377"}}, err
}

func (c *town) Renew(_ context.Context, peer identity.Peer, csr []byte) (Renewed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	role, ok := c.roles[peer.Node]
	if !ok {
		return Renewed{}, ErrRemoved
	}
	peer.Role = role
	chain, err := identity.Issue(c.authority, csr, peer, 0, time.Now())
	return Renewed{Chain: chain, Trust: c.authority.Trust}, err
}

func (c *town) admit(caller identity.Peer, protocol string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch role := c.roles[caller.Node]; {
	case role == "":
		return ErrRemoved
	case protocol == identity.ProtocolRaft && role != swarm.RoleManager:
		return identity.ErrRole
	}
	return nil
}

// node makes an identity of the town without joining.
func (c *town) node(t testing.TB, name swarm.NodeID, role string) *identity.Node {
	t.Helper()
	key, csr, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := identity.Issue(c.authority, csr, identity.Peer{Node: name, Role: role, Cluster: "c1"}, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	n, err := identity.Create(t.TempDir(), key, chain, c.authority.Trust)
	if err != nil {
		t.Fatal(err)
	}
	c.change(t, func() error { c.roles[name] = role; return nil })
	return n
}

// journal is a log that tests read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// open serves the town's manager m1 on loopback.
func (c *town) open(t testing.TB) (address string, log *journal) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m1 := c.node(t, "m1", swarm.RoleManager)
	log = &journal{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	port := identity.Listen(l, func() *tls.Config { return m1.Server(identity.ProtocolWire) }, logger)
	services := Services{Agents: c, Managers: c, Join: c, Refusals: identity.NewRefusals(logger), Admit: c.admit}

	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	for _, serve := range []func() error{
		func() error { return port.Serve(ctx) },
		func() error { return Serve(ctx, port.For(identity.ProtocolWire), services) },
	} {
		parts.Go(func() {
			if err := serve(); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		parts.Wait()
	})
	return l.Addr().String(), log
}

// client dials as the node.
func client(t testing.TB, address string, n *identity.Node) *Client {
	t.Helper()
	return clientBy(t, func(ctx context.Context) (net.Conn, error) { return n.Dial(ctx, address, identity.ProtocolWire) })
}

func clientBy(t testing.TB, dial func(context.Context) (net.Conn, error)) *Client {
	t.Helper()
	c, err := Dial(dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func parse(t testing.TB, text string) identity.Token {
	t.Helper()
	token, err := identity.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func request(t testing.TB) (key []byte, r JoinRequest) {
	t.Helper()
	key, csr, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return key, JoinRequest{CSR: csr, Description: swarm.NodeDescription{Hostname: "w1"}}
}
