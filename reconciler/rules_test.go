package reconciler

import (
	"github.com/gitswarm/gitswarm/swarm"
)

// watchRules returns a check of what must hold whatever happens: states never
// go back, and no seat has two running tasks but where it starts the new one
// first, or moves.
func watchRules() func(*cluster) {
	states := map[swarm.TaskID]swarm.TaskState{}
	cutOff := map[swarm.TaskID]bool{}     // tasks whose node was down: they end once it has returned
	several := map[swarm.ServiceID]bool{} // services that have had more than one replica
	return func(c *cluster) {
		running := map[string]int{}
		first := map[string]bool{}
		seats := map[swarm.ServiceID]map[int]bool{}
		for id, t := range c.tasks {
			if t.Status.State < states[id] {
				c.broke("%s went from %s back to %s", c.names[id], states[id], t.Status.State)
			}
			states[id] = t.Status.State
			seat := seatName(*t)
			patient := t.Desired >= swarm.DesiredStop && c.now.Sub(t.DesiredAt) >= stopPatience
			if node := c.nodes[t.Node]; node != nil && node.State == swarm.NodeDown {
				cutOff[id] = true
			}
			if t.Status.State.Running() && !c.unreachable(t) && !patient && !cutOff[id] {
				running[seat]++
			}
			first[seat] = first[seat] || c.startsFirst(t)
			if seats[t.Service] == nil {
				seats[t.Service] = map[int]bool{}
			}
			seats[t.Service][t.Slot] = true
			several[t.Service] = several[t.Service] || len(seats[t.Service]) > 1
		}
		for id, t := range c.tasks {
			if seat := seatName(*t); running[seat] > 1 && !first[seat] && !(several[t.Service] && c.moves(t)) {
				c.broke("%s has %d running tasks, among them %s", seat, running[seat], c.names[id])
			}
		}
	}
}

// startsFirst reports whether some content lets the task's seat have two tasks.
func (c *cluster) startsFirst(t *swarm.Task) bool {
	for _, stack := range c.contents {
		service, _ := stack.Service(t.Service.Name())
		if service.Update.Order == swarm.StartFirst || service.Rollback.Order == swarm.StartFirst {
			return true
		}
	}
	return false
}

// endless reports whether some content says that the task's service never ends
// by itself: a move that began under it goes on.
func (c *cluster) endless(t *swarm.Task) bool {
	for _, stack := range c.contents {
		if service, known := stack.Service(t.Service.Name()); known && service.Restart.Condition == swarm.RestartAny {
			return true
		}
	}
	return false
}

// moves reports whether the task's seat has two tasks because one of them is on
// its way to another node, and may.
func (c *cluster) moves(t *swarm.Task) bool {
	def := c.definition(t)
	if t.Job || def == nil || !c.endless(t) || len(c.volumesOf(t)) > 0 {
		return false
	}
	for _, other := range c.tasks {
		if other.Service != t.Service || other.Slot != t.Slot || !other.Status.State.Live() {
			continue
		}
		node := c.nodes[other.Node]
		if other.Excused != "" || node != nil && (node.Availability == swarm.NodeDrained || !Fits(def, node)) {
			return true
		}
		if before := c.tasks[other.Replaces]; before != nil && before.Status.State.Live() && before.Spec == other.Spec {
			return true
		}
	}
	return false
}
