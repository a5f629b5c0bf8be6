package wire

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestAMachineJoinsInTheRoleOfItsToken(t *testing.T) {
	c := newTown(t)
	address, _ := c.open(t)
	for role, token := range map[string]string{swarm.RoleWorker: c.tokens.Worker, swarm.RoleManager: c.tokens.Manager} {
		key, r := request(t)
		joined, err := Join(t.Context(), address, parse(t, token), r)
		if err != nil {
			t.Fatal(err)
		}
		n, err := identity.Create(t.TempDir(), key, joined.Chain, joined.Trust)
		if err != nil {
			t.Fatal(err)
		}
		if p := n.Peer(); p.Role != role || p.Node != joined.Node || p.Cluster != joined.Cluster {
			t.Errorf("peer is %+v, joined %s %s", p, joined.Node, joined.Role)
		}
		if !slices.Equal(joined.Managers, []string{"m1:2377"}) {
			t.Errorf("managers are %v", joined.Managers)
		}
		again, err := Join(t.Context(), address, parse(t, token), r)
		if err != nil || again.Node != joined.Node {
			t.Errorf("whose answer was lost joins as %s, not %s: %v", again.Node, joined.Node, err)
		}
	}
}

func TestARotatedTokenLetsNobodyInAndIsLoggedOnce(t *testing.T) {
	c := newTown(t)
	address, log := c.open(t)
	old := c.tokens.Worker
	c.change(t, func() error { c.newTokens(t); return nil })
	for range 3 {
		_, r := request(t)
		_, err := Join(t.Context(), address, parse(t, old), r)
		if err == nil || !strings.Contains(err.Error(), ErrBadToken.Error()) {
			t.Errorf("error is %v", err)
		}
	}
	if n := strings.Count(log.String(), "connection was refused"); n != 1 {
		t.Errorf("it is logged %d times:\n%s", n, log)
	}
	if strings.Contains(log.String(), old[len(old)-31:]) {
		t.Error("the token is in the log")
	}
}

func TestATokenWorksWhileAndAfterTheAuthorityIsRotated(t *testing.T) {
	c := newTown(t)
	address, _ := c.open(t)
	old := c.authority
	c.change(t, func() (err error) {
		c.authority, err = identity.Rotate(old, "c1", time.Now())
		return err
	})
	key, r := request(t)
	joined, err := Join(t.Context(), address, parse(t, c.tokens.Worker), r) // m1 has not renewed
	if err != nil {
		t.Fatal(err)
	}
	n, err := identity.Create(t.TempDir(), key, joined.Chain, joined.Trust)
	if err != nil || n.Peer().Issuer != identity.IssuerOf(c.authority) {
		t.Fatalf("issuer is %s: %v", n.Peer().Issuer, err)
	}

	renewed, _ := c.open(t) // another process of m1, with a certificate of the new root
	_, r = request(t)
	if _, err := Join(t.Context(), renewed, parse(t, c.tokens.Worker), r); err != nil {
		t.Errorf("a token of the old root, at a manager that has renewed: %v", err)
	}

	before := c.tokens.Worker
	c.change(t, func() (err error) {
		c.authority = identity.Finish(c.authority)
		c.tokens.Worker, err = identity.Repin(before, c.authority)
		return err
	})
	if _, err := Join(t.Context(), renewed, parse(t, c.tokens.Worker), r); err != nil {
		t.Errorf("the repinned token: %v", err)
	}
	if _, err := Join(t.Context(), renewed, parse(t, before), r); !errors.Is(err, identity.ErrOtherAuthority) {
		t.Errorf("a token of the dropped root: %v", err)
	}
}

func TestRenewalGivesTheRoleOfTheStateAndNothingToTheRemoved(t *testing.T) {
	c := newTown(t)
	address, _ := c.open(t)
	n := c.node(t, "n1", swarm.RoleWorker)
	c.change(t, func() error { c.roles["n1"] = swarm.RoleManager; return nil })
	if err := Renew(t.Context(), n, address); err != nil {
		t.Fatal(err)
	}
	if p := n.Peer(); p.Role != swarm.RoleManager || p.Node != "n1" {
		t.Errorf("peer is %+v", p)
	}

	c.change(t, func() error { delete(c.roles, "n1"); return nil })
	if err := Renew(t.Context(), n, address); err == nil || !strings.Contains(err.Error(), ErrRemoved.Error()) {
		t.Errorf("error of a removed node is %v", err)
	}
}

func TestARenewedCertificateIsShownBeforeRenewalReturns(t *testing.T) {
	c := newTown(t)
	address, _ := c.open(t)
	n := c.node(t, "n1", swarm.RoleWorker)
	c.change(t, func() (err error) {
		c.authority, err = identity.Rotate(c.authority, "c1", time.Now())
		return err
	})
	if err := Renew(t.Context(), n, address); err != nil {
		t.Fatal(err)
	}
	issuer := identity.IssuerOf(c.authority)
	if last := c.asked(); last.Node != "n1" || last.Issuer != issuer {
		t.Errorf("the manager saw %+v last, want issuer %s", last, issuer)
	}

	renewed, _ := c.open(t) // the manager has renewed, too
	c.change(t, func() error { c.authority = identity.Finish(c.authority); return nil })
	if err := FollowTrust(t.Context(), n, renewed); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(n.Trust(), c.authority.Trust) {
		t.Error("the node goes on trusting the old root")
	}
}

func TestAWorkersCertificateCallsNothingOfManagers(t *testing.T) {
	c := newTown(t)
	address, log := c.open(t)
	cl := client(t, address, c.node(t, "w1", swarm.RoleWorker))
	calls := map[string]func() error{
		"Propose":   func() error { _, err := cl.Propose(t.Context(), []byte("entry")); return err },
		"ReadIndex": func() error { _, err := cl.ReadIndex(t.Context()); return err },
		"Beat":      func() error { _, err := cl.Beat(t.Context(), Beat{Manager: "m1"}); return err },
		"GetBlob":   func() error { _, err := cl.GetBlob(t.Context(), "sha256:00"); return err },
		"PutBlob":   func() error { return cl.PutBlob(t.Context(), "sha256:00", []byte("x")) },
	}
	for name, call := range calls {
		if err := call(); err == nil || !strings.Contains(err.Error(), identity.ErrRole.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := strings.Count(log.String(), identity.ErrRole.Error()); n != 1 {
		t.Errorf("it is logged %d times:\n%s", n, log)
	}
}

func TestADemotedManagerCallsNothingByTheConnectionItHas(t *testing.T) {
	c := newTown(t)
	address, log := c.open(t)
	cl := client(t, address, c.node(t, "m2", swarm.RoleManager))
	if _, err := cl.Authority(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.change(t, func() error { c.roles["m2"] = swarm.RoleWorker; return nil })
	if _, err := cl.ReadIndex(t.Context()); err == nil || !strings.Contains(err.Error(), identity.ErrRole.Error()) {
		t.Errorf("a call of managers: %v", err)
	}
	if _, err := cl.Authority(t.Context()); err != nil {
		t.Errorf("a call of nodes: %v", err)
	}
	c.change(t, func() error { delete(c.roles, "m2"); return nil })
	if _, err := cl.Authority(t.Context()); err == nil || !strings.Contains(err.Error(), ErrRemoved.Error()) {
		t.Errorf("a call of a removed node: %v", err)
	}
	if n := strings.Count(log.String(), "connection was refused"); n != 2 {
		t.Errorf("two causes make %d lines:\n%s", n, log)
	}
}

func TestAStrangerGetsNothingButTheServiceJoin(t *testing.T) {
	c := newTown(t)
	address, _ := c.open(t)
	root, err := parse(t, c.tokens.Worker).Root(c.authority.Trust)
	if err != nil {
		t.Fatal(err)
	}
	cl := clientBy(t, func(ctx context.Context) (net.Conn, error) {
		config, err := identity.Pinned(root, identity.ProtocolWire)
		if err != nil {
			return nil, err
		}
		return identity.Dial(ctx, address, config)
	})
	if trust, err := cl.Authority(t.Context()); err != nil || !bytes.Equal(trust, c.authority.Trust) {
		t.Errorf("authority: %v", err)
	}
	s, err := cl.Session(t.Context())
	if err == nil {
		_, err = s.Recv()
	}
	if err == nil || !strings.Contains(err.Error(), "unknown service") {
		t.Errorf("session: %v", err)
	}
	if _, err := cl.ReadIndex(t.Context()); err == nil || !strings.Contains(err.Error(), "unknown service") {
		t.Errorf("read index: %v", err)
	}
	_, r := request(t)
	if _, err := cl.Renew(t.Context(), r.CSR); err == nil || !strings.Contains(err.Error(), identity.ErrNoCertificate.Error()) {
		t.Errorf("renew: %v", err)
	}
	large := JoinRequest{Token: c.tokens.Worker, CSR: bytes.Repeat([]byte("x"), 2*maxFromStranger)}
	if err := cl.conn.Invoke(t.Context(), joinMethod, &large, &Joined{}); err == nil || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("a large request: %v", err)
	}
}

func TestStrangersOfOneAddressAreBounded(t *testing.T) {
	c := newTown(t)
	address, log := c.open(t)
	for range maxStrangersFrom {
		conn, err := identity.Dial(t.Context(), address, identity.Unverified(identity.ProtocolWire))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err != nil { // the server's first frame: it is in the hall
			t.Fatal(err)
		}
	}
	for range 3 {
		conn, err := identity.Dial(t.Context(), address, identity.Unverified(identity.ProtocolWire))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("one more is let in: %v", err)
		}
	}
	if n := strings.Count(log.String(), "too many connections"); n != 1 {
		t.Errorf("it is logged %d times:\n%s", n, log)
	}
	n := c.node(t, "w1", swarm.RoleWorker)
	if _, err := client(t, address, n).Authority(t.Context()); err != nil {
		t.Errorf("a node among many strangers: %v", err)
	}
}

func TestConnectionsOfOneNodeAreBounded(t *testing.T) {
	c := newTown(t)
	address, log := c.open(t)
	greedy := c.node(t, "w1", swarm.RoleWorker)
	served := func() bool {
		conn, err := greedy.Dial(t.Context(), address, identity.ProtocolWire)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err = conn.Read(make([]byte, 1)) // the server's first frame
		return err == nil
	}
	for n := range maxOfNode {
		if !served() {
			t.Fatalf("connection %d is not served", n)
		}
	}
	if served() {
		t.Error("one more is served")
	}
	if !strings.Contains(log.String(), "too many connections open") {
		t.Errorf("the log says %s", log)
	}
	if _, err := client(t, address, c.node(t, "w2", swarm.RoleWorker)).Authority(t.Context()); err != nil {
		t.Errorf("another node: %v", err)
	}
}

func TestPlainTCPIsNotServed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, Services{Agents: echo{}}) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	cl := clientBy(t, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.Addr().String())
	})
	if _, err := cl.Blob(t.Context(), "n1", "sha256:00"); err == nil {
		t.Error("a blob came without TLS")
	}
}
