package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/swarm"
)

// drawReplicas draws a stack of services of good images, and how they behave.
func drawReplicas(t *rapid.T, c *cluster) *swarm.Stack {
	stack := &swarm.Stack{Name: "shop"}
	for _, name := range serviceNames[:rapid.IntRange(1, 2).Draw(t, "services")] {
		service := newService(name)
		service.Task.Image = name + ":1"
		service.Replicas = rapid.IntRange(1, 6).Draw(t, "replicas")
		service.Update.Parallelism = rapid.IntRange(0, 3).Draw(t, "parallelism")
		service.Update.Order = rapid.SampledFrom([]swarm.Order{swarm.StopFirst, swarm.StartFirst}).Draw(t, "order")
		service.Rebalance = rapid.Bool().Draw(t, "rebalance")
		if rapid.Bool().Draw(t, "constrained") {
			service.Constraints = []string{"node.labels.zone!=far"}
		}
		service.Spec = swarm.Digest(fmt.Sprintf("%+v", service.Task))
		stack.Services = append(stack.Services, service)
		c.acts = append(c.acts, act{image: service.Task.Image, lives: []life{drawLife(t, true)}})
	}
	return stack
}

// befall does one of the happenings to a node.
func befall(t *rapid.T, c *cluster, happenings ...string) {
	ids := slices.Sorted(maps.Keys(c.nodes))
	node := c.nodes[rapid.SampledFrom(ids).Draw(t, "node")]
	what := rapid.SampledFrom(happenings).Draw(t, "what")
	c.say("> node %s %s", node.ID, what)
	switch what {
	case "drained", "paused", "active":
		node.Availability = swarm.Availability(what)
	case "down", "ready", "unknown":
		node.State = swarm.NodeState(what)
	case "far":
		node.Labels = map[string]string{"zone": "far"}
	case "near":
		node.Labels = nil
	case "tight", "roomy":
		c.tight[node.ID] = what == "tight"
	case "gone":
		if len(ids) > 2 {
			c.remove(node.ID)
		}
	case "join":
		c.join(swarm.NodeID(fmt.Sprintf("j%d", c.steps)))
	case "rebalance":
		c.record.Rebalance = true
	}
	c.record.Version++
}

// TestNoOperatorsWordOnNodesTakesAReplicaAway drains, pauses, labels and fills
// nodes at random: no service of several replicas ever lacks one, nor moves
// more of them at a time than it replaces at a time.
func TestNoOperatorsWordOnNodesTakesAReplicaAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster("n1", "n2", "n3", "n4")
		stack := drawReplicas(t, c)
		c.accept("v1", stack)
		c.run(time.Hour, c.over)
		rules := watchRules()
		c.observe = func(c *cluster) {
			rules(c)
			for _, service := range stack.Services {
				watchMoves(c, service)
			}
		}
		for range rapid.IntRange(1, 10).Draw(t, "happenings") {
			befall(t, c, "drained", "drained", "paused", "active", "far", "near", "tight", "roomy", "unknown", "ready", "join", "rebalance")
			c.run(time.Duration(rapid.IntRange(0, 8).Draw(t, "pause"))*time.Second, nil)
		}
		calmDown(t, c, stack)
	})
}

// watchMoves checks one service against what its replicas must be while nothing
// but nodes change.
func watchMoves(c *cluster, service swarm.Service) {
	serving, moving := map[int]bool{}, map[int]int{}
	for _, t := range c.tasks {
		if t.Service.Name() != service.Name || !t.Status.State.Live() {
			continue
		}
		if t.Status.State == swarm.TaskHealthy && t.Desired <= swarm.DesiredRun {
			serving[t.Slot] = true
		}
		if t.Desired <= swarm.DesiredRun {
			moving[t.Slot]++
		}
	}
	several := service.Replicas > 1 || service.Update.Order == swarm.StartFirst
	if several && len(serving) < service.Replicas {
		c.broke("%d of %d replicas of %s serve", len(serving), service.Replicas, service.Name)
	}

	atOnce := 0
	for _, tasks := range moving {
		atOnce += number(tasks > 1)
	}
	if limit := service.Update.Parallelism; limit > 0 && atOnce > limit {
		c.broke("%d replicas of %s move at once, parallelism is %d", atOnce, service.Name, limit)
	}
}

// calmDown makes the cluster whole but for one node, which stays drained, lets
// time pass and checks that everything is where it must be, once, and that
// nothing is left to do.
func calmDown(t *rapid.T, c *cluster, stack *swarm.Stack) {
	for _, node := range c.nodes {
		node.State, node.Availability, node.Labels = swarm.NodeReady, swarm.NodeActive, nil
	}
	clear(c.tight)
	c.record.Version++
	c.run(5*time.Second, nil)
	for seat, tasks := range c.holders() {
		if len(tasks) > 1 && !c.moves(tasks[0]) {
			c.broke("%s has %d tasks five seconds after all nodes returned", seat, len(tasks))
		}
	}
	ids := slices.Sorted(maps.Keys(c.nodes))
	drained := c.nodes[rapid.SampledFrom(ids).Draw(t, "drained")]
	drained.Availability = swarm.NodeDrained
	c.say("> node %s drained at last", drained.ID)
	c.run(time.Hour, nil)

	count := 0
	for seat, tasks := range c.holders() {
		count++
		if len(tasks) != 1 || tasks[0].Status.State != swarm.TaskHealthy || tasks[0].Node == drained.ID || c.nodes[tasks[0].Node] == nil {
			c.broke("%s has %d tasks, the first %s on %s", seat, len(tasks), tasks[0].Status.State, tasks[0].Node)
		}
	}
	want := 0
	for _, service := range stack.Services {
		want += service.Replicas
		if service.Rebalance && !c.even(service) {
			c.broke("%s is rebalanced and not even", service.Name)
		}
	}
	if count != want {
		c.broke("%d seats are taken, not %d", count, want)
	}
	if d := Advance(c.view(), c.now); !d.Empty() {
		c.broke("a quiet cluster still decides %+v", deref(d))
	}
	if c.problem != "" {
		t.Fatalf("%s\n%s\n%s", c.problem, describe(c), c.out.String())
	}
}

// holders returns the tasks that hold each seat, or go and still run there.
func (c *cluster) holders() map[string][]*swarm.Task {
	holders := map[string][]*swarm.Task{}
	for _, id := range slices.Sorted(maps.Keys(c.tasks)) {
		if t := c.tasks[id]; t.Status.State.Live() && c.nodes[t.Node] != nil {
			holders[seatName(*t)] = append(holders[seatName(*t)], t)
		}
	}
	return holders
}

// even reports whether no active node has two replicas more than another.
func (c *cluster) even(service swarm.Service) bool {
	counts := map[swarm.NodeID]int{}
	for id, node := range c.nodes {
		if node.Availability == swarm.NodeActive {
			counts[id] = 0
		}
	}
	for _, t := range c.tasks {
		if t.Service.Name() == service.Name && t.Status.State.Live() {
			counts[t.Node]++
		}
	}
	values := slices.Collect(maps.Values(counts))
	return slices.Max(values)-slices.Min(values) < 2
}

// TestNodesThatComeAndGoLoseNoReplicaForGood adds to it nodes that fail, return
// and are removed.
func TestNodesThatComeAndGoLoseNoReplicaForGood(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster("n1", "n2", "n3", "n4")
		stack := drawReplicas(t, c)
		c.observe = watchRules()
		c.accept("v1", stack)
		c.run(time.Duration(rapid.IntRange(0, 20).Draw(t, "begin"))*time.Second, nil)
		for range rapid.IntRange(1, 10).Draw(t, "happenings") {
			befall(t, c, "down", "down", "ready", "gone", "join", "drained", "active", "far", "near", "tight", "roomy", "unknown", "rebalance")
			c.run(time.Duration(rapid.IntRange(0, 8).Draw(t, "pause"))*time.Second, nil)
		}
		calmDown(t, c, stack)
	})
}

// TestARolloutNeedsNoRoomForWhatADrainMoves asks for the plan of a stack that
// is what it must be, on a node that is drained.
func TestARolloutNeedsNoRoomForWhatADrainMoves(t *testing.T) {
	c := newCluster("n1", "n2")
	c.accept("v1", parseStack(t, "web image=web:1 replicas=4"))
	c.run(time.Hour, c.over)
	c.nodes["n1"].Availability = swarm.NodeDrained
	if plan := Diff(c.view()); len(plan.Steps) != 2 || plan.Steps[0].Why != "node n1 is drained" {
		t.Errorf("the plan is\n%s", plan)
	}
	if plan := DiffContent(c.view()); len(plan.Steps) != 0 {
		t.Errorf("the content asks for\n%s", plan)
	}
}
