package reconciler

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Advance decides one step of everything that the stack needs at now. It is
// called again after each change and at Decision.AskAt; equal inputs give
// equal decisions, and a state that its decisions led to gives, sooner or
// later, an empty one.
func Advance(view View, now time.Time) swarm.Decision {
	s := newStep(view, now)
	s.excuse()

	switch {
	case view.Record.Removing:
		s.leave()
	case s.corrupt() != "":
		s.giveUp(s.corrupt())
	default:
		s.begin()
		s.run()
	}
	s.forget()

	return s.result()
}

// run does what the rollout's phase asks for.
func (s *step) run() {
	unknown := s.content(s.rollout.To) == nil // it was superseded while the stack was suspended
	if (unknown || s.view.Record.Suspended != "") && !s.rollout.Phase.Ended() {
		s.hold()
		return
	}
	switch s.rollout.Phase {
	case swarm.PhaseNone, swarm.PhaseSuperseded: // nothing was accepted yet
	case swarm.PhaseWaiting, swarm.PhaseProgressing:
		s.progress()
	case swarm.PhaseRollingBack:
		s.rollBack()
	case swarm.PhasePaused, swarm.PhaseFailed:
		s.hold()
	case swarm.PhaseHealthy, swarm.PhaseRolledBack:
		s.keep()
	}
}

// corrupt says what makes the record unusable, or "".
func (s *step) corrupt() string {
	record := s.view.Record
	switch phase := s.rollout.Phase; phase {
	case swarm.PhaseNone, swarm.PhaseWaiting, swarm.PhaseProgressing, swarm.PhasePaused, swarm.PhaseRollingBack,
		swarm.PhaseHealthy, swarm.PhaseFailed, swarm.PhaseRolledBack, swarm.PhaseSuperseded:
	default:
		return fmt.Sprintf("the stack's record has the unknown phase %q: push a commit, or use gitswarm retry %s", phase, record.Name)
	}
	missing := func(r swarm.Rendered) string {
		return fmt.Sprintf("content %q of %s is missing: push a commit that changes the stack", r.Content, r.Revision.Short())
	}
	phase := s.rollout.Phase
	needed := phase == swarm.PhaseHealthy || phase == swarm.PhaseRolledBack || phase == swarm.PhaseRollingBack
	switch {
	case record.Accepted.Content != "" && s.view.Accepted == nil:
		return missing(record.Accepted)
	case (needed || record.Healthy.Content != "") && s.view.Healthy == nil:
		return missing(record.Healthy)
	}
	return ""
}

// giveUp ends a rollout that nothing can be decided about.
func (s *step) giveUp(why string) {
	if s.rollout.Phase == swarm.PhaseFailed && s.rollout.Why == why {
		return
	}
	s.rollout.Why = why
	s.finish(swarm.PhaseFailed)
	s.happened("rollout", nil, "failed: "+why)
}

// finish ends the rollout. One decision tells of one end: while it still tells
// of the superseded rollout, the new one ends with the next.
func (s *step) finish(phase swarm.Phase) bool {
	if s.decision.Ended != nil {
		return false
	}
	s.rollout.Phase, s.rollout.Over = phase, s.now
	s.end(s.rollout)
	return true
}

func (s *step) end(r swarm.Rollout) {
	s.decision.Ended = &swarm.Ended{
		ID: r.ID, To: r.To, Phase: r.Phase, Began: r.Began, Over: s.now, Why: r.Why, Operator: r.Operator,
	}
}

// keep holds a stack at the content that it converged on: empty seats are
// filled, what ended is restarted, what is too much goes.
func (s *step) keep() {
	for _, sv := range s.services {
		for _, st := range sv.seats {
			s.giveUpMove(st)
			if s.keeper(st, sv.goal()) == nil && s.hasOwn(st) {
				s.tend(st, s.own(st), false) // waits for the rollout that a suspension holds back
				continue
			}
			s.tend(st, sv.goal(), s.startsAnew(st))
		}
		for _, st := range sv.kept {
			s.pushGoers(st)
		}
		for _, st := range sv.extra {
			s.discard(st)
		}
	}
	s.rebalance()
}

// excuse gives up the tasks that were lost, once their successors have a node:
// from then on they must go, whatever becomes of their own node. Until then
// they go on if it comes back, as those that their volumes tie to it must.
func (s *step) excuse() {
	for _, t := range s.tasks {
		if !t.lost || !t.Status.State.Live() || t.Excused != "" {
			continue
		}
		if s.node(t.Node) != nil && !t.asked() && !t.succeeded() {
			continue
		}
		t.Excused = "node lost"
		s.desire(t, max(t.Desired, swarm.DesiredStop))
		s.happened("task", t.seat, "was lost with node "+string(t.Node))
	}
}

// succeeded reports whether a younger task of the seat has a node.
func (t *task) succeeded() bool {
	return t.seat.any(func(other *task) bool { return other.Node != "" && byAge(other, t) > 0 })
}

// desire asks something of a task.
func (s *step) desire(t *task, desired swarm.Desired) {
	d := s.desires[t.ID]
	if d == nil {
		d = &swarm.Desire{Task: t.ID}
		s.desires[t.ID] = d
	}
	d.Desired, d.Excused = desired, t.Excused
	if desired == t.Desired {
		return
	}
	d.At = s.now
	if desired >= swarm.DesiredRun && t.Touched.IsZero() && t.Desired < swarm.DesiredRun {
		t.Touched = s.now
	}
	t.Desired, t.DesiredAt = desired, s.now
}

// ask wants to be called again at a time to come.
func (s *step) ask(at time.Time) {
	if at.After(s.now) && (s.decision.AskAt.IsZero() || at.Before(s.decision.AskAt)) {
		s.decision.AskAt = at
	}
}

// happened tells people. The text goes on from the seat's name, or stands
// alone.
func (s *step) happened(kind string, st *seat, text string) {
	event := swarm.Event{Kind: kind, Stack: s.view.Record.Name, Revision: s.rollout.To.Revision, Text: text}
	if st != nil {
		event.Service, event.Slot, event.Node = st.service.name, st.slot, st.node
		event.Text = st.name() + " " + text
	}
	s.decision.Events = append(s.decision.Events, event)
}

// result sorts what was decided.
func (s *step) result() swarm.Decision {
	d := s.decision
	d.Stack, d.Version = s.view.Record.Name, s.view.Record.Version
	if !reflect.DeepEqual(s.rollout, cloneRollout(s.view.Record.Rollout)) {
		d.Rollout = &s.rollout
	}
	for _, id := range slices.Sorted(maps.Keys(s.desires)) {
		d.Desire = append(d.Desire, *s.desires[id])
	}
	slices.SortFunc(d.Create, func(a, b swarm.Task) int {
		return cmp.Or(strings.Compare(string(a.Service), string(b.Service)), cmp.Compare(a.Slot, b.Slot),
			cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
	})
	slices.Sort(d.Forget)
	return d
}
