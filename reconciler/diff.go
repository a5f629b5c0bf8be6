package reconciler

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Diff returns what separates the stack's tasks from its accepted content,
// with what operators scaled and asked to restart. The empty plan means that
// they agree; whether what runs is healthy is not its question.
func Diff(view View) swarm.Plan { return diff(view, func(*step, *seat) bool { return true }) }

// DiffContent returns the steps of Diff that are the accepted content's: without
// those of replicas that are what it asks for and only have to leave their
// nodes. They may wait for room while a rollout goes on.
func DiffContent(view View) swarm.Plan {
	return diff(view, func(s *step, st *seat) bool { return s.mover(st, st.service.goal()) == nil })
}

func diff(view View, heeds func(*step, *seat) bool) swarm.Plan {
	record := &view.Record
	record.Rollout = swarm.Rollout{From: record.Healthy, To: record.Accepted, Phase: swarm.PhaseWaiting}
	if record.Removing {
		return removal(view)
	}
	if view.Accepted == nil {
		return swarm.Plan{}
	}

	s := newStep(view, time.Time{})
	var plan swarm.Plan
	for _, sv := range s.services {
		plan.Steps = append(plan.Steps, s.diff(sv, heeds)...)
	}
	return plan
}

// removal is the plan of a stack that goes.
func removal(view View) swarm.Plan {
	if len(view.Tasks) == 0 {
		return swarm.Plan{}
	}
	return swarm.Plan{Steps: []swarm.Step{{Verb: swarm.Remove, Stack: view.Record.Name, Why: "git no longer has it"}}}
}

func (s *step) diff(sv *service, heeds func(*step, *seat) bool) []swarm.Step {
	stack := s.view.Record.Name
	if sv.want == nil {
		if len(sv.extra) == 0 {
			return nil
		}
		return []swarm.Step{{Verb: swarm.Remove, Stack: stack, Service: sv.name, Why: "the stack no longer has it"}}
	}

	var steps []swarm.Step
	for _, st := range sv.seats {
		if step, ok := s.diffSeat(st); ok && heeds(s, st) {
			steps = append(steps, step)
		}
	}
	for _, st := range sv.extra {
		if t := st.newest(func(t *task) bool { return t.live() && t.Desired < swarm.DesiredRemove }); t != nil {
			steps = append(steps, swarm.Step{
				Verb: swarm.Stop, Stack: stack, Service: sv.name, Slot: st.slot, Node: st.node, Task: t.ID, Why: "no longer wanted",
			})
		}
	}
	if what := adjusted(sv); what != "" {
		steps = append(steps, swarm.Step{Verb: swarm.Adjust, Stack: stack, Service: sv.name, Why: what + " changed"})
	}
	return steps
}

func (s *step) diffSeat(st *seat) (swarm.Step, bool) {
	step := swarm.Step{Stack: s.view.Record.Name, Service: st.service.name, Slot: st.slot, Node: st.node}
	if !s.dirty(st) {
		return step, false
	}
	if t := st.newest((*task).holding); t != nil {
		step.Verb, step.Task, step.Why = swarm.Replace, t.ID, s.difference(st, t)
		if st.service.ends && s.idle(st.service) {
			step.Verb, step.Why = swarm.Stop, "its run was superseded"
		}
		return step, true
	}

	goal := st.service.goal()
	if last := s.lastOf(st, goal); last != nil && byItself(last) && !s.restarts(st, goal, last) {
		return step, false // restart_policy leaves it ended
	}
	step.Verb, step.Why = swarm.Start, "nothing runs there"
	return step, true
}

// difference says why a task must be replaced.
func (s *step) difference(st *seat, t *task) string {
	sv := st.service
	switch {
	case t.Spec == sv.want.Spec && t.unwelcome == drained:
		return "node " + string(t.Node) + " is drained"
	case t.Spec == sv.want.Spec && t.Generation != sv.generation:
		return "a restart was asked for"
	case t.Spec == sv.want.Spec:
		return "node " + string(t.Node) + " no longer fits"
	case sv.from == nil || t.Spec != sv.from.Spec:
		return "its container differs"
	case sv.from.Task.Image != sv.want.Task.Image:
		return "image " + sv.from.Task.Image + " becomes " + sv.want.Task.Image
	}
	return fields(sv.from.Task, sv.want.Task) + " changed"
}

// adjusted names what a service changes without replacing a task, or "".
func adjusted(sv *service) string {
	if sv.from == nil {
		return ""
	}
	from, want := *sv.from, *sv.want
	for _, service := range []*swarm.Service{&from, &want} {
		service.Task, service.Spec, service.Replicas, service.Line = swarm.TaskSpec{}, "", 0, 0
	}
	return fields(from, want)
}

// fields names the fields that differ, in the order of their declaration.
func fields[T any](a, b T) string {
	var names []string
	left, right := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range left.NumField() {
		if !reflect.DeepEqual(left.Field(i).Interface(), right.Field(i).Interface()) {
			names = append(names, strings.ToLower(left.Type().Field(i).Name))
		}
	}
	return strings.Join(slices.Compact(names), ", ")
}
