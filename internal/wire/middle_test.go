package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/gitswarm/gitswarm/internal/identity"
)

// middle is a machine between a joiner and the manager. It ends TLS with
// papers of its own, passes on what it hears, and writes all of it down.
type middle struct {
	papers  *tls.Config
	manager string
	heard   journal
	conns   sync.WaitGroup
}

// stand begins to listen.
func (m *middle) stand(t *testing.T) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", m.papers)
	if err != nil {
		t.Fatal(err)
	}
	m.conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			m.conns.Go(func() { m.pass(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		m.conns.Wait()
	})
	return l.Addr().String()
}

func (m *middle) pass(joiner net.Conn) {
	defer joiner.Close()
	manager, err := identity.Dial(context.Background(), m.manager, identity.Unverified(identity.ProtocolWire))
	if err != nil {
		return
	}
	defer manager.Close()
	m.conns.Go(func() {
		defer manager.Close()
		_, _ = io.Copy(manager, io.TeeReader(joiner, &m.heard))
	})
	_, _ = io.Copy(joiner, manager)
}

func TestNobodyInTheMiddleHearsTheToken(t *testing.T) {
	real, rogue := newTown(t), newTown(t)
	realAddress, _ := real.open(t)
	rogueAddress, _ := rogue.open(t)
	both := newTown(t) // says that it trusts the real root and its own
	both.authority.Trust = bytes.Join([][]byte{real.authority.Trust, both.authority.Trust}, nil)
	bothAddress, _ := both.open(t)

	for claim, manager := range map[string]string{
		"an impostor with a cluster of its own":         rogueAddress,
		"an impostor that says it trusts the real root": bothAddress,
		"a relay to the real manager":                   realAddress,
	} {
		t.Run(claim, func(t *testing.T) {
			m := &middle{papers: rogue.node(t, "m9", "manager").Server(identity.ProtocolWire), manager: manager}
			address := m.stand(t)
			token := parse(t, real.tokens.Manager)
			_, r := request(t)
			if joined, err := Join(t.Context(), address, token, r); err == nil {
				t.Errorf("the machine joined as %s", joined.Node)
			}
			heard := m.heard.String()
			if !strings.Contains(heard, "PRI * HTTP/2.0") {
				t.Errorf("the test is blind: it heard %q", heard)
			}
			secret := real.tokens.Manager[len(real.tokens.Manager)-31:]
			if strings.Contains(heard, secret) || strings.Contains(heard, "CERTIFICATE REQUEST") {
				t.Error("it heard the token or the request")
			}
		})
	}

	// The same ear hears a token that is sent to it, so silence above is proof.
	m := &middle{papers: rogue.node(t, "m8", "manager").Server(identity.ProtocolWire), manager: rogueAddress}
	_, r := request(t)
	if _, err := Join(t.Context(), m.stand(t), parse(t, rogue.tokens.Worker), r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(m.heard.String(), rogue.tokens.Worker) {
		t.Error("the ear is deaf")
	}
}
