package reconciler

import (
	"github.com/gitswarm/gitswarm/swarm"
)

// ends reports whether the service's tasks are meant to end: it is a job, or
// another service waits for it to complete.
func (s *step) ends(sv *service) bool {
	if sv.want != nil && sv.want.Mode.Job() {
		return true
	}
	stack := s.content(s.rollout.To)
	if sv.want == nil || sv.back || s.rollout.Phase == swarm.PhaseHealthy || s.rollout.Phase == swarm.PhaseRolledBack {
		stack = s.view.Healthy
	}
	return stack != nil && awaited(stack, sv.name)
}

// awaited reports whether a service of the stack waits for name to complete.
func awaited(stack *swarm.Stack, name string) bool {
	for _, service := range stack.Services {
		for _, dependency := range service.DependsOn {
			if dependency.Service == name && dependency.Condition == swarm.ServiceCompleted {
				return true
			}
		}
	}
	return false
}

// idle reports whether a job has no reason to run: it ran when its spec last
// changed and when it was last asked to, or the stack goes back.
func (s *step) idle(sv *service) bool {
	switch {
	case !sv.ends:
		return false
	case sv.back, s.rollout.Phase == swarm.PhaseRolledBack && sv.generation <= sv.reached():
		return true
	case sv.generation > sv.reached():
		return false
	}
	return !sv.changed()
}

// startsAnew reports whether a seat that has nothing to restart may be filled.
func (s *step) startsAnew(st *seat) bool {
	sv := st.service
	if !s.idle(sv) {
		return true
	}
	newNode := sv.want.Mode == swarm.GlobalJob && len(st.tasks) == 0
	return newNode && !sv.back && s.rollout.Phase != swarm.PhaseRolledBack
}

// restsAfter reports whether the seat is a job's, and the job is not to run
// there: it goes back, or has no reason to run and nothing to try again.
func (s *step) restsAfter(st *seat, g target, fresh bool) bool {
	if !st.service.ends {
		return false
	}
	last := s.lastOf(st, g)
	return st.service.back || s.rollout.Phase == swarm.PhaseRolledBack || !fresh && (last == nil || last.asked())
}

// satisfied reports whether the seat's last task ended, and that is all that
// the target asks of it.
func (s *step) satisfied(st *seat, g target) bool {
	last := s.lastOf(st, g)
	return last != nil && last.Status.State == swarm.TaskComplete && mayComplete(st.service, g.def)
}

// mayComplete reports whether a task of the service that exits 0 has done what
// it was asked.
func mayComplete(sv *service, def *swarm.Service) bool {
	return sv.ends || def.Restart.Condition == swarm.RestartNone || def.Restart.Condition == swarm.RestartOnFailure
}

// lastOf returns the seat's newest task if it ended, or is gone, and was what
// the target asks for. Beside a task that must be replaced, only what the
// rollout itself brought counts.
func (s *step) lastOf(st *seat, g target) *task {
	if g.def == nil {
		return nil
	}
	matches := func(t *task) bool { return t.Spec == g.def.Spec && t.Generation == g.generation }
	last := st.newest(func(t *task) bool { return !t.staying() && (t.began() || matches(t)) })
	if last == nil || last.live() || !matches(last) || s.forgiven(st.service, last) {
		return nil
	}
	if st.any((*task).staying) && !s.isNew(st.service, last) {
		return nil
	}
	return last
}

// forgiven reports whether the task ended before the rollout that tries its
// spec again.
func (s *step) forgiven(sv *service, t *task) bool {
	return s.bygone(sv, t) && (t.Status.State != swarm.TaskComplete || !mayComplete(sv, sv.to))
}

// bygone reports whether the task ended before the running rollout brought its
// service another spec, or the same once more.
func (s *step) bygone(sv *service, t *task) bool {
	brought := sv.changed() && !s.rollout.Phase.Ended() && t.Spec == sv.to.Spec
	return brought && (t.Rollout == 0 || endedBefore(t, s.rollout.Began))
}

// hardToUndo returns the name of a job that completed in this rollout and was
// not declared reversible, or "".
func (s *step) hardToUndo(groups map[string]bool) string {
	for _, sv := range s.services {
		if !sv.ends || sv.to == nil || sv.to.Reversible || !sv.changed() || !groups[group(sv)] {
			continue
		}
		for _, st := range sv.all() {
			if st.any(func(t *task) bool {
				return t.Status.State == swarm.TaskComplete && t.Rollout == s.rollout.ID && t.Spec == sv.to.Spec
			}) {
				return sv.name
			}
		}
	}
	return ""
}
