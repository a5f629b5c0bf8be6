package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// act is how the tasks of an image, or of one seat of it, behave: the first
// task by the first of lives, the last for all that follow.
type act struct {
	image, seat string
	lives       []life
}

// life is how one task behaves.
type life struct {
	prepare time.Duration // from creation to TaskPrepared
	healthy time.Duration // from start to TaskHealthy; negative: never
	dies    time.Duration // from start to its end; negative: never
	stops   time.Duration // from asked to stopped; negative: never
	exit    int
	message string      // of an end by unhealthiness, or a refusal
	refused swarm.Cause // refused at the end of prepare
	undrain bool        // its load balancers do not answer
}

// lifeOf returns how a new task will behave: by the newest act that speaks of
// it. A job ends a second after it was healthy.
func (c *cluster) lifeOf(t *swarm.Task) life {
	l := life{dies: -1}
	for _, a := range slices.Backward(c.acts) {
		if a.image == c.images[t.Spec] && (a.seat == "" || a.seat == seatName(*t)) {
			key := seatName(*t) + a.image
			l = a.lives[min(c.counts[key], len(a.lives)-1)]
			c.counts[key]++
			break
		}
	}
	if t.Job && l.dies < 0 && l.healthy >= 0 {
		l.dies = l.healthy + time.Second
	}
	return l
}

// act lets every agent take the steps that are due now.
func (c *cluster) act() bool {
	acted := false
	for _, id := range slices.Sorted(maps.Keys(c.tasks)) {
		for c.actOn(c.tasks[id]) {
			acted = true
		}
	}
	return acted
}

// due returns when the agent of a task has its next step to do.
func (c *cluster) due(id swarm.TaskID) time.Time {
	t, at := c.tasks[id], c.since[id]
	l := c.lives[id]
	next := time.Time{}
	soonest := func(from time.Time, d time.Duration) {
		if d >= 0 && (next.IsZero() || from.Add(d).Before(next)) {
			next = from.Add(d)
		}
	}
	switch state := t.Status.State; {
	case !state.Live() || c.unreachable(t):
	case t.Desired >= swarm.DesiredStop:
		soonest(at.stopping, l.stops)
	case state < swarm.TaskPrepared:
		soonest(at.created, l.prepare)
	default:
		if state == swarm.TaskStarting {
			soonest(at.started, l.healthy)
		}
		if state.Running() {
			soonest(at.started, l.dies)
		}
	}
	return next
}

func (c *cluster) unreachable(t *swarm.Task) bool {
	node := c.nodes[t.Node]
	return t.Node == "" || node == nil || node.State != swarm.NodeReady
}

// actOn takes one step of a task's agent, if one is due.
func (c *cluster) actOn(t *swarm.Task) bool {
	if !t.Status.State.Live() {
		return false
	}
	if t.Node == "" {
		c.place(t)
		return t.Node != ""
	}
	if c.unreachable(t) {
		return false
	}
	l, at := c.lives[t.ID], c.since[t.ID]
	state := t.Status.State
	reached := func(from time.Time, d time.Duration) bool { return d >= 0 && !c.now.Before(from.Add(d)) }

	switch {
	case t.Desired >= swarm.DesiredStop && !state.Running():
		return c.enter(t, swarm.TaskStopped, "")
	case t.Desired >= swarm.DesiredStop && reached(at.stopping, l.stops):
		return c.enter(t, swarm.TaskStopped, "")
	case state.Running() && reached(at.started, l.dies):
		return c.end(t, l)
	case t.Desired >= swarm.DesiredDrain && !t.Status.Drained && !l.undrain:
		t.Status.Drained = true
		return true
	case state < swarm.TaskPrepared && reached(at.created, l.prepare):
		if l.refused != "" {
			t.Status.Cause = l.refused
			return c.enter(t, swarm.TaskRejected, l.message)
		}
		return c.enter(t, swarm.TaskPrepared, "")
	case state == swarm.TaskPrepared && t.Desired == swarm.DesiredRun:
		at.started = c.now
		c.since[t.ID] = at
		t.Status.Started = c.now
		return c.enter(t, swarm.TaskStarting, "")
	case state == swarm.TaskStarting && reached(at.started, l.healthy):
		t.Status.Healthy = c.now
		return c.enter(t, swarm.TaskHealthy, "")
	}
	return false
}

func (c *cluster) end(t *swarm.Task, l life) bool {
	if l.message != "" {
		t.Status.Cause = swarm.CauseContent
		return c.enter(t, swarm.TaskFailed, l.message)
	}
	exit := l.exit
	t.Status.Exit = &exit
	message := fmt.Sprintf("exited %d after %s", exit, c.now.Sub(c.since[t.ID].started))
	if exit == 0 {
		return c.enter(t, swarm.TaskComplete, message)
	}
	t.Status.Cause = swarm.CauseContent
	return c.enter(t, swarm.TaskFailed, message)
}

func (c *cluster) enter(t *swarm.Task, state swarm.TaskState, message string) bool {
	t.Status.State, t.Status.Since, t.Status.Message = state, c.now, message
	if state != swarm.TaskPrepared && state != swarm.TaskStarting {
		c.say("%s is %s%s", c.names[t.ID], state, strings.TrimSuffix(": "+message, ": "))
	}
	return true
}
