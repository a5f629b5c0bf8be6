package e2e

import (
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

func TestTheTasksOfADeadWorkerRunElsewhereAndItComesBackWithoutGhosts(t *testing.T) {
	c := calm(t)
	c.deploy(10, "", "")
	dead := c.Hosts[4]
	rest := c.others(dead)
	lost, kept := running(t, dead), running(t, rest...)
	if len(lost) == 0 {
		t.Fatalf("%s runs nothing, want a share of 10 replicas", dead.Name)
	}

	must(t, dead.Crash())
	began := time.Now()
	c.expectExactly(10, "all replicas run elsewhere", rest...)
	t.Logf("%d tasks ran elsewhere %s after their node died", len(lost), time.Since(began).Round(time.Millisecond))
	if n := survivors(kept, running(t, rest...)); n != len(kept) {
		t.Errorf("%d of %d containers on other nodes were left alone, want all", n, len(kept))
	}

	must(t, dead.Boot())
	must(t, dead.StartDaemon(t.Context()))
	c.until(dead.Name+" is back", func() bool { return c.node(c.leader(), dead).State == "ready" })
	c.staysExactly(10)
}

func TestANodeThatWasCutOffEndsWithExactlyWhatItShouldHave(t *testing.T) {
	c := calm(t)
	c.deploy(10, "", "")
	cut := c.Hosts[3]
	rest := c.others(cut)
	had := running(t, cut)

	must(t, cut.Cut())
	c.expectExactly(10, "all replicas run on the others", rest...)
	pause(t, 5*time.Second)
	if n := survivors(had, running(t, cut)); n != len(had) || n == 0 {
		t.Errorf("%d of %d containers run on the node that is cut off, want all", n, len(had))
	}
	must(t, cut.Heal())
	began := time.Now()
	c.expectExactly(10, "no slot runs twice after its return", c.Hosts...)
	t.Logf("nothing ran twice %s after its return", time.Since(began).Round(time.Millisecond))
	c.until(cut.Name+" is back", func() bool { return c.node(c.leader(), cut).State == "ready" })
	c.staysExactly(10)
}

// staysExactly expects that nothing is started or stopped any more.
func (c *cluster) staysExactly(n int) {
	c.t.Helper()
	c.expectExactly(n, "every replica runs once", c.Hosts...)
	before := running(c.t, c.Hosts...)
	pause(c.t, 3*time.Second)
	if after := running(c.t, c.Hosts...); survivors(before, after) != n || len(after) != n {
		c.t.Errorf("a cluster at rest changed its containers from %v to %v", before, after)
	}
}

func TestAManagerThatOnlyHearsOrOnlySpeaksBringsNobodyDown(t *testing.T) {
	c := calm(t)
	c.deploy(10, "", "")
	leader := c.leader()
	half := c.others(leader)[0]
	before := running(t, c.others(half)...)

	must(t, leader.Deafen(half)) // the leader no longer hears it, it hears the leader
	c.until("writes are taken", func() bool {
		_, exit := c.others(leader, half)[0].Run(t.Context(), "scale", "shop/web=11")
		return exit == 0
	})
	pause(t, 5*time.Second)
	if n := survivors(before, running(t, c.others(half)...)); n != len(before) {
		t.Errorf("%d of %d containers of nodes with whole links live on, want all", n, len(before))
	}
	must(t, leader.Heal())
	c.until("all are ready", c.allReady)
	c.staysExactly(11)
}

func TestDrainMovesATaskWithoutAMissingReplicaOrAFailedRequest(t *testing.T) {
	c := calm(t)
	const replicas = 3 // each has its node's port: one of the two other nodes takes the replacement
	c.deploy(replicas, "    ports: [{target: 8080, published: \"8080\", mode: host}]\n    healthcheck: {test: [\"CMD\", \"/app\", \"health\"], interval: 1s, start_period: 10s, start_interval: 200ms}\n", "")
	var drained *lab.Host
	for _, h := range c.Hosts {
		if len(running(t, h)) > 0 {
			drained = h
		}
	}
	visits := c.Visit(t.Context(), 8080)
	fewest := replicas
	c.on(c.Hosts[0], 0, "node", "drain", drained.Name)
	c.until("the drained node runs nothing", func() bool {
		fewest = min(fewest, len(running(t, c.Hosts...)))
		return len(running(t, drained)) == 0
	})
	c.expectExactly(replicas, "every replica runs once", c.others(drained)...)
	if answered, failed, first := visits.Leave(); failed > 0 || answered == 0 {
		t.Errorf("%d requests were answered, %d failed; the first: %v", answered, failed, first)
	}
	if fewest < replicas {
		t.Errorf("%d replicas ran at the fewest, want %d always", fewest, replicas)
	}
	c.on(c.Hosts[1], 0, "node", "activate", drained.Name)
}
