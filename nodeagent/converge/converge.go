// Package converge decides what a node must do next for each of its tasks, and
// what to say of it. It reads no clock, starts nothing and remembers nothing:
// the agent observes, asks, acts and observes again.
package converge

import (
	"cmp"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Container is how far a task's container has come.
type Container int

// The life of a container, in order.
const (
	Absent  Container = iota
	Created           // made, never started
	Running
	Exited
)

// Observed is what the agent knows of one task on its node.
type Observed struct {
	Task      swarm.TaskID
	Last      swarm.TaskStatus // as it was last reported; a task never falls behind it
	Fetched   bool             // spec, files and image are there; of a running container, its spec
	Pulled    int              // percent of the image, while it is fetched
	Attached  bool             // its network endpoint is there
	Traces    bool             // something of its container may be on the node
	Container Container
	Started   time.Time
	Ended     time.Time
	Exit      int
	OOM       bool
	Lost      bool               // it ended with the node or its shim; Exit says nothing
	Again     bool               // its container ended with the machine: another one is made
	Check     *swarm.Healthcheck // nil means healthy as soon as it runs
	Health    Health
	Left      bool     // this node's load balancers no longer name it
	Refused   *Refusal // preparing or starting it failed
	Saved     bool     // the assignment that no longer names it is on disk
}

// Refusal is why a task could not be prepared or started.
type Refusal struct {
	Message string
	Cause   swarm.Cause
}

// Verb is what to do next with a task.
type Verb string

// The verbs, in the order of a task's life.
const (
	Rest   Verb = "rest"   // nothing, until something changes
	Fetch  Verb = "fetch"  // spec, files, image
	Attach Verb = "attach" // give it its network endpoint
	Create Verb = "create" // the container
	Start  Verb = "start"
	Leave  Verb = "leave" // take it out of this node's load balancers
	Stop   Verb = "stop"  // signal, grace, kill
	Remove Verb = "remove"
	Forget Verb = "forget" // it is gone, and nobody asks for it
)

// Action is a verb and its task.
type Action struct {
	Do   Verb
	Task swarm.TaskID
}

// Next returns what to do for each task that is assigned or observed, by task;
// tasks at rest are not in it.
func Next(assignment swarm.Assignment, observed []Observed) []Action {
	seen := make(map[swarm.TaskID]Observed, len(observed))
	for _, o := range observed {
		seen[o.Task] = o
	}

	var actions []Action
	add := func(id swarm.TaskID, want *swarm.AssignedTask) {
		if verb := Step(want, seen[id]); verb != Rest {
			actions = append(actions, Action{Do: verb, Task: id})
		}
		delete(seen, id)
	}
	for i := range assignment.Tasks {
		add(assignment.Tasks[i].ID, &assignment.Tasks[i])
	}
	for id := range seen {
		add(id, nil)
	}
	slices.SortFunc(actions, func(a, b Action) int { return cmp.Compare(a.Task, b.Task) })
	return actions
}

// Step returns what to do next with one task; want is nil for a task that the
// assignment does not name. Doing it and observing again leads, in a bounded
// number of steps, to Rest or Forget.
func Step(want *swarm.AssignedTask, seen Observed) Verb {
	desired := swarm.DesiredRemove
	if want != nil {
		desired = want.Desired
	}
	if seen.Container == Running {
		return stepRunning(desired, seen)
	}

	switch {
	case desired >= swarm.DesiredRemove && seen.Traces:
		return Remove
	case want == nil && seen.Saved:
		return Forget
	case desired >= swarm.DesiredStop || seen.Over():
		return Rest
	case !seen.Fetched:
		return Fetch
	case !seen.Attached:
		return Attach
	case seen.Container == Absent:
		return Create
	case desired == swarm.DesiredRun:
		return Start
	}
	return Rest
}

func stepRunning(desired swarm.Desired, seen Observed) Verb {
	switch {
	case desired < swarm.DesiredStop && !seen.Unhealthy() && seen.Last.State.Live():
		if !seen.Fetched {
			return Fetch
		}
		return Rest
	case !seen.Left:
		return Leave
	}
	return Stop
}

// Over reports whether the task has ended, whatever is still there of it.
func (o Observed) Over() bool {
	return o.Container == Exited || o.Refused != nil || !o.Last.State.Live() || o.vanished()
}

// vanished reports whether the container ran once and is no more: the node was
// restarted, or somebody removed it.
func (o Observed) vanished() bool {
	return o.Last.State.Running() && o.Container < Running && !o.Again
}

// Revived returns what is observed of a task whose container ended because its
// machine did: a machine that restarts goes on with what it was last asked to
// run. A job, and a task that did not run or is to stop, has ended with it.
func (o Observed) Revived(want *swarm.AssignedTask) (Observed, bool) {
	if want == nil || want.Desired != swarm.DesiredRun || want.Job || !o.Last.State.Running() || o.Container == Running {
		return o, false
	}
	o.Again, o.Container, o.Lost, o.Health = true, Absent, false, Health{}
	return o, true
}

// Unhealthy reports whether the container runs and its health check has given
// it up.
func (o Observed) Unhealthy() bool {
	return o.Check != nil && o.Health.failed(*o.Check)
}

// Backend reports whether the task may take connections, as far as its node
// knows: it may be out sooner than the managers say.
func Backend(want *swarm.AssignedTask, seen Observed) bool {
	return want != nil && want.Desired == swarm.DesiredRun && seen.Container == Running && !seen.Unhealthy()
}

// NeedsEndpoint reports whether the task must have its place on the network.
func NeedsEndpoint(want *swarm.AssignedTask, seen Observed) bool {
	if seen.Container == Running {
		return true
	}
	return want != nil && want.Desired < swarm.DesiredStop && seen.Fetched && !seen.Over()
}
