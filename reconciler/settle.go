package reconciler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// done reports whether the seat has become what it must be, and since when
// what the rollout brought has proved itself; zero if it brought nothing.
func (s *step) done(st *seat) (bool, time.Time) {
	sv, goal := st.service, st.service.goal()
	if mover := s.mover(st, goal); mover != nil { // its place is wrong, and nothing else
		return s.proven(sv, mover)
	}
	keeper := s.keeper(st, goal)
	for _, t := range st.tasks {
		if t != keeper && t.live() && !s.overdue(st, t) {
			return false, time.Time{}
		}
	}
	if f := s.tolerated(st); f != nil {
		return true, f.at
	}

	last := s.lastOf(st, goal)
	switch {
	case keeper != nil && sv.ends:
		return !s.isNew(sv, keeper), time.Time{}
	case keeper != nil:
		return s.proven(sv, keeper)
	case s.satisfied(st, goal):
		return true, time.Time{}
	case sv.ends:
		return s.idle(sv), time.Time{}
	}
	return last != nil && !last.asked() && !s.isNew(sv, last), time.Time{}
}

// proven reports whether a task has been healthy for as long as its service's
// policy asks. A new leader has not watched: the window counts from its term.
func (s *step) proven(sv *service, t *task) (bool, time.Time) {
	if !s.isNew(sv, t) {
		return true, time.Time{}
	}
	if !t.healthy() {
		return false, time.Time{}
	}
	until := later(t.Status.Healthy, s.rollout.Opened).Add(sv.policy().Monitor)
	s.ask(until)
	return !s.now.Before(until), until
}

// cleared lets what is no longer wanted go, once all else has settled, and
// reports whether it has gone.
func (s *step) cleared() bool {
	if s.settled() {
		return s.sweep()
	}
	for _, sv := range s.services {
		s.leaveRest(sv)
	}
	return false
}

// settled reports whether every seat that must be there has become what it
// must be.
func (s *step) settled() bool {
	if s.decision.Ended != nil || len(s.decision.Create) > 0 {
		return false
	}
	for _, sv := range s.services {
		for _, st := range sv.seats {
			if done, _ := s.done(st); !done && !st.late {
				return false
			}
		}
	}
	return true
}

// sweep removes what is no longer wanted, and reports whether it is gone:
// services that others depend on go last.
func (s *step) sweep() bool {
	clean := true
	for _, sv := range s.services {
		for _, st := range sv.kept {
			s.pushGoers(st)
		}
		if sv.want == nil && s.needed(sv) {
			clean = false
			continue
		}
		for _, st := range sv.extra {
			clean = s.discard(st) && clean
		}
		if len(sv.extra) > 0 && sv.want == nil && s.goesNow(sv) {
			s.happened("rollout", nil, sv.name+" was removed")
		}
	}
	return clean
}

// discard empties a seat that is not wanted, and reports whether it is empty.
// What a revision that failed had added keeps its logs: somebody will ask.
func (s *step) discard(st *seat) bool {
	if st.service.back || s.rollout.Phase == swarm.PhaseRolledBack && st.service.to != nil {
		s.pushAll(st)
		return !st.any((*task).live)
	}
	s.clear(st)
	return len(st.tasks) == 0
}

// goesNow reports whether this step removes the last of a service.
func (s *step) goesNow(sv *service) bool {
	for _, st := range sv.extra {
		for _, t := range st.tasks {
			if !slices.Contains(s.decision.Forget, t.ID) {
				return false
			}
		}
	}
	return true
}

// succeed ends the rollout: the stack has converged on its target.
func (s *step) succeed() {
	r := &s.rollout
	r.Why = s.shortfall()
	if !s.finish(swarm.PhaseHealthy) {
		return
	}
	to := r.To
	s.decision.Healthy = &to
	text := to.Revision.Short() + " is healthy"
	if r.Why != "" {
		text += ": " + r.Why
	}
	s.happened("rollout", nil, text)
}

// shortfall says which failures were tolerated, or "".
func (s *step) shortfall() string {
	var seats []string
	for _, sv := range s.services {
		for _, st := range sv.seats {
			if f := s.tolerated(st); f != nil {
				seats = append(seats, f.why)
			}
		}
	}
	if len(seats) == 0 {
		return ""
	}
	return fmt.Sprintf("tolerated %s", strings.Join(seats, ", "))
}
