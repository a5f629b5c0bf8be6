// Package reconciler decides what must change in a stack, and when: which
// tasks start, go, are replaced or go back. It reads values and the time it is
// given and returns a swarm.Decision. It reads no clock, draws no chance, logs
// nothing, opens no connection, starts no goroutine and keeps nothing between
// two calls: whoever leads next reads the same view and decides the same.
package reconciler

import (
	"cmp"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// View is one stack, whole, at one raft index.
type View struct {
	Record    swarm.StackRecord
	Accepted  *swarm.Stack // content of Record.Accepted; nil while the stack is removed
	Healthy   *swarm.Stack // content of Record.Healthy; nil before the first
	Tasks     []swarm.Task // all of the stack's, ended ones included
	Nodes     []swarm.Node // all of the cluster's: a task on any other is lost
	Obstacles []string     // why the accepted content cannot work now; looked at while nothing was touched
	Chance    uint64       // seeds the ids of new tasks

	// Load is how many tasks of all stacks stay on each node; nil where nobody
	// counted. Only a rebalance looks at it.
	Load map[swarm.NodeID]int

	History int // ended tasks kept for a slot; 5 unless set
}

const (
	drainPatience   = 2 * time.Second  // a task that its load balancers do not let go of is stopped after this
	stopPatience    = 60 * time.Second // beyond its grace period: then its successor starts anyway
	defaultGrace    = 10 * time.Second
	defaultDeadline = 10 * time.Minute
	environmentWait = 5 * time.Minute // between two rollouts of content that the environment failed
	historyLimit    = 5               // View.History unless set
	rolloutLimit    = 10              // ended tasks kept for a slot while a rollout runs, at least
	attemptsLimit   = 100             // ended tasks kept for a slot, whatever max_attempts asks
	replicasLimit   = 100_000         // a record that asks for more is corrupt
)

// task is a swarm.Task and what its node's state makes of it.
type task struct {
	swarm.Task
	seat      *seat
	lost      bool   // its node is down, or no longer of the cluster: nothing of it can be waited for
	unwelcome string // why its node may not keep it, or empty
}

// live reports whether the task holds, or will hold, a container that the
// cluster can reach.
func (t *task) live() bool { return t.Status.State.Live() && !t.lost }

// holding reports whether the task is live and was not asked to go, welcome on
// its node or not.
func (t *task) holding() bool {
	return t.live() && t.Desired <= swarm.DesiredRun && t.Excused == ""
}

// staying reports whether the task is live and nobody wants it to go.
func (t *task) staying() bool { return t.holding() && t.unwelcome == "" }

// healthy reports whether the task serves.
func (t *task) healthy() bool { return t.live() && t.Status.State == swarm.TaskHealthy }

// asked reports whether the task goes because the reconciler asked it to.
func (t *task) asked() bool { return t.Desired > swarm.DesiredRun && t.Excused == "" }

// began reports whether the task was asked to run, whatever came of it.
func (t *task) began() bool {
	return !t.Touched.IsZero() || t.Desired == swarm.DesiredRun || !t.Status.Started.IsZero()
}

// environment reports whether the task ended, and its content is not to blame.
func (t *task) environment() bool {
	ended := t.Status.State == swarm.TaskFailed || t.Status.State == swarm.TaskRejected
	return ended && t.Status.Cause == swarm.CauseEnvironment
}

// seat is a slot, or a node's place in a global service, with every task that
// ever sat there and is remembered.
type seat struct {
	service *service
	slot    int
	node    swarm.NodeID
	tasks   []*task // oldest first
	late    bool    // its node joined after the rollout began: it never fails the revision
}

// name is the seat in the words of people.
func (st *seat) name() string {
	if st.slot == 0 && st.node != "" {
		return st.service.name + "@" + string(st.node)
	}
	return swarm.SlotName(st.service.name, st.slot)
}

// newest returns the last task of the seat for which ok holds, or nil.
func (st *seat) newest(ok func(*task) bool) *task {
	for _, t := range slices.Backward(st.tasks) {
		if ok(t) {
			return t
		}
	}
	return nil
}

// any reports whether ok holds for a task of the seat.
func (st *seat) any(ok func(*task) bool) bool { return st.newest(ok) != nil }

// occupied reports whether the seat counts as taken: it has tasks that were
// not asked to leave without a trace.
func (st *seat) occupied() bool {
	return st.any(func(t *task) bool { return t.Desired < swarm.DesiredRemove })
}

// byAge orders tasks of one seat: a task comes after the one it replaces.
func byAge(a, b *task) int {
	if c := a.Created.Compare(b.Created); c != 0 {
		return c
	}
	switch {
	case a.Replaces == b.ID:
		return 1
	case b.Replaces == a.ID:
		return -1
	}
	return cmp.Compare(a.ID, b.ID)
}

// service is one service of the stack as one step sees it.
type service struct {
	name       string
	from       *swarm.Service // of the healthy content; nil if it has none
	to         *swarm.Service // of the rollout's target; nil if it has none
	want       *swarm.Service // what it must be now; nil if it must go
	back       bool           // it is rolling back: want is from
	ends       bool           // its tasks are meant to end
	generation uint64         // of the restarts that operators asked for
	seats      []*seat        // that must be filled
	kept       []*seat        // of nodes that take nothing new now: left as they are
	extra      []*seat        // that must go
	moves      int            // seats that are on their way to another node, see evict.go
}

// all returns every seat.
func (sv *service) all() []*seat { return slices.Concat(sv.seats, sv.kept, sv.extra) }

// goal is what a seat of the service must run.
func (sv *service) goal() target {
	return target{def: sv.want, generation: sv.generation, ends: sv.ends}
}

// changed reports whether the rollout brings the service a new spec.
func (sv *service) changed() bool {
	return sv.to != nil && (sv.from == nil || sv.from.Spec != sv.to.Spec || sv.from.Mode.Job() != sv.to.Mode.Job())
}

// policy is the policy that the service rolls by.
func (sv *service) policy() swarm.RolloutPolicy {
	switch {
	case sv.want == nil:
		return swarm.RolloutPolicy{}
	case sv.back:
		return sv.want.Rollback
	}
	return sv.want.Update
}

// target is what one seat is tended towards.
type target struct {
	def        *swarm.Service
	generation uint64
	ends       bool // a task of it is meant to end
	anywhere   bool // neither its node nor its being meant to end is held against a task
}
