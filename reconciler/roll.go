package reconciler

import (
	"cmp"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// progress takes the stack one step towards the rollout's target: replicas
// first, what is no longer wanted last.
func (s *step) progress() {
	if f := s.judge(); f != nil {
		s.fail(f)
		return
	}
	if len(s.view.Obstacles) > 0 && s.rollout.Touched.IsZero() {
		s.wait(strings.Join(s.view.Obstacles, "; "))
		return
	}

	waits := ""
	for _, sv := range s.services {
		waits = cmp.Or(waits, s.roll(sv, s.blocked(sv)))
	}
	s.noteJobs()
	if s.cleared() {
		s.succeed()
		return
	}
	s.show(waits)
}

// noteJobs remembers which jobs the rollout has completed.
func (s *step) noteJobs() {
	for _, sv := range s.services {
		if !sv.ends || len(sv.seats) == 0 || !sv.changed() || s.rollout.Jobs[sv.name] != "" {
			continue
		}
		if slices.ContainsFunc(sv.seats, func(st *seat) bool { return !s.satisfied(st, sv.goal()) }) {
			continue
		}
		if s.rollout.Jobs == nil {
			s.rollout.Jobs = make(map[string]swarm.Phase)
		}
		s.rollout.Jobs[sv.name] = swarm.PhaseHealthy
		s.happened("rollout", nil, sv.name+" completed")
	}
}

// show says what the rollout waits for. Until it touched something and while
// the environment refuses, it is waiting.
func (s *step) show(waits string) {
	refused := s.refusal()
	if why := cmp.Or(refused, waits); s.rollout.Touched.IsZero() && why != "" && (refused != "" || !s.beganAny()) {
		s.waiting(why)
		return
	}
	s.rollout.Phase = swarm.PhaseProgressing
	s.rollout.Why = cmp.Or(refused, waits)
}

// beganAny reports whether the rollout has brought any seat a task.
func (s *step) beganAny() bool {
	return len(s.decision.Create) > 0 || slices.ContainsFunc(s.services, func(sv *service) bool {
		return slices.ContainsFunc(sv.seats, s.begun)
	})
}

func (s *step) waiting(why string) {
	if s.rollout.Phase != swarm.PhaseWaiting || s.rollout.Why != why {
		s.happened("rollout", nil, s.rollout.To.Revision.Short()+" waited: "+why)
	}
	s.rollout.Phase, s.rollout.Why = swarm.PhaseWaiting, why
}

// wait touches nothing of the rollout; what runs is kept running.
func (s *step) wait(why string) {
	s.waiting(why)
	for _, sv := range s.services {
		for _, st := range sv.seats {
			prepared := st.any(func(t *task) bool { return s.isNew(sv, t) && t.staying() })
			if prepared && s.serves(st) {
				continue // the obstacle may be this very task
			}
			s.tend(st, s.own(st), false)
		}
		s.leaveRest(sv)
	}
}

// serves reports whether a task of the seat is healthy and stays.
func (s *step) serves(st *seat) bool {
	return st.any(func(t *task) bool { return t.staying() && t.healthy() })
}

// refusal says why the environment keeps a seat of the rollout from being
// prepared, or "".
func (s *step) refusal() string {
	for _, sv := range s.services {
		for _, st := range sv.seats {
			if sv.want == nil || st.late {
				continue
			}
			last := st.newest(func(t *task) bool { return s.isNew(sv, t) })
			if last == nil || last.live() && last.Status.State >= swarm.TaskPrepared {
				continue
			}
			refused := st.newest(func(t *task) bool { return s.isNew(sv, t) && t.environment() })
			if refused != nil && (last == refused || last.Replaces == refused.ID) {
				return st.name() + ": " + reason(refused)
			}
		}
	}
	return ""
}

// roll tends every seat of a service: those whose turn it is towards the goal,
// the others as they are. It returns what the service waits for.
func (s *step) roll(sv *service, blocked string) string {
	turns := map[*seat]bool{}
	if blocked == "" {
		turns = s.turns(sv)
	}
	waits := false
	for _, st := range sv.seats {
		if s.mine(st, turns[st], blocked == "") {
			s.tend(st, sv.goal(), s.startsAnew(st))
			continue
		}
		waits = true
		s.tend(st, s.own(st), false)
	}
	if waits {
		return blocked
	}
	return ""
}

// mine reports whether the rollout tends the seat: it is what it must be, it
// was begun, it has its turn, or there is nothing in it to be careful with.
func (s *step) mine(st *seat, turn, free bool) bool {
	switch {
	case turn, s.begun(st), s.keeper(st, st.service.goal()) != nil:
		return true
	case s.lastOf(st, st.service.goal()) != nil:
		return true
	case !free:
		return false
	}
	return st.service.ends || !s.hasOwn(st)
}

// begun reports whether the rollout has brought the seat a task.
func (s *step) begun(st *seat) bool {
	return st.any(func(t *task) bool { return s.isNew(st.service, t) })
}

// turns picks the seats that may be replaced now: never more than parallelism
// are between their first touch and the end of their monitor and delay, empty
// ones that start included. Seats that do not serve come first.
func (s *step) turns(sv *service) map[*seat]bool {
	picked := make(map[*seat]bool)
	if sv.want == nil {
		return picked
	}
	busy := 0
	var due []*seat
	for _, st := range sv.seats {
		switch {
		case st.late:
		case s.begun(st):
			busy += number(s.busy(st))
		case s.keeper(st, sv.goal()) != nil:
		case s.hasOwn(st):
			due = append(due, st)
		case s.lastOf(st, sv.goal()) == nil: // empty: it starts now
			busy++
		}
	}

	free := len(due)
	if parallelism := sv.policy().Parallelism; parallelism > 0 && !sv.ends {
		free = min(free, max(0, parallelism-busy))
	}
	slices.SortStableFunc(due, func(a, b *seat) int {
		return cmp.Or(cmp.Compare(number(s.serves(a)), number(s.serves(b))), bySeat(a, b))
	})
	for _, st := range due[:free] {
		picked[st] = true
	}
	return picked
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// busy reports whether a seat that was begun still holds back the next one.
func (s *step) busy(st *seat) bool {
	done, at := s.done(st)
	if !done {
		return true
	}
	if at.IsZero() {
		return false
	}
	release := at.Add(st.service.policy().Delay)
	s.ask(release)
	return s.now.Before(release)
}
