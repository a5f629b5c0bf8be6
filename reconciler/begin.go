package reconciler

import (
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// begin starts a rollout where one is due. A running one is superseded: what
// it left half done is taken over where it stands.
func (s *step) begin() {
	if s.view.Record.Suspended != "" {
		return
	}
	to, due := s.due()
	if !due {
		s.adopt()
		return
	}

	old, reason := s.rollout, s.askedFor(to)
	if old.ID != 0 && !old.Phase.Ended() {
		old.Phase = swarm.PhaseSuperseded
		s.end(old)
		s.happened("rollout", nil, old.To.Revision.Short()+" was superseded by "+to.Revision.Short())
	}
	s.rollout = swarm.Rollout{
		ID: old.ID + 1, From: s.view.Record.Healthy, To: to,
		Phase: swarm.PhaseProgressing, Began: s.now, Operator: reason,
	}
	s.load()
	s.countDirty(func(*service) bool { return true })
	if s.beganAny() { // taken over from the superseded one
		s.touch()
	}
	s.happened("rollout", nil, strings.TrimSuffix(to.Revision.Short()+": "+reason, ": ")+" began")
}

// askedFor says why content that is there already is rolled out once more, or
// "": it is not.
func (s *step) askedFor(to swarm.Rendered) string {
	if to.Content != s.view.Record.Healthy.Content || to.Content != s.rollout.To.Content {
		return ""
	}
	var restarted []string
	for _, sv := range s.services {
		if sv.generation > sv.reached() {
			restarted = append(restarted, sv.name)
		}
	}
	if len(restarted) == 0 {
		return "what runs is not what must"
	}
	return "restart of " + strings.Join(restarted, ", ")
}

// due returns what to roll out now, if anything.
func (s *step) due() (swarm.Rendered, bool) {
	r, accepted := s.rollout, s.view.Record.Accepted
	refused := accepted.Content == "" || s.quarantined(accepted.Content)
	if r.ID == 0 || r.Phase == swarm.PhaseSuperseded || accepted.Content != r.To.Content && !refused {
		return accepted, !refused
	}

	switch r.Phase {
	case swarm.PhasePaused:
		if r.From.Content == r.To.Content {
			return r.To, s.restartAsked()
		}
		return accepted, !refused && s.waited() // `retry` lifted the quarantine
	case swarm.PhaseFailed, swarm.PhaseRolledBack:
		if !refused {
			return accepted, s.waited() // likewise
		}
	}
	if r.Phase == swarm.PhaseHealthy || r.Phase == swarm.PhaseRolledBack {
		return s.view.Record.Healthy, s.view.Healthy != nil && s.differs()
	}
	return accepted, false
}

func (s *step) quarantined(content swarm.Digest) bool {
	return slices.ContainsFunc(s.view.Record.Quarantine, func(q swarm.Quarantined) bool { return q.Content == content })
}

// waited reports whether the environment was given time to change.
func (s *step) waited() bool {
	s.ask(s.rollout.Again)
	return !s.now.Before(s.rollout.Again)
}

// restartAsked reports whether an operator asked for a restart that no task
// knows of yet.
func (s *step) restartAsked() bool {
	return slices.ContainsFunc(s.services, func(sv *service) bool { return sv.generation > sv.reached() })
}

// reached returns the highest generation among the service's tasks.
func (sv *service) reached() (highest uint64) {
	for _, st := range sv.all() {
		for _, t := range st.tasks {
			highest = max(highest, t.Generation)
		}
	}
	return highest
}

// differs reports whether a stack that has converged needs a rollout to stay
// as it is: a restart was asked for, or something else runs.
func (s *step) differs() bool {
	return slices.ContainsFunc(s.services, func(sv *service) bool {
		return slices.ContainsFunc(sv.seats, func(st *seat) bool { return s.dirty(st) && !s.vacant(st) })
	})
}

// dirty reports whether the seat has not got what it must have.
func (s *step) dirty(st *seat) bool {
	goal := st.service.goal()
	switch {
	case s.keeper(st, goal) != nil || s.satisfied(st, goal):
		return false
	case st.service.ends:
		return !s.idle(st.service) || st.any((*task).staying)
	}
	return true
}

// vacant reports whether nothing would have to go for the seat to be filled.
func (s *step) vacant(st *seat) bool {
	return !st.service.ends && !st.any((*task).staying)
}

// countDirty notes how many seats of the services differ: the base of
// max_failure_ratio.
func (s *step) countDirty(of func(*service) bool) {
	for _, sv := range s.services {
		if !of(sv) {
			continue
		}
		count := 0
		for _, st := range sv.seats {
			if s.dirty(st) && s.mover(st, sv.goal()) == nil {
				count++
			}
		}
		delete(s.rollout.Dirty, sv.name)
		if count > 0 {
			if s.rollout.Dirty == nil {
				s.rollout.Dirty = make(map[string]int)
			}
			s.rollout.Dirty[sv.name] = count
		}
	}
}

// adopt follows a commit that changed nothing of the content.
func (s *step) adopt() {
	accepted := s.view.Record.Accepted
	if accepted.Content == "" || accepted.Content != s.rollout.To.Content || accepted.Revision == s.rollout.To.Revision {
		return
	}

	switch s.rollout.Phase {
	case swarm.PhaseWaiting, swarm.PhaseProgressing, swarm.PhaseRollingBack:
		s.rollout.To = accepted
	case swarm.PhaseHealthy:
		s.rollout.To = accepted
		s.decision.Healthy = &accepted
		s.happened("rollout", nil, accepted.Revision.Short()+" is healthy: it changed no container")
	}
}
