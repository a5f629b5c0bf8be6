package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/swarm"
)

// names of the services of random stacks. A service may depend on those
// before it.
var serviceNames = []string{"a", "b", "c"}

// drawStack draws a stack whose images are of the given version.
func drawStack(t *rapid.T, version int) *swarm.Stack {
	stack := &swarm.Stack{Name: "shop"}
	for i, name := range serviceNames {
		if rapid.IntRange(0, 5).Draw(t, "absent") == 0 {
			continue
		}
		service := newService(name)
		service.Task.Image = fmt.Sprintf("%s:%d", name, rapid.SampledFrom([]int{1, version}).Draw(t, "image"))
		service.Mode = rapid.SampledFrom([]swarm.Mode{swarm.Replicated, swarm.Replicated, swarm.Replicated, swarm.Global, swarm.ReplicatedJob, swarm.GlobalJob}).Draw(t, "mode")
		service.Replicas = rapid.IntRange(0, 4).Draw(t, "replicas")
		service.Restart.Condition = rapid.SampledFrom([]swarm.RestartCondition{swarm.RestartAny, swarm.RestartOnFailure, swarm.RestartNone}).Draw(t, "restart")
		service.Restart.MaxAttempts = rapid.IntRange(0, 2).Draw(t, "attempts")
		service.Rebalance = rapid.Bool().Draw(t, "rebalance")
		service.Reversible = rapid.Bool().Draw(t, "reversible")
		service.RollbackGroup = rapid.SampledFrom([]string{"", "", "g"}).Draw(t, "group")
		drawPolicy(t, &service.Update)
		drawPolicy(t, &service.Rollback)
		for _, other := range stack.Services {
			if i > 0 && rapid.IntRange(0, 2).Draw(t, "depends") == 0 {
				conditions := []swarm.Condition{swarm.ServiceStarted, swarm.ServiceHealthy}
				if other.Mode.Job() {
					conditions = []swarm.Condition{swarm.ServiceCompleted}
				}
				service.DependsOn = append(service.DependsOn, swarm.Dependency{
					Service: other.Name, Condition: rapid.SampledFrom(conditions).Draw(t, "condition"),
				})
			}
		}
		service.Spec = swarm.Digest(fmt.Sprintf("%+v", service.Task))
		stack.Services = append(stack.Services, service)
	}
	return stack
}

func drawPolicy(t *rapid.T, policy *swarm.RolloutPolicy) {
	policy.Parallelism = rapid.IntRange(0, 3).Draw(t, "parallelism")
	policy.Order = rapid.SampledFrom([]swarm.Order{swarm.StopFirst, swarm.StartFirst}).Draw(t, "order")
	policy.OnFailure = rapid.SampledFrom([]swarm.FailureAction{swarm.FailureRollback, swarm.FailurePause, swarm.FailureContinue}).Draw(t, "on_failure")
	policy.MaxFailureRatio = rapid.SampledFrom([]float64{0, 0, 0.3, 1}).Draw(t, "ratio")
	policy.Monitor = time.Duration(rapid.IntRange(0, 3).Draw(t, "monitor")) * time.Second
	policy.Delay = time.Duration(rapid.IntRange(0, 2).Draw(t, "delay")) * time.Second
}

// drawLife draws how a task of a good, or of any, image behaves.
func drawLife(t *rapid.T, good bool) life {
	seconds := func(name string, most int) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, name)) * time.Second
	}
	l := life{prepare: seconds("prepare", 2), healthy: seconds("healthy", 2), stops: seconds("stops", 3), dies: -1}
	if good {
		return l
	}
	switch rapid.IntRange(0, 6).Draw(t, "life") {
	case 0:
		l.dies, l.exit = seconds("dies", 4), 1
	case 1:
		l.dies, l.exit = seconds("dies", 4), 0
	case 2:
		l.healthy = -1
	case 3:
		l.refused, l.message = swarm.CauseContent, "command not found"
	case 4:
		l.refused, l.message = swarm.CauseEnvironment, "registry is down"
	case 5:
		l.undrain = true
	}
	return l
}

// drawActs draws how the images of every version behave: the first version
// well, the others as they like, but the environment refuses only for a while.
func drawActs(t *rapid.T, versions int, good bool) []act {
	var acts []act
	for _, name := range serviceNames {
		for version := 1; version <= versions; version++ {
			a := act{image: fmt.Sprintf("%s:%d", name, version)}
			for range rapid.IntRange(1, 3).Draw(t, "lives") {
				a.lives = append(a.lives, drawLife(t, good || version == 1))
			}
			if last := len(a.lives) - 1; a.lives[last].refused == swarm.CauseEnvironment {
				a.lives = append(a.lives, life{dies: -1})
			}
			acts = append(acts, a)
		}
	}
	return acts
}

func ended(c *cluster) bool { return c.over() || c.record.Name == "" }

// TestEveryRolloutEndsWhateverHappens plays random commits, images, people and
// nodes, and then lets time pass.
func TestEveryRolloutEndsWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster("n1", "n2", "n3")
		c.acts = drawActs(t, 4, false)
		c.observe = watchRules()
		c.accept("v1", drawStack(t, 1))
		c.run(time.Duration(rapid.IntRange(0, 30).Draw(t, "begin"))*time.Second, nil)
		for i := range rapid.IntRange(1, 8).Draw(t, "actions") {
			disturb(t, c, i)
			c.run(time.Duration(rapid.IntRange(0, 20).Draw(t, "pause"))*time.Second, nil)
		}

		c.record.Suspended = ""
		for _, node := range c.nodes {
			node.State, node.Availability = swarm.NodeReady, swarm.NodeActive
		}
		c.obstacles = nil
		clear(c.tight)
		c.record.Version++
		c.run(2*time.Hour, func() bool { return ended(c) })
		waits := c.record.Rollout.Phase == swarm.PhaseWaiting && strings.Contains(c.record.Rollout.Why, "waits for") // for what was dead before
		if c.problem == "" && !ended(c) && !waits && c.record.Accepted.Content != "" && !quarantinedNow(c) {
			c.broke("rollout %d %s has not ended: %s", c.record.Rollout.ID, c.record.Rollout.Phase, c.record.Rollout.Why)
		}
		c.run(time.Minute, nil)
		if c.problem != "" {
			t.Fatalf("%s\n%s\n%s", c.problem, describe(c), c.out.String())
		}
	})
}

func quarantinedNow(c *cluster) bool {
	return slices.ContainsFunc(c.record.Quarantine, func(q swarm.Quarantined) bool { return q.Content == c.record.Accepted.Content })
}

// describe tells what the reconciler makes of the cluster, for a failed test.
func describe(c *cluster) string {
	text := ""
	s := newStep(c.view(), c.now)
	for _, sv := range s.services {
		for _, st := range sv.seats {
			if done, _ := s.done(st); !done {
				text += fmt.Sprintf("%s is not done: begun=%v own=%v blocked=%q\n", st.name(), s.begun(st), s.hasOwn(st), s.blocked(sv))
			}
		}
		for _, st := range sv.extra {
			text += st.name() + " is not wanted\n"
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.tasks)) {
		task := c.tasks[id]
		text += fmt.Sprintf("%s %s on %s: %s, %s, rollout %d, generation %d, excused %q\n", c.names[id], c.images[task.Spec],
			task.Node, task.Desired, task.Status.State, task.Rollout, task.Generation, task.Excused)
	}
	for _, stack := range []*swarm.Stack{c.contents[c.record.Healthy.Content], c.contents[c.record.Accepted.Content]} {
		if stack == nil {
			continue
		}
		for _, service := range stack.Services {
			text += fmt.Sprintf("%s %s %s x%d restart=%+v update=%+v rollback=%+v depends=%+v group=%q\n", service.Name, service.Task.Image,
				service.Mode, service.Replicas, service.Restart, service.Update, service.Rollback, service.DependsOn, service.RollbackGroup)
		}
		text += "--\n"
	}
	for _, a := range c.acts {
		text += fmt.Sprintf("%+v\n", a)
	}
	return text
}

// disturb does one thing that people, nodes or commits may do.
func disturb(t *rapid.T, c *cluster, i int) {
	name := rapid.SampledFrom(serviceNames).Draw(t, "service")
	node := c.nodes[rapid.SampledFrom([]swarm.NodeID{"n1", "n2", "n3"}).Draw(t, "node")]
	c.record.Version++
	switch action := rapid.IntRange(0, 17).Draw(t, "action"); action {
	case 0, 1, 2, 3:
		stack := drawStack(t, rapid.IntRange(2, 4).Draw(t, "version"))
		if !slices.ContainsFunc(c.record.Quarantine, func(q swarm.Quarantined) bool { return q.Content == digest(stack) }) {
			c.say("> accept v%d", i+2)
			c.accept(fmt.Sprintf("v%d", i+2), stack)
		}
	case 4:
		c.say("> restart %s", name)
		generation := maps.Clone(c.record.Generation)
		if generation == nil {
			generation = map[string]uint64{}
		}
		generation[name]++
		c.record.Generation = generation
	case 5:
		replicas := rapid.IntRange(0, 5).Draw(t, "scale")
		c.say("> scale %s=%d", name, replicas)
		c.record.Scale = map[string]int{name: replicas}
	case 6:
		c.say("> node %s down", node.ID)
		node.State = swarm.NodeDown
	case 7:
		c.say("> node %s drained", node.ID)
		node.Availability = swarm.NodeDrained
	case 8:
		c.say("> node %s ready", node.ID)
		c.tight[node.ID] = false
		node.State, node.Availability = swarm.NodeReady, swarm.NodeActive
	case 14:
		c.say("> node %s paused", node.ID)
		node.Availability = swarm.NodePaused
	case 15:
		c.say("> node %s unknown", node.ID)
		node.State = swarm.NodeUnknown
	case 16:
		c.say("> node %s tight", node.ID)
		c.tight[node.ID] = true
	case 17:
		c.say("> rebalance")
		c.record.Rebalance = true
	case 9:
		c.say("> lead")
		c.record.Rollout.Opened = c.now
	case 10:
		c.say("> suspend")
		c.record.Suspended = "by ana"
	case 11:
		c.say("> resume")
		c.record.Suspended = ""
	case 12:
		c.say("> retry")
		c.record.Quarantine = nil
	case 13:
		c.say("> obstacle")
		c.obstacles = []string{"no node fits"}
		if rapid.Bool().Draw(t, "clear") {
			c.obstacles = nil
		}
	}
}
