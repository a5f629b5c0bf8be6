package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// fleet is a cluster whose nodes' daemons can be replaced: each is away for
// three seconds, and the leader's place is empty if it had an heir.
type fleet struct {
	t       *testing.T
	builds  map[swarm.NodeID]*fleetNode
	sight   upgradeSight
	said    []string
	mostOff int
}

type fleetNode struct {
	running, there swarm.UpgradeAnswer
	refuses        string
	late           time.Time // when it is reached first
	broken         bool      // what is there does not come up
	back           time.Time
}

func build(version string, level int) swarm.UpgradeAnswer {
	return swarm.UpgradeAnswer{Digest: swarm.Digest("sha256:" + version), Version: version, Level: level, Own: "/bin/gitswarm"}
}

// newFleet has a leader a, managers b and c, and workers, all of v1 with v2 on
// their disks.
func newFleet(t *testing.T, workers ...swarm.NodeID) *fleet {
	f := &fleet{t: t, builds: make(map[swarm.NodeID]*fleetNode), sight: upgradeSight{leader: "a"}}
	add := func(node swarm.Node) {
		node.Description.Level = 2
		f.sight.nodes = append(f.sight.nodes, node)
		f.builds[node.ID] = &fleetNode{running: build("v1", 2), there: build("v2", 3)}
	}
	for _, id := range workers {
		add(workerNode(id))
	}
	for _, id := range []swarm.NodeID{"c", "a", "b"} {
		add(managerNode(id))
		f.sight.members = append(f.sight.members, voter(id))
	}
	return f
}

func (f *fleet) node(id swarm.NodeID) *swarm.Node {
	return &f.sight.nodes[slices.IndexFunc(f.sight.nodes, func(n swarm.Node) bool { return n.ID == id })]
}

func (f *fleet) Upgrade(_ context.Context, id swarm.NodeID, request swarm.UpgradeRequest) (swarm.UpgradeAnswer, error) {
	n := f.builds[id]
	switch {
	case time.Now().Before(n.back), time.Now().Before(n.late):
		return swarm.UpgradeAnswer{}, errors.New("it is not connected to any manager")
	case n.refuses != "":
		return swarm.UpgradeAnswer{Refused: n.refuses}, nil
	}
	answer := n.there
	answer.Running = n.running.Digest
	if request.Install {
		n.running, n.back = n.there, time.Now().Add(3*time.Second)
		if n.broken {
			n.back = n.back.Add(time.Hour)
		}
	}
	return answer, nil
}

// look is the cluster as it is now.
func (f *fleet) look() upgradeSight {
	off := 0
	for id, n := range f.builds {
		if time.Now().Before(n.back) {
			off++
		}
		for i := range f.sight.members {
			if f.sight.members[i].Node == id {
				f.sight.members[i].Reachable = !time.Now().Before(n.back)
			}
		}
	}
	f.mostOff = max(f.mostOff, off)
	sight := f.sight
	sight.nodes, sight.members = slices.Clone(sight.nodes), slices.Clone(sight.members)
	return sight
}

// upgrade asks until the upgrade is done or fails, as the command does.
func (f *fleet) upgrade(request api.Upgrading) error {
	for {
		u := upgrade{
			Upgrading: request, self: f.sight.leader, agents: f, look: f.look, now: time.Now,
			emit: func(line string) error {
				f.said = append(f.said, line)
				return nil
			},
			handOver: func(context.Context) error {
				f.sight.leader = "b"
				return nil
			},
		}
		if err := u.run(f.t.Context()); !errors.Is(err, api.ErrGoOn) {
			return err
		}
	}
}

// begun are the nodes that were given the build, in order.
func (f *fleet) begun() (names string) {
	for _, line := range f.said {
		if name, _, gets := strings.Cut(line, " gets "); gets {
			names += name
		}
	}
	return names
}

// refused expects an error that says so, and that nothing was begun.
func (f *fleet) refused(request api.Upgrading, want string) {
	f.t.Helper()
	err := f.upgrade(request)
	if err == nil || !strings.Contains(err.Error(), want) || f.begun() != "" {
		f.t.Errorf("upgrade: %v after %q was begun, want an error with %q before anything", err, f.begun(), want)
	}
}

func TestAnUpgradeTakesWorkersThenManagersAndTheLeaderLastOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "y", "x")
		if err := f.upgrade(api.Upgrading{}); err != nil {
			t.Fatal(err)
		}
		if got := f.begun(); got != "xybca" {
			t.Errorf("begun in the order %s, want xybca", got)
		}
		if f.mostOff != 1 {
			t.Errorf("%d nodes were away at once, want 1", f.mostOff)
		}
		if f.sight.leader != "b" || !slices.Contains(f.said, "a hands over to another manager, which goes on") {
			t.Errorf("%s leads in the end, want b, that a handed over to:\n%s", f.sight.leader, strings.Join(f.said, "\n"))
		}
	})
}

func TestAnUpgradeThatWasCutOffGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "x", "y")
		f.builds["x"].running = f.builds["x"].there
		f.builds["b"].running = f.builds["b"].there
		if err := f.upgrade(api.Upgrading{}); err != nil || f.begun() != "yca" {
			t.Errorf("begun %s (%v), want yca: x and b have it", f.begun(), err)
		}
		f.said = nil
		if err := f.upgrade(api.Upgrading{}); err != nil || f.begun() != "" {
			t.Errorf("begun %q once more (%v), want nothing", f.begun(), err)
		}
	})
}

func TestACheckTouchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "x")
		if err := f.upgrade(api.Upgrading{Check: true}); err != nil || f.begun() != "" || f.sight.leader != "a" {
			t.Errorf("%v, begun %q, %s leads: want no error and no change", err, f.begun(), f.sight.leader)
		}
		if want := "x would get v2,b would get v2,c would get v2,a would get v2"; strings.Join(f.said, ",") != want {
			t.Errorf("it says %q, want %s", f.said, want)
		}
	})
}

func TestAnUpgradeIsRefusedAsAWholeBeforeItBegins(t *testing.T) {
	for _, c := range []struct {
		claim, want string
		spoil       func(*fleet)
	}{
		{"a node refuses", "x: not root's alone", func(f *fleet) { f.builds["x"].refuses = "not root's alone" }},
		{"a node is not reached", "x: it is not connected", func(f *fleet) { f.builds["x"].late = time.Now().Add(time.Hour) }},
		{"a level is skipped", "at most one level ahead", func(f *fleet) { f.node("b").Description.Level = 1 }},
		{"of a node that is down, too", "at most one level ahead", func(f *fleet) {
			f.node("x").Description.Level, f.node("x").State = 1, swarm.NodeDown
		}},
		{"a build goes back", "never behind", func(f *fleet) { f.node("c").Description.Level = 4 }},
		{"nodes have different files", "put the same one on both", func(f *fleet) { f.builds["x"].there = build("v3", 3) }},
		{"a node was just lost", "x went down 0s ago", func(f *fleet) { f.node("x").State, f.node("x").Since = swarm.NodeDown, time.Now() }},
	} {
		t.Run(c.claim, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, "x", "y")
				c.spoil(f)
				f.refused(api.Upgrading{}, c.want)
			})
		})
	}
}

func TestNodesOfOtherPlatformsHaveOtherFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "x")
		f.node("x").Description.Arch = "arm64"
		f.builds["x"].there.Digest = "sha256:arm"
		if err := f.upgrade(api.Upgrading{}); err != nil {
			t.Error(err)
		}
	})
}

func TestANodeThatIsLongDownIsLeftOutAndSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "x", "y")
		f.node("x").State, f.node("x").Since = swarm.NodeDown, time.Now().Add(-time.Hour)
		if err := f.upgrade(api.Upgrading{}); err != nil || f.begun() != "ybca" || f.said[0] != "x is down: it is left out" {
			t.Errorf("%v, begun %s, said %q: want y, b, c and a, and that x is left out", err, f.begun(), f.said)
		}
	})
}

func TestADaemonThatDoesNotComeBackEndsTheUpgradeWithTheWayBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "x", "y")
		f.builds["x"].broken = true
		began := time.Now()
		err := f.upgrade(api.Upgrading{})
		if err == nil || !strings.Contains(err.Error(), "x is not back as v2 within 2m0s: it is not connected") ||
			!strings.Contains(err.Error(), "mv /bin/gitswarm.previous /bin/gitswarm && systemctl restart gitswarm") {
			t.Errorf("upgrade: %v", err)
		}
		if took := time.Since(began); f.begun() != "x" || took < upgradePatience {
			t.Errorf("begun %s, given up after %s: want x alone, and two minutes of patience", f.begun(), took)
		}
	})
}

func TestAnUpgradeWaitsForANodeThatIsOnItsWayToAnotherManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "x")
		f.builds["x"].late = time.Now().Add(5 * time.Second)
		if err := f.upgrade(api.Upgrading{}); err != nil || f.begun() != "xbca" {
			t.Errorf("%v, begun %s", err, f.begun())
		}
	})
}

func TestAnUpgradeWaitsForTheManagerOfANodeToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		u := upgrade{self: "a", agents: f, look: f.look, now: time.Now}
		f.builds["b"].running = f.builds["b"].there
		c := upgradable{node: *f.node("b"), answer: f.builds["b"].there}
		if err := u.missing(t.Context(), c); err != nil {
			t.Error(err)
		}
		deaf := func() upgradeSight {
			sight := f.look()
			sight.members[slices.IndexFunc(sight.members, func(m store.Member) bool { return m.Node == "b" })].Reachable = false
			return sight
		}
		u.look = deaf
		if err := u.missing(t.Context(), c); fmt.Sprint(err) != "its manager does not answer" {
			t.Errorf("missing: %v", err)
		}
	})
}

func TestSaysWhenAManagerIsNeededForTheQuorum(t *testing.T) {
	three, two := newFleet(t), newFleet(t)
	two.sight.members = two.sight.members[:2] // c and a
	for _, c := range []struct {
		claim string
		fleet *fleet
		node  swarm.NodeID
		says  bool
	}{
		{"two of three are enough", three, "c", false},
		{"one of two is not", two, "c", true},
	} {
		if text := lull(c.fleet.look(), *c.fleet.node(c.node)); (text != "") != c.says {
			t.Errorf("%s: %q", c.claim, text)
		}
	}
}
