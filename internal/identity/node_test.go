package identity

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestAnIdentityIsAbsentBeforeJoiningAndPrivateAfter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := Open(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("error is %v", err)
	}
	a := newAuthority(t, "c1")
	key, chain := issued(t, a, worker("w1"), 0, time.Now())
	if _, err := Create(dir, key, chain, a.Trust); err != nil {
		t.Fatal(err)
	}
	n, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := worker("w1")
	want.Issuer = IssuerOf(a)
	if n.Peer() != want {
		t.Errorf("peer is %+v, want %+v", n.Peer(), want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("files are %v: %v", entries, err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %s: %v", entry.Name(), info.Mode(), err)
		}
	}
}

func TestAManagersKeyLiesSealedOnTheDisk(t *testing.T) {
	dir, a := t.TempDir(), newAuthority(t, "c1")
	vault, err := seal.Create(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	key, chain := issued(t, a, manager("m1"), 0, time.Now())
	n, err := Create(dir, key, chain, a.Trust)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Seal(vault); err != nil {
		t.Fatal(err)
	}
	newKey, newChain := issued(t, a, manager("m1"), 0, time.Now())
	if err := n.Save(newKey, newChain, a.Trust); err != nil {
		t.Fatal(err)
	}

	private, err := parseKey(newKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{nodeFile, trustFile} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("BEGIN PRIVATE KEY")) || bytes.Contains(data, private.D.Bytes()) { //nolint:staticcheck // the number itself
			t.Errorf("%s holds the key", name)
		}
	}
	if _, err := Open(dir); !errors.Is(err, ErrSealed) {
		t.Errorf("without its vault: %v", err)
	}
	if again, err := OpenSealed(dir, vault); err != nil || again.Peer() != n.Peer() {
		t.Errorf("with its vault: %v", err)
	}
	if err := n.Seal(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err != nil {
		t.Errorf("demoted: %v", err)
	}
}

func TestARefusedIdentityChangesNothing(t *testing.T) {
	a := newAuthority(t, "c1")
	n := newNode(t, a, worker("w1"))
	key, chain := issued(t, a, worker("w1"), 0, time.Now())
	otherKey, otherChain := issued(t, newAuthority(t, "c1"), worker("w1"), 0, time.Now())
	for claim, papers := range map[string][3][]byte{
		"a certificate of another key":  {otherKey, chain, a.Trust},
		"a certificate nobody trusts":   {otherKey, otherChain, a.Trust},
		"no certificate":                {key, nil, a.Trust},
		"no trust":                      {key, chain, nil},
		"a trust that is no root":       {key, chain, chain},
		"a key that is none":            {[]byte("key"), chain, a.Trust},
		"the authority in place of it":  {a.Key, a.Certificate, a.Trust},
		"something among certificates":  {key, append(bytes.Clone(chain), key...), a.Trust},
		"more certificates than it may": {key, bytes.Repeat(chain, 200), a.Trust},
	} {
		before := n.Expires()
		if err := n.Save(papers[0], papers[1], papers[2]); err == nil {
			t.Errorf("%s is taken", claim)
		}
		if again, err := Open(n.dir); err != nil || !again.Expires().Equal(before) || !n.Expires().Equal(before) {
			t.Errorf("%s changed what was there: %v", claim, err)
		}
	}
}

func TestACrashBetweenTheFilesLeavesAnIdentityThatWorks(t *testing.T) {
	a := newAuthority(t, "c1")
	next, err := Rotate(a, "c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for claim, step := range map[string][2]swarm.Authority{"a rotation begins": {a, next}, "a rotation ends": {next, Finish(next)}} {
		n := newNode(t, step[0], worker("w1"))
		if err := os.WriteFile(filepath.Join(n.dir, trustFile), step[1].Trust, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(n.dir); err != nil {
			t.Errorf("%s, and the trust alone is written: %v", claim, err)
		}
	}
}

func TestRenewalKeepsOpenConnectionsAndServesNewOnes(t *testing.T) {
	a := newAuthority(t, "c1")
	m1, m2 := newNode(t, a, manager("m1")), newNode(t, a, manager("m2"))
	address, _, _ := openPort(t, m1)
	open, err := m2.Dial(t.Context(), address, ProtocolRaft)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := talk(open); err != nil {
		t.Fatal(err)
	}

	next, err := Rotate(a, "c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{m1, m2} {
		key, chain := issued(t, next, n.Peer(), 0, time.Now())
		if err := n.Save(key, chain, next.Trust); err != nil {
			t.Fatal(err)
		}
	}
	if err := talk(open); err != nil {
		t.Errorf("the open connection: %v", err)
	}
	renewed, err := m2.Dial(t.Context(), address, ProtocolRaft)
	if err != nil {
		t.Fatal(err)
	}
	defer renewed.Close()
	if err := talk(renewed); err != nil {
		t.Error(err)
	}
	if p, err := PeerOf(renewed.(*tls.Conn).ConnectionState()); err != nil || p.Issuer != IssuerOf(next) {
		t.Errorf("the new connection is with %+v: %v", p, err)
	}
}

func TestRenewalIsDueBetweenHalfAndFourFifthsOfACertificatesLife(t *testing.T) {
	a, now := newAuthority(t, "c1"), time.Now().Truncate(time.Second)
	for _, life := range []time.Duration{MinLife, NodeLife} {
		key, chain := issued(t, a, worker("w1"), life, now)
		n, err := Create(t.TempDir(), key, chain, a.Trust)
		if err != nil {
			t.Fatal(err)
		}
		for chance, part := range map[float64]time.Duration{0: life / 2, 1: life / 10 * 8} {
			if at := n.RenewAt(now, chance).Sub(now); at < part-time.Second || at > part+time.Second {
				t.Errorf("of %s, by chance %v, it is due after %s", life, chance, at)
			}
		}
		if late := now.Add(2 * life); !n.RenewAt(late, 0).Equal(late) {
			t.Error("a late renewal is due in the past")
		}
	}
}

func TestTheRequestDecidesNothingButTheKey(t *testing.T) {
	a, now := newAuthority(t, "c1"), time.Now()
	_, csr, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	for claim, csr := range map[string][]byte{
		"nothing":         nil,
		"a certificate":   a.Certificate,
		"a broken one":    bytes.Replace(csr, []byte("M"), []byte("N"), 1),
		"a very long one": append(csr, bytes.Repeat([]byte("x"), MaxPEM)...),
	} {
		if _, err := Issue(a, csr, worker("w1"), 0, now); err == nil {
			t.Errorf("%s is signed", claim)
		}
	}
	for _, p := range []Peer{
		{Role: swarm.RoleWorker, Cluster: "c1"},
		{Node: "w1", Cluster: "c1"},
		{Node: "w1", Role: "operator", Cluster: "c1"},
		{Node: "w1", Role: swarm.RoleWorker},
		{Node: swarm.NodeID(strings.Repeat("x", maxName+1)), Role: swarm.RoleWorker, Cluster: "c1"},
	} {
		if _, err := Issue(a, csr, p, 0, now); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestACertificateEndsNoLaterThanItsRoot(t *testing.T) {
	now := time.Now()
	old, err := NewAuthority("c1", now.Add(-rootLife+24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	_, chain := issued(t, old, worker("w1"), 0, now)
	leaf, err := parseCertificate(chain)
	if err != nil {
		t.Fatal(err)
	}
	if left := leaf.NotAfter.Sub(now); left > 25*time.Hour {
		t.Errorf("it has %s left, its root a day", left)
	}
}
