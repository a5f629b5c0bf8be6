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
	for _, stack := range []*swarm.Stack{s.view.Healthy, s.content(s.rollout.To)} {
		if stack != nil && awaited(stack, sv.name) {
			return true
		}
	}
	return false
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

// satisfied reports whether the seat's last task ended, and that is all that
// the target asks of it.
func (s *step) satisfied(st *seat, g target) bool {
	last := s.lastOf(st, g)
	if last == nil || last.Status.State != swarm.TaskComplete {
		return false
	}
	return st.service.ends || g.def.Restart.Condition == swarm.RestartNone || g.def.Restart.Condition == swarm.RestartOnFailure
}

// lastOf returns the seat's newest task if it ended, or is gone, and was what
// the target asks for.
func (s *step) lastOf(st *seat, g target) *task {
	if g.def == nil {
		return nil
	}
	matches := func(t *task) bool { return t.Spec == g.def.Spec && t.Generation == g.generation }
	last := st.newest(func(t *task) bool { return !t.staying() && (t.began() || matches(t)) })
	if last == nil || last.live() || !matches(last) || s.forgiven(st.service, last) {
		return nil
	}
	return last
}

// forgiven reports whether the task ended before the rollout that tries its
// spec again.
func (s *step) forgiven(sv *service, t *task) bool {
	return sv.changed() && !s.rollout.Phase.Ended() && t.Status.State != swarm.TaskComplete && t.Status.Since.Before(s.rollout.Began)
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
