package reconciler

import (
	"cmp"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

const (
	firstBackoff = 5 * time.Second
	lastBackoff  = 5 * time.Minute
)

// fill gives an empty seat a task: at once where nothing failed there, by
// restart_policy after an end, with a growing pause after the environment
// refused.
func (s *step) fill(st *seat, g target, fresh bool) {
	if node := s.node(st.node); st.node != "" && (node == nil || !takes(node)) {
		return
	}
	if s.waitsForTurn(st, g) {
		return
	}
	last := s.lastOf(st, g)
	if last == nil || last.asked() {
		if fresh || last != nil || s.successorDue(st) {
			s.create(st, g, time.Time{})
		}
		return
	}

	state := last.Status
	switch {
	case last.Excused != "", last.lost:
		s.create(st, g, time.Time{})
	case last.environment():
		at := state.Since.Add(backoff(st, last))
		if s.now.Before(at) {
			s.ask(at)
			return
		}
		s.create(st, g, time.Time{})
	case s.restarts(st, g, last):
		at := state.Since.Add(g.def.Restart.Delay)
		if state.Started.IsZero() && s.now.Before(at) { // preparing it again is what the delay is for
			s.ask(at)
			return
		}
		s.create(st, g, at)
		s.happened("task", st, "was restarted: "+reason(last))
	}
}

// successorDue reports whether a task was asked to go for another that is not
// there, or left because of its node.
func (s *step) successorDue(st *seat) bool {
	last := st.newest(func(t *task) bool { return !t.staying() })
	return last != nil && (last.asked() || last.Excused != "" || last.unwelcome != "")
}

// restarts reports whether restart_policy gives the seat a successor for a
// task that ended.
func (s *step) restarts(st *seat, g target, last *task) bool {
	policy := g.def.Restart
	condition := policy.Condition
	if st.service.ends && condition != swarm.RestartNone {
		condition = swarm.RestartOnFailure
	}
	complete := last.Status.State == swarm.TaskComplete
	if condition == swarm.RestartNone || condition == swarm.RestartOnFailure && complete {
		return false
	}
	return policy.MaxAttempts == 0 || s.attempts(st, g, last) <= policy.MaxAttempts
}

// attempts counts the ends of the seat's tasks by themselves, the last one
// included, as far back as the policy's window reaches.
func (s *step) attempts(st *seat, g target, last *task) int {
	count := 0
	for _, t := range st.tasks {
		window := g.def.Restart.Window
		switch {
		case t.Spec != last.Spec, t.Generation != last.Generation, !byItself(t), t.Created.After(last.Created), s.bygone(st.service, t):
		case window > 0 && last.Status.Since.Sub(t.Status.Since) >= window:
		default:
			count++
		}
	}
	return count
}

// byItself reports whether the task ended and nothing but itself is to blame.
func byItself(t *task) bool {
	switch t.Status.State {
	case swarm.TaskComplete, swarm.TaskStopped, swarm.TaskFailed, swarm.TaskRejected:
		return t.Excused == "" && !t.asked() && !t.environment()
	}
	return false
}

// backoff returns how long to wait after the environment refused a task: twice
// as long as before it.
func backoff(st *seat, last *task) time.Duration {
	before := st.newest(func(t *task) bool { return t != last && t.environment() && t.Created.Before(last.Created) })
	if before == nil || st.any(func(t *task) bool {
		return t.Created.After(before.Created) && t.Created.Before(last.Created)
	}) {
		return firstBackoff
	}
	return min(max(2*last.Created.Sub(before.Status.Since), firstBackoff), lastBackoff)
}

// reason says how a task ended, for people.
func reason(t *task) string {
	if t.Status.Message != "" {
		return t.Status.Message
	}
	return t.Status.State.String()
}

// forget drops ended tasks beyond each seat's history.
func (s *step) forget() {
	for _, sv := range s.services {
		for _, st := range sv.all() {
			s.forgetSeat(sv, st)
		}
	}
}

func (s *step) forgetSeat(sv *service, st *seat) {
	limit := cmp.Or(s.view.History, historyLimit)
	if !s.rollout.Phase.Ended() {
		limit = max(limit, rolloutLimit)
	}
	for _, def := range []*swarm.Service{sv.from, sv.to} {
		if def != nil {
			limit = max(limit, min(def.Restart.MaxAttempts+1, attemptsLimit))
		}
	}

	first := slices.IndexFunc(st.tasks, func(t *task) bool { return s.failed(sv, st, t) })
	seen := 0
	for i, t := range slices.Backward(st.tasks) {
		gone := t.lost && s.node(t.Node) == nil && t.succeeded() // nobody will ever say how it ended
		switch {
		case t.live():
		case t.Desired == swarm.DesiredRemove, gone:
			s.drop(t)
		case seen < limit:
			seen++
		case i != first: // the seat's first failure says that it failed, and when
			s.drop(t)
		}
	}
}
