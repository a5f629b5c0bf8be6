package dispatcher

import (
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

// rollCall plays a leader with the default heartbeat. It looks every 100 ms,
// and so often m2 tells which of its agents, n1 and its own, it has heard; they
// speak every 200 ms. At a time that silent[who] names, who says nothing.
type rollCall struct {
	roll   *roll
	at     time.Duration
	silent map[swarm.NodeID]func(time.Duration) bool
}

func never(time.Duration) bool { return false }

func newRollCall() *rollCall {
	nodes := []swarm.Node{{ID: "n1", State: swarm.NodeReady}, {ID: "m2", State: swarm.NodeReady}}
	c := &rollCall{roll: newRoll(defaultHeartbeat, nodes, time.Unix(0, 0)), silent: map[swarm.NodeID]func(time.Duration) bool{"n1": never, "m2": never}}
	c.roll.take(wire.Beat{Manager: "m2", Full: true, Sessions: []swarm.NodeID{"m2", "n1"}}, time.Unix(0, 0))
	c.run(10 * time.Second)
	return c
}

// run lets time pass and returns when each node was called down.
func (c *rollCall) run(span time.Duration) map[swarm.NodeID]time.Duration {
	down := make(map[swarm.NodeID]time.Duration)
	for end := c.at + span; c.at < end; {
		c.at += 100 * time.Millisecond
		now := time.Unix(0, 0).Add(c.at)
		if !c.silent["m2"](c.at) {
			beat := wire.Beat{Manager: "m2", Full: c.roll.managers["m2"] == nil}
			for _, node := range []swarm.NodeID{"m2", "n1"} {
				if c.at%(200*time.Millisecond) == 0 && !c.silent[node](c.at) {
					beat.Heard = append(beat.Heard, node)
				}
			}
			c.roll.take(beat, now)
		}
		c.roll.lost(now)
		for node, state := range c.roll.misjudged(now) {
			if state == swarm.NodeDown {
				down[node] = c.at
			}
			c.roll.see(swarm.Node{ID: node, State: state}, now)
		}
	}
	return down
}

func from(begin time.Duration) func(time.Duration) bool {
	return func(at time.Duration) bool { return at > begin }
}

func between(begin, end time.Duration) func(time.Duration) bool {
	return func(at time.Duration) bool { return at > begin && at < end }
}

func TestAMachineThatIsGoneIsDownWithinThreeSeconds(t *testing.T) {
	for phase := range 8 { // of the heartbeat at which it goes
		c := newRollCall()
		gone := c.at + time.Duration(phase)*25*time.Millisecond
		c.silent["n1"] = from(gone)
		down := c.run(10 * time.Second)
		if took := down["n1"] - gone; down["n1"] == 0 || took > 3*time.Second {
			t.Errorf("it was down after %s", took)
		}
		if down["m2"] != 0 {
			t.Error("its manager's node is down too")
		}
	}
}

func TestADaemonThatStandsStillForTwoSecondsIsNotDown(t *testing.T) {
	for phase := range 8 {
		c := newRollCall()
		begin := c.at + time.Duration(phase)*25*time.Millisecond
		c.silent["n1"] = between(begin, begin+2*time.Second)
		if down := c.run(10 * time.Second); len(down) > 0 {
			t.Errorf("a worker's pause: down are %v", down)
		}

		c = newRollCall()
		c.silent["m2"] = between(begin, begin+2*time.Second) // neither manager nor agent says anything
		if down := c.run(10 * time.Second); len(down) > 0 {
			t.Errorf("a manager's pause: down are %v", down)
		}
	}
}

func TestAManagersLossGivesItsAgentsTimeButNotItsOwnNode(t *testing.T) {
	c := newRollCall()
	gone := c.at
	c.silent["m2"] = from(gone)
	down := c.run(10 * time.Second)
	if took := down["m2"] - gone; down["m2"] == 0 || took > 3*time.Second {
		t.Errorf("its own node was down after %s", took)
	}
	if took := down["n1"] - gone; took < 3*time.Second || took > 5*time.Second {
		t.Errorf("an agent that found no other manager was down after %s", took)
	}
}

func TestANodeThatComesBackIsReady(t *testing.T) {
	c := newRollCall()
	c.silent["n1"] = between(c.at, c.at+5*time.Second)
	if down := c.run(10 * time.Second); down["n1"] == 0 {
		t.Fatal("it was never down")
	}
	if c.roll.nodes["n1"].down {
		t.Error("it is still down")
	}
}

func TestANodeThatBeginsAnewIsNotDownForAWhile(t *testing.T) {
	c := newRollCall()
	gone := c.at
	c.silent["n1"] = from(gone)
	c.roll.excuse("n1", time.Unix(0, 0).Add(gone+10*time.Second))
	c.roll.excuse("n1", time.Unix(0, 0).Add(gone+time.Second)) // a shorter one takes nothing away
	down := c.run(20 * time.Second)
	if took := down["n1"] - gone; took < 10*time.Second || took > 13*time.Second {
		t.Errorf("a node that was excused for 10s and did not come back was down after %s", took)
	}
}

// Another manager lets a node in again and calls it ready at once; that it
// speaks to this node reaches the leader a little later.
func TestANodeThatIsCalledReadyIsNotCalledDownBeforeItsManagerSpeaksOfIt(t *testing.T) {
	c := newRollCall()
	c.silent["n1"] = from(c.at)
	if down := c.run(10 * time.Second); down["n1"] == 0 {
		t.Fatal("it was never down")
	}
	c.roll.see(swarm.Node{ID: "n1", State: swarm.NodeReady}, time.Unix(0, 0).Add(c.at))
	if down := c.run(time.Second); down["n1"] != 0 {
		t.Error("it flaps")
	}
	if down := c.run(3 * time.Second); down["n1"] == 0 {
		t.Error("it is believed for ever, though it never spoke")
	}
}

// A judge that stood still forgives the time, but not twice: who spoke since is
// no later to be missed for it.
func TestAPauseOfTheJudgeIsNotAddedToWhatWasHeardSince(t *testing.T) {
	c := newRollCall()
	const pause = time.Minute
	c.at += pause
	now := time.Unix(0, 0).Add(c.at)
	c.roll.hear("n1", "m2", now)
	c.roll.forgive(pause, now)
	if down := c.run(time.Second); len(down) > 0 {
		t.Errorf("down are %v, for the judge's pause", down)
	}
	gone := c.at
	c.silent["n1"] = from(gone)
	if took := c.run(10 * time.Second)["n1"] - gone; took <= 0 || took > 3*time.Second {
		t.Errorf("it was down after %s", took)
	}
}

func TestALateWordOfANodeThatWasRemovedLeavesNobodyBehind(t *testing.T) {
	c := newRollCall()
	now := time.Unix(0, 0).Add(c.at)
	delete(c.roll.nodes, "n1")
	c.roll.take(wire.Beat{Manager: "m2", Sessions: []swarm.NodeID{"n1"}, Heard: []swarm.NodeID{"n1"}}, now)
	c.roll.hear("n1", "m1", now)
	if len(c.roll.nodes) != 1 {
		t.Errorf("there are %d nodes, not m2 alone", len(c.roll.nodes))
	}
}

func TestOfTwoManagersThatClaimANodeTheOneItSpeaksToHasIt(t *testing.T) {
	c := newRollCall()
	now := time.Unix(0, 0).Add(c.at)
	c.roll.take(wire.Beat{Manager: "m3", Full: true, Sessions: []swarm.NodeID{"n1"}, Heard: []swarm.NodeID{"n1"}}, now)
	if at := c.roll.nodes["n1"].at; at != "m3" {
		t.Fatalf("the node is at %q", at)
	}
	c.roll.take(wire.Beat{Manager: "m2", Ended: []swarm.NodeID{"n1"}}, now) // its old session, found dead at last
	if at := c.roll.nodes["n1"].at; at != "m3" {
		t.Errorf("the end of an old session took the node from m3 to %q", at)
	}
}

func TestANodeHasReachedWhatItsManagerSaysUnlessItIsBehind(t *testing.T) {
	c := newRollCall()
	now := time.Unix(0, 0).Add(c.at)
	c.roll.take(wire.Beat{Manager: "m2", Index: 9, Behind: []wire.Reach{{Node: "n1", Index: 4}}}, now)
	if n1, m2 := c.roll.reached("n1"), c.roll.reached("m2"); n1 != 4 || m2 != 9 {
		t.Errorf("n1 has reached %d, m2 %d", n1, m2)
	}
	c.roll.take(wire.Beat{Manager: "m2", Index: 9, Ended: []swarm.NodeID{"n1"}}, now)
	if n1 := c.roll.reached("n1"); n1 != 0 {
		t.Errorf("without a session n1 has reached %d", n1)
	}
}

func TestNodesHaveTimeToFindAClusterThatBeginsAgain(t *testing.T) {
	start := time.Unix(0, 0)
	nodes := []swarm.Node{{ID: "n1", State: swarm.NodeReady}, {ID: "n2", State: swarm.NodeReady}}
	r := newRoll(defaultHeartbeat, nodes, start)
	r.await(start.Add(returning))

	found := start.Add(8 * time.Second)
	r.hear("n1", "m1", found)
	if wrong := r.misjudged(start.Add(10 * time.Second)); wrong["n2"] != "" {
		t.Errorf("n2 is %s after 10 s, want it waited for", wrong["n2"])
	}
	gone := found.Add(patience(defaultHeartbeat) + time.Millisecond)
	if wrong := r.misjudged(gone); wrong["n1"] != swarm.NodeDown {
		t.Errorf("n1 was heard and fell silent, and is not called down but %q", wrong["n1"])
	}
	if wrong := r.misjudged(start.Add(returning + time.Second)); wrong["n2"] != swarm.NodeDown {
		t.Errorf("n2 never came, and is not called down but %q", wrong["n2"])
	}
}
