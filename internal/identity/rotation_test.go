package identity

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

func rotated(t testing.TB, a swarm.Authority) swarm.Authority {
	t.Helper()
	next, err := Rotate(a, "c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func renew(t testing.TB, n *Node, a swarm.Authority) {
	t.Helper()
	key, chain := issued(t, a, n.Peer(), 0, time.Now())
	if err := n.Save(key, chain, a.Trust); err != nil {
		t.Fatal(err)
	}
}

// TestNodesOfEveryAgeTalkWhileTheAuthorityIsRotatedTwice has managers that
// slept through one rotation or two, and one that followed both.
func TestNodesOfEveryAgeTalkWhileTheAuthorityIsRotatedTwice(t *testing.T) {
	first := newAuthority(t, "c1")
	slept := newNode(t, first, manager("slept"))
	half := newNode(t, first, manager("half"))
	awake := newNode(t, first, manager("awake"))
	nodes := []*Node{slept, half, awake}
	addresses := map[*Node]string{}
	for _, n := range nodes {
		addresses[n], _, _ = openPort(t, n)
	}
	talkAll := func(when string) {
		t.Helper()
		for _, from := range nodes {
			for _, to := range nodes {
				if err := reach(t, addresses[to], from.Client(ProtocolRaft, swarm.RoleManager)); err != nil {
					t.Errorf("%s: %s to %s: %v", when, from.Peer().Node, to.Peer().Node, err)
				}
			}
		}
	}

	second := rotated(t, first)
	renew(t, half, second)
	renew(t, awake, second)
	talkAll("after the first rotation")
	third := rotated(t, second)
	renew(t, awake, third)
	talkAll("after the second rotation")
	if !Rotating(third) || Rotating(first) {
		t.Error("a rotation is not told from none")
	}

	lost := newNode(t, first, manager("lost"))
	for _, n := range nodes {
		renew(t, n, third)
	}
	last := Finish(third)
	if Rotating(last) {
		t.Error("the rotation does not end")
	}
	renew(t, slept, last)
	talkAll("while the end of the rotation spreads")
	renew(t, half, last)
	renew(t, awake, last)
	talkAll("after the end")
	for _, n := range nodes {
		if n.Peer().Issuer != IssuerOf(last) {
			t.Errorf("%s has a certificate of another root", n.Peer().Node)
		}
		if err := reach(t, addresses[n], lost.Client(ProtocolRaft, swarm.RoleManager)); err == nil {
			t.Errorf("%s serves a node that never renewed", n.Peer().Node)
		}
	}
}

func TestTheDroppedRootsKeyIsWorthNothing(t *testing.T) {
	stolen := newAuthority(t, "c1")
	next := Finish(rotated(t, stolen))
	address, _, _ := openPort(t, newNode(t, next, manager("m1")))
	key, chain := issued(t, stolen, manager("m9"), 0, time.Now())
	if err := reach(t, address, shown(t, key, chain, ProtocolRaft)); err == nil {
		t.Error("a certificate of the dropped root is served")
	}
}

func TestANodeThatRenewedDropsTheOldRootWithoutRenewingAgain(t *testing.T) {
	stolen := newAuthority(t, "c1")
	next := rotated(t, stolen)
	n := newNode(t, stolen, worker("w1"))
	if err := n.SaveTrust(Finish(next).Trust); err == nil {
		t.Error("it gave up the root of its own certificate")
	}
	renew(t, n, next)
	expires := n.Expires()
	if err := n.SaveTrust(Finish(next).Trust); err != nil {
		t.Fatal(err)
	}
	if again, err := Open(n.dir); err != nil || !again.Expires().Equal(expires) {
		t.Errorf("its certificate changed: %v", err)
	}

	address, _, _ := openPort(t, newNode(t, stolen, manager("m9"))) // whoever has the stolen key
	if err := reach(t, address, n.Client(ProtocolWire, swarm.RoleManager)); err == nil {
		t.Error("a manager of the dropped root is believed")
	}
}

func TestRotationsThatNeverEndAreBounded(t *testing.T) {
	a := newAuthority(t, "c1")
	for range maxRoots - 1 {
		a = rotated(t, a)
	}
	_, err := Rotate(a, "c1", time.Now())
	if err == nil || !strings.Contains(err.Error(), "wait until every node has renewed") {
		t.Errorf("error is %v", err)
	}
	key, chain := issued(t, a, manager("m1"), 0, time.Now())
	if _, err := Create(t.TempDir(), key, chain, a.Trust); err != nil {
		t.Errorf("the longest chain there can be: %v", err)
	}
	rotated(t, Finish(a))
}

func TestTheCrossSignatureLeadsFromTheNewRootToTheOld(t *testing.T) {
	old := newAuthority(t, "c1")
	next := rotated(t, old)
	cross, err := parseCertificate(next.Cross)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := poolOf(old.Trust)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cross.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
}
