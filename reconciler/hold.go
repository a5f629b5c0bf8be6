package reconciler

import (
	"github.com/gitswarm/gitswarm/swarm"
)

// hold keeps every seat as it is: what was begun is finished, what ends is
// restarted as what it was, and nothing else of the rollout is touched.
func (s *step) hold() {
	for _, sv := range s.services {
		for _, st := range sv.seats {
			if s.rollout.Phase == swarm.PhaseFailed && s.hopeless(st) {
				s.pushGoers(st)
				continue
			}
			s.tend(st, s.own(st), false)
		}
		s.leaveRest(sv)
	}
}

// leaveRest keeps the seats that are not wanted, or not wanted now, as they
// are. One that began to go goes on.
func (s *step) leaveRest(sv *service) {
	for _, st := range sv.kept {
		s.pushGoers(st)
	}
	for _, st := range sv.extra {
		switch {
		case !st.any((*task).staying) && st.any((*task).asked):
			s.clear(st)
		case sv.back, s.rollout.Phase == swarm.PhaseFailed: // added by what failed: it is not started again
			s.pushGoers(st)
		default:
			s.tend(st, s.own(st), false)
		}
	}
}

// hopeless reports whether the seat's task was brought by the rollout that
// failed and never proved itself, so that starting it again is no use.
func (s *step) hopeless(st *seat) bool {
	t := s.current(st)
	if t == nil || t.live() || t.lost || t.Excused != "" || t.asked() || t.Rollout != s.rollout.ID {
		return false
	}
	proven := !t.Status.Healthy.IsZero() && !s.rollout.Over.Before(t.Status.Healthy.Add(st.service.policy().Monitor))
	return !proven || t.Status.Since.Before(s.rollout.Over)
}

// current returns the task that the seat stands by: the first that holds it and
// serves, else the newest that stays, but none that is only being prepared
// beside another; where none stays, the newest that began.
func (s *step) current(st *seat) *task {
	var serves, stays, began *task
	for _, t := range st.tasks {
		if t.holding() && t.healthy() && serves == nil {
			serves = t
		}
		if t.staying() && (t.began() || stays == nil) {
			stays = t
		}
		if t.began() {
			began = t
		}
	}
	switch {
	case serves != nil:
		return serves
	case stays != nil:
		return stays
	}
	return began
}

// own returns what the seat runs, as its target. Where nobody knows any more
// what that is, a task that runs is let run, and one that ended is followed by
// what last worked.
func (s *step) own(st *seat) target {
	t := s.current(st)
	if t == nil {
		return target{}
	}
	sv := st.service
	for _, def := range []*swarm.Service{sv.want, sv.to, sv.from} {
		if def != nil && def.Spec == t.Spec {
			return target{def: def, generation: t.Generation, anywhere: true}
		}
	}
	if t.staying() {
		def := swarm.Service{Spec: t.Spec}
		return target{def: &def, generation: t.Generation, anywhere: true}
	}
	return target{def: sv.from, generation: sv.generation, anywhere: true}
}

// hasOwn reports whether the seat holds, or will hold again, something that is
// worth keeping until the rollout gets to it.
func (s *step) hasOwn(st *seat) bool {
	t, from := s.current(st), st.service.from
	switch {
	case t == nil, t.asked():
		return false
	case t.healthy() && t.holding():
		return true
	case from == nil, t.Spec != from.Spec:
		return false
	case t.holding(), t.Excused != "", t.lost, t.environment():
		return true
	}
	own := s.own(st)
	return !s.satisfied(st, own) && s.restarts(st, own, t)
}
