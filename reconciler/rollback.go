package reconciler

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// group returns the rollback group of a service.
func group(sv *service) string {
	switch {
	case sv.to != nil:
		return sv.to.RollbackGroup
	case sv.from != nil:
		return sv.from.RollbackGroup
	}
	return ""
}

// goesBack reports whether the service is among those that roll back.
func (s *step) goesBack(sv *service) bool {
	return s.rollout.Groups == nil || slices.Contains(s.rollout.Groups, group(sv))
}

// groups returns the stack's rollback groups, sorted.
func (s *step) groups() []string {
	groups := make(map[string]bool)
	for _, sv := range s.services {
		if sv.to != nil || sv.from != nil {
			groups[group(sv)] = true
		}
	}
	return slices.Sorted(maps.Keys(groups))
}

// fail does what the failing service's policy says.
func (s *step) fail(f *failure) {
	sv, r := f.seat.service, &s.rollout
	r.Why, r.FailedBy = f.why, f.seat.name()
	if !sv.back {
		s.happened("rollout", nil, r.To.Revision.Short()+" failed: "+f.why)
	}

	switch {
	case sv.back:
		r.Why = "rollback failed: " + f.why
		f.environment = false // who goes back and cannot does not try again by himself
		s.lose(f)
	case sv.policy().OnFailure == swarm.FailurePause:
		s.pause(f)
	case s.view.Healthy == nil:
		s.lose(f)
	case r.From.Content == r.To.Content:
		r.Why += "; nothing to go back to: use gitswarm restart, or push a commit"
		s.pause(f)
	default:
		s.turn(f)
	}
}

// mark refuses the rollout's content from now on, unless the environment alone
// is to blame: then it is tried again later. What was healthy before is never
// refused.
func (s *step) mark(environment bool) {
	r := &s.rollout
	r.Again = time.Time{}
	switch {
	case r.From.Content == r.To.Content:
	case environment:
		r.Again = s.now.Add(environmentWait)
	default:
		s.decision.Quarantine = &swarm.Quarantined{Content: r.To.Content, Revision: r.To.Revision, Why: r.Why, At: s.now}
	}
}

// pause stops where the rollout is, until a person or a commit goes on.
func (s *step) pause(f *failure) {
	s.mark(f.environment)
	s.rollout.Phase = swarm.PhasePaused
	s.happened("rollout", nil, s.rollout.To.Revision.Short()+" was paused: "+s.rollout.Why)
}

// lose ends the rollout as failed. What runs is left running.
func (s *step) lose(f *failure) {
	s.mark(f.environment)
	s.finish(swarm.PhaseFailed)
	s.happened("rollout", nil, s.rollout.To.Revision.Short()+" ended as failed: "+s.rollout.Why)
}

// turn sends the failing service's group back to the healthy content.
func (s *step) turn(f *failure) {
	r := &s.rollout
	turned := map[string]bool{group(f.seat.service): true}
	for _, name := range r.Groups {
		turned[name] = true
	}
	s.involve(turned)
	if job := s.hardToUndo(turned); job != "" {
		r.Why += "; not rolled back: " + job + " has completed and is not declared x-gitswarm.reversible"
		s.pause(f)
		return
	}

	// Again, while it is set, says that the environment alone was to blame.
	if first := r.Turned.IsZero(); first && f.environment {
		r.Again = s.now.Add(environmentWait)
	} else if !f.environment {
		r.Again = time.Time{}
	}
	if r.Turned.IsZero() {
		r.Turned = s.now
	}
	before := slices.Clone(r.Groups)
	r.Phase, r.Groups = swarm.PhaseRollingBack, slices.Sorted(maps.Keys(turned))
	if len(turned) == len(s.groups()) {
		r.Groups = nil
	}

	s.load()
	s.countDirty(func(sv *service) bool { return sv.back && !slices.Contains(before, group(sv)) })
	s.happened("rollout", nil, r.To.Revision.Short()+" began to roll back to "+r.From.Revision.Short())
}

// involve adds the groups whose services still wait for a service that goes
// back.
func (s *step) involve(turned map[string]bool) {
	for range s.services {
		for _, sv := range s.services {
			if turned[group(sv)] || sv.want == nil || !slices.ContainsFunc(sv.seats, s.dirty) {
				continue
			}
			other, _ := s.unmet(sv)
			if other != nil && turned[group(other)] {
				turned[group(sv)] = true
			}
		}
	}
}

// rollBack takes the stack one step back: what depends on others first,
// services that the revision added last. Groups that do not go back go on.
func (s *step) rollBack() {
	if f := s.judge(); f != nil {
		s.fail(f)
		return
	}
	for _, sv := range s.services {
		s.roll(sv, s.blocked(sv))
	}
	if s.cleared() {
		s.wentBack()
	}
}

// wentBack ends the rollback: the stack has converged on what was healthy.
func (s *step) wentBack() {
	if !s.finish(swarm.PhaseRolledBack) {
		return
	}
	s.mark(!s.rollout.Again.IsZero())
	r := s.rollout
	if r.Groups != nil && s.view.Healthy != nil && s.content(r.To) != nil {
		s.decision.Settle = s.mixed()
		s.decision.Healthy = &swarm.Rendered{
			Revision: r.From.Revision, Author: r.From.Author, Subject: r.From.Subject, Committed: r.From.Committed,
		}
	}
	s.happened("rollout", nil, r.To.Revision.Short()+" was rolled back to "+r.From.Revision.Short()+": "+r.Why)
}

// mixed is the content that runs after some groups went back: their services
// as they were, the others as the revision has them.
func (s *step) mixed() *swarm.Stack {
	from, to := s.view.Healthy, s.content(s.rollout.To)
	mixed := swarm.Stack{Name: to.Name, Was: to.Was}
	for _, sv := range s.services {
		if sv.want != nil {
			mixed.Services = append(mixed.Services, *sv.want)
		}
	}
	mixed.Networks = union(to.Networks, from.Networks, func(n swarm.Network) string { return n.Name })
	mixed.Volumes = union(to.Volumes, from.Volumes, func(v swarm.Volume) string { return v.Name })
	return &mixed
}

// union returns a and what only b has, by name.
func union[T any](a, b []T, name func(T) string) []T {
	both := slices.Clone(a)
	for _, item := range b {
		if !slices.ContainsFunc(a, func(other T) bool { return name(other) == name(item) }) {
			both = append(both, item)
		}
	}
	slices.SortFunc(both, func(a, b T) int { return strings.Compare(name(a), name(b)) })
	return both
}
