package reconciler

import (
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// tend moves one seat a step towards its target. With fresh, a seat that holds
// nothing, or something else, gets a new task; without, only what ended there
// is restarted.
func (s *step) tend(st *seat, g target, fresh bool) {
	if g.def == nil {
		s.pushGoers(st)
		return
	}
	if keeper := s.keeper(st, g); keeper != nil {
		s.exchange(st, g, keeper)
		return
	}
	if s.satisfied(st, g) || s.restsAfter(st, g, fresh) {
		s.pushAll(st)
		return
	}
	s.cancel(st, g)
	s.fill(st, g, fresh)
}

// keeper returns the task of the seat that is, or is on the way to, what the
// target asks for; nil if there is none. Of two equal ones it is the one that
// is healthy, or, where the seat moves, the one that it moves to.
func (s *step) keeper(st *seat, g target) *task {
	if g.def == nil {
		return nil
	}
	var best *task
	for _, t := range st.tasks {
		if !t.staying() || !s.fits(t, g) {
			continue
		}
		if best == nil || t.healthy() || !best.healthy() || t.Replaces == best.ID && t.Node != "" {
			best = t
		}
	}
	return best
}

// fits reports whether the task is what the target asks for, where it may be.
func (s *step) fits(t *task, g target) bool {
	if t.Spec != g.def.Spec || t.Generation != g.generation {
		return false
	}
	if g.anywhere {
		return true
	}
	node := s.node(t.Node)
	return t.Job == g.ends && (node == nil || Fits(g.def, node))
}

// exchange lets the keeper take the seat. Stop-first: it is prepared, the old
// task is drained and stopped, it runs. Start-first: it runs, it is healthy,
// the old task is drained and stopped.
func (s *step) exchange(st *seat, g target, keeper *task) {
	first := s.startsFirst(st, g)
	newer := false
	for _, t := range st.tasks {
		if t == keeper {
			newer = true
			continue
		}
		if !t.live() {
			continue
		}
		switch {
		case !t.holding(), newer: // it goes already, or its turn was taken back
			s.push(t, swarm.DesiredStop)
		case s.moves(t, g):
			if s.mayGo(st, t, keeper, first) {
				s.moveOff(t, keeper)
			}
		case s.useless(st, t), keeper.healthy(), !first && s.ready(keeper), s.belongs(st, g):
			if t.Status.State.Running() {
				s.touch()
			}
			s.push(t, swarm.DesiredStop)
			if first && t.Desired > swarm.DesiredRun {
				s.happened("task", st, "was replaced by "+keeper.Revision.Short())
			}
		}
	}
	s.raise(st, keeper, first)
}

func (s *step) order(st *seat, g target) swarm.Order {
	if st.service.back {
		return g.def.Rollback.Order
	}
	return g.def.Update.Order
}

// ready reports whether the task could run at once.
func (s *step) ready(t *task) bool {
	return t.Status.State >= swarm.TaskPrepared && !s.now.Before(t.NotBefore) || t.Desired >= swarm.DesiredRun
}

// useless reports whether the task neither serves nor runs what last worked:
// content that failed or was superseded.
func (s *step) useless(st *seat, t *task) bool {
	from := st.service.from
	return !t.healthy() && (from == nil || t.Spec != from.Spec)
}

// raise asks the keeper to run once it may.
func (s *step) raise(st *seat, keeper *task, first bool) {
	switch {
	case keeper.Desired >= swarm.DesiredRun:
		return
	case s.now.Before(keeper.NotBefore):
		s.ask(keeper.NotBefore)
		return
	}

	for _, t := range st.tasks {
		if t == keeper || first && t.holding() || !t.live() {
			continue
		}
		if !s.overdue(st, t) {
			return
		}
	}
	s.desire(keeper, swarm.DesiredRun)
	if s.isNew(st.service, keeper) {
		s.touch()
		if keeper.NotBefore.IsZero() && st.any(func(t *task) bool { return t.asked() && !t.DesiredAt.Before(s.rollout.Began) }) {
			s.happened("task", st, "was replaced by "+keeper.Revision.Short())
		}
	}
}

// overdue reports whether a task was asked to stop and has not, long after its
// grace period.
func (s *step) overdue(st *seat, t *task) bool {
	if t.Desired < swarm.DesiredStop {
		return false
	}
	deadline := t.DesiredAt.Add(grace(st.service, t) + stopPatience)
	s.ask(deadline)
	return !s.now.Before(deadline)
}

func grace(sv *service, t *task) time.Duration {
	for _, def := range []*swarm.Service{sv.to, sv.from} {
		if def != nil && def.Spec == t.Spec && def.Task.StopGrace > 0 {
			return def.Task.StopGrace
		}
	}
	return defaultGrace
}

// push moves a task one step on its way out, to DesiredStop or DesiredRemove.
// One that serves is drained first.
func (s *step) push(t *task, last swarm.Desired) {
	switch {
	case !t.live() || t.Desired >= last:
		return
	case t.Desired < swarm.DesiredDrain && t.healthy():
		s.desire(t, swarm.DesiredDrain)
		s.ask(s.now.Add(drainPatience))
		return
	case t.Desired == swarm.DesiredDrain && t.healthy() && !t.Status.Drained && s.now.Before(t.DesiredAt.Add(drainPatience)):
		s.ask(t.DesiredAt.Add(drainPatience))
		return
	}
	s.desire(t, last)
}

func (s *step) pushAll(st *seat) {
	for _, t := range st.tasks {
		s.evict(t)
	}
}

// pushGoers moves on the tasks that already go, and those that their nodes may
// not keep.
func (s *step) pushGoers(st *seat) {
	for _, t := range st.tasks {
		if !t.staying() {
			s.evict(t)
		}
	}
}

// cancel takes back what was begun on top of a task that serves.
func (s *step) cancel(st *seat, g target) {
	var serving *task
	for _, t := range st.tasks {
		if !t.staying() {
			if !s.waitsForSuccessor(t) {
				s.evict(t)
			}
			continue
		}
		if serving != nil && s.useless(st, t) {
			s.push(t, swarm.DesiredStop)
		}
		if t.healthy() {
			serving = t
		}
	}
	if s.belongs(st, g) {
		for _, t := range st.tasks {
			if t.staying() {
				s.touch()
				s.push(t, swarm.DesiredStop)
			}
		}
	}
}

// belongs reports whether the seat is the new content's although it failed
// there: the failure is tolerated.
func (s *step) belongs(st *seat, g target) bool { return !g.anywhere && s.tolerated(st) != nil }

// clear empties a seat that is no longer wanted, without a trace.
func (s *step) clear(st *seat) {
	for _, t := range st.tasks {
		if t.live() {
			s.push(t, swarm.DesiredRemove)
		} else {
			s.drop(t)
		}
	}
}

// drop forgets a task.
func (s *step) drop(t *task) {
	if !slices.Contains(s.decision.Forget, t.ID) {
		s.decision.Forget = append(s.decision.Forget, t.ID)
	}
}

// touch marks the moment from which a failure is the rollout's.
func (s *step) touch() {
	if !s.rollout.Phase.Ended() && s.rollout.Touched.IsZero() {
		s.rollout.Touched = s.now
	}
}
