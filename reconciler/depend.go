package reconciler

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// blocked says which dependency the service's next step waits for, or "". On
// the way forward that is what the service depends on; on the way back, what
// depends on it.
func (s *step) blocked(sv *service) string {
	if sv.want == nil {
		return ""
	}
	if sv.back {
		return s.blockedBack(sv)
	}
	other, dependency := s.unmet(sv)
	if other == nil || sv.policy().OnFailure == swarm.FailureContinue && s.stalled(sv, other) {
		return ""
	}
	return sv.name + " waits for " + other.name + " " + words(dependency.Condition)
}

// unmet returns the first service that sv has to wait for, or nil.
func (s *step) unmet(sv *service) (*service, swarm.Dependency) {
	for _, dependency := range s.dependencies(s.content(s.rollout.To))[sv.name] {
		if other := s.service(dependency.Service); other != nil && other.want != nil && !s.met(other, dependency.Condition) {
			return other, dependency
		}
	}
	return nil, swarm.Dependency{}
}

// stalled reports whether a service has waited for another for the whole of
// its deadline while nothing of the rollout became any better. A job may run
// for as long as it likes.
func (s *step) stalled(sv, other *service) bool {
	runs := func(st *seat) bool { return s.keeper(st, other.goal()) != nil && s.tolerated(st) == nil }
	if other.ends && slices.ContainsFunc(other.seats, runs) {
		return false
	}
	progress := later(s.rollout.Began, s.rollout.Opened)
	for _, each := range s.services {
		for _, st := range each.seats {
			for _, t := range st.tasks {
				if s.isNew(each, t) && (t.healthy() || each.ends && t.Status.State == swarm.TaskComplete) {
					progress = later(progress, t.Status.Since)
				}
			}
		}
	}
	due := progress.Add(deadline(sv))
	s.ask(due)
	return !s.now.Before(due)
}

// waitedInVain returns the failure of a service that waited in vain, or nil.
func (s *step) waitedInVain(sv *service) *failure {
	if sv.back || sv.want == nil || s.rollout.Touched.IsZero() && (s.refusal() != "" || !s.beganAny()) {
		return nil
	}
	other, dependency := s.unmet(sv)
	if other == nil || !s.stalled(sv, other) {
		return nil
	}
	for _, st := range sv.seats {
		if s.dirty(st) && !s.begun(st) {
			why := fmt.Sprintf("%s waited %s for %s %s", st.name(), deadline(sv), other.name, words(dependency.Condition))
			return &failure{seat: st, at: s.now, why: why, environment: !other.changed()}
		}
	}
	return nil
}

func words(condition swarm.Condition) string {
	switch condition {
	case swarm.ServiceHealthy:
		return "to be healthy"
	case swarm.ServiceCompleted:
		return "to complete"
	}
	return "to start"
}

func (s *step) blockedBack(sv *service) string {
	for _, other := range s.services {
		if other == sv || !other.back || other.want == nil || !s.dependsOn(other, sv) {
			continue
		}
		for _, st := range other.seats {
			if done, _ := s.done(st); !done && !st.late {
				return sv.name + " waits for " + other.name + " to go back"
			}
		}
	}
	return ""
}

// met reports whether every seat of a service meets the condition, with what
// it must be now.
func (s *step) met(sv *service, condition swarm.Condition) bool {
	return !slices.ContainsFunc(sv.seats, func(st *seat) bool { return !st.late && !s.seatMet(st, condition) })
}

func (s *step) seatMet(st *seat, condition swarm.Condition) bool {
	goal := st.service.goal()
	complete := s.satisfied(st, goal) || st.service.ends && s.idle(st.service) && s.lastOf(st, goal) == nil
	keeper := cmp.Or(s.mover(st, goal), s.keeper(st, goal))
	switch {
	case complete && keeper == nil:
		return true
	case condition == swarm.ServiceCompleted, keeper == nil:
		return false
	case condition == swarm.ServiceHealthy:
		return keeper.healthy()
	}
	return keeper.Status.State.Running()
}

func (s *step) service(name string) *service {
	for _, sv := range s.services {
		if sv.name == name {
			return sv
		}
	}
	return nil
}

// dependsOn reports whether a depends on b in the content that the stack comes
// from or goes to.
func (s *step) dependsOn(a, b *service) bool {
	for _, stack := range []*swarm.Stack{s.view.Healthy, s.content(s.rollout.To)} {
		if slices.ContainsFunc(s.dependencies(stack)[a.name], func(d swarm.Dependency) bool { return d.Service == b.name }) {
			return true
		}
	}
	return false
}

// needed reports whether a service that must go has to wait for another that
// depends on it and is still there.
func (s *step) needed(sv *service) bool {
	return slices.ContainsFunc(s.services, func(other *service) bool {
		present := slices.ContainsFunc(other.all(), func(st *seat) bool { return st.any((*task).live) })
		return other != sv && present && (other.want == nil || s.view.Record.Removing) && s.dependsOn(other, sv)
	})
}

// dependencies returns what each service of a stack depends on.
func (s *step) dependencies(stack *swarm.Stack) map[string][]swarm.Dependency {
	if s.edges[stack] == nil {
		s.edges[stack] = acyclic(stack)
	}
	return s.edges[stack]
}

// acyclic returns what each service of a stack depends on. A dependency that
// would close a circle is left out: a corrupt record must not wait for itself.
func acyclic(stack *swarm.Stack) map[string][]swarm.Dependency {
	edges := make(map[string][]swarm.Dependency)
	if stack == nil {
		return edges
	}
	services := make(map[string]swarm.Service, len(stack.Services))
	for _, service := range stack.Services {
		services[service.Name] = service
	}
	const open, closed = 1, 2
	visited := make(map[string]int)

	var visit func(name string)
	visit = func(name string) {
		visited[name] = open
		for _, dependency := range services[name].DependsOn {
			if visited[dependency.Service] == 0 {
				visit(dependency.Service)
			}
			if visited[dependency.Service] == closed {
				edges[name] = append(edges[name], dependency)
			}
		}
		visited[name] = closed
	}
	for _, service := range stack.Services {
		if visited[service.Name] == 0 {
			visit(service.Name)
		}
	}
	return edges
}
