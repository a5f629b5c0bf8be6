package reconciler

import (
	"cmp"
	"fmt"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// failure is what makes a rollout fail.
type failure struct {
	seat        *seat
	at          time.Time
	why         string
	environment bool // nothing but the environment is to blame
}

// isNew reports whether the rollout brought the task, or took it over from the
// one that it superseded: its end, and its health, are the rollout's.
func (s *step) isNew(sv *service, t *task) bool {
	r := s.rollout
	if r.Phase.Ended() || t.Rollout == 0 || sv.want == nil {
		return false
	}
	if t.Spec != sv.want.Spec || t.Generation != sv.generation {
		return false
	}
	if sv.back {
		return t.Rollout == r.ID && !t.Created.Before(r.Turned)
	}
	takenOver := sv.changed() && t.Desired <= swarm.DesiredRun && !endedBefore(t, r.Began)
	return t.Rollout == r.ID || takenOver
}

// failed reports whether the task's end is a failure of the rollout's content.
func (s *step) failed(sv *service, st *seat, t *task) bool {
	since := s.rollout.Began
	if sv.back {
		since = s.rollout.Turned
	}
	if st.late || t.lost || !s.isNew(sv, t) || !byItself(t) || endedBefore(t, since) {
		return false
	}
	switch t.Status.State {
	case swarm.TaskStopped: // by somebody who may
		return false
	case swarm.TaskComplete:
		return !mayComplete(sv, sv.want)
	}
	return true
}

// endedBefore reports whether a task had ended when something was begun, which
// may have been in the same instant.
func endedBefore(t *task, begun time.Time) bool {
	return !t.Status.State.Live() && t.Created.Before(begun) && !t.Status.Since.After(begun)
}

// tolerated returns the seat's failure in this rollout, or nil. That the
// rollout goes on says that it is tolerated. A job that may be tried again has
// not failed yet.
func (s *step) tolerated(st *seat) *failure {
	sv := st.service
	if s.rollout.Phase.Ended() || sv.want == nil || st.late || sv.ends && s.satisfied(st, sv.goal()) {
		return nil
	}

	var first, last *task
	count := 0
	for _, t := range st.tasks {
		if s.failed(sv, st, t) {
			first, last = cmp.Or(first, t), t
			count++
		}
	}
	spare := 0
	if sv.ends && sv.want.Restart.Condition != swarm.RestartNone {
		spare = sv.want.Restart.MaxAttempts
	}
	if last != nil && (count > spare || !s.restarts(st, sv.goal(), last)) {
		return &failure{seat: st, at: first.Status.Since, why: st.name() + " " + reason(last)}
	}
	return s.overtime(st)
}

// overtime returns the failure of a seat that was not healthy within its
// deadline, or nil.
func (s *step) overtime(st *seat) *failure {
	sv := st.service
	first, last := s.trial(st)
	if last == nil || last.healthy() {
		return nil
	}
	due := first.Add(deadline(sv))
	s.ask(due)
	if s.now.Before(due) {
		return nil
	}

	f := &failure{seat: st, at: due, why: fmt.Sprintf("%s was not healthy within %s", st.name(), deadline(sv))}
	if !last.Status.State.Running() {
		f.environment = true
		f.why += ": " + reason(last)
	}
	return f
}

// deadline is how long a new task of the service may take to be healthy.
func deadline(sv *service) time.Duration {
	if sv.want.Deadline > 0 {
		return sv.want.Deadline
	}
	return defaultDeadline
}

// trial returns since when the seat tries to become healthy in this rollout,
// and its newest task that does. Before the rollout touched anything, time is
// not counted; nor while an old task takes its time to stop.
func (s *step) trial(st *seat) (first time.Time, last *task) {
	for _, t := range st.tasks {
		if !s.isNew(st.service, t) || t.Excused != "" || t.lost || t.asked() {
			continue
		}
		since := t.Touched
		if since.IsZero() {
			if s.rollout.Touched.IsZero() || st.any(func(old *task) bool { return old.live() && old.asked() }) {
				continue
			}
			since = later(later(t.Created, s.rollout.Touched), t.NotBefore)
		}
		since = later(since, s.rollout.Began)
		switch {
		case t.live():
		case t.environment() && t.Status.Healthy.IsZero():
		default: // it ended: its successor has its own time
			first, last = time.Time{}, nil
			continue
		}
		if last == nil {
			first = since
		}
		last = t
	}
	return first, last
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// judge returns the first failure that its service does not tolerate, or nil.
func (s *step) judge() *failure {
	var worst *failure
	for _, sv := range s.services {
		f := s.judgeService(sv)
		if f != nil && (worst == nil || f.at.Before(worst.at)) {
			worst = f
		}
	}
	return worst
}

func (s *step) judgeService(sv *service) *failure {
	var first *failure
	count, environment := s.rollout.Failed[sv.name], true
	for _, st := range sv.seats {
		f := s.tolerated(st)
		if f == nil {
			continue
		}
		count++
		environment = environment && f.environment
		if first == nil || f.at.Before(first.at) {
			first = f
		}
	}

	policy := sv.policy()
	if policy.OnFailure == swarm.FailureContinue {
		return nil
	}
	if first == nil {
		return s.waitedInVain(sv)
	}
	if float64(count)/float64(max(1, s.rollout.Dirty[sv.name])) <= policy.MaxFailureRatio {
		return nil
	}
	first.environment = environment
	return first
}
