package api

import (
	"strconv"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

func problemOf(problem *swarm.Problem) *StackProblem {
	if problem == nil {
		return nil
	}
	return &StackProblem{
		Kind: string(problem.Kind), Text: problem.Text, Since: problem.Since,
		Plan: problem.Plan, Findings: findingsOf(problem.Refuse),
	}
}

func findingsOf(findings []swarm.Finding) []Finding {
	var views []Finding
	for _, f := range findings {
		views = append(views, Finding{
			Rule: f.Rule, Class: string(f.Class), Service: f.Service, File: f.File, Line: f.Line, Text: f.Text,
		})
	}
	return views
}

// taskOf computes what people see of a task.
func (s Snapshot) taskOf(task swarm.Task, image string) Task {
	view := Task{
		ID: string(task.ID), Service: string(task.Service), Slot: task.Slot,
		Node: string(task.Node), State: task.Status.State.String(), Desired: task.Desired.String(),
		Revision: string(task.Revision), Spec: string(task.Spec), Image: image,
		Since: task.Status.Since, Created: task.Created, Started: optionalTime(task.Status.Started),
		Exit: task.Status.Exit, Message: task.Status.Message, Excused: task.Excused,
		Pulled: task.Status.Pulled, OOM: task.Status.OOM, Replaces: string(task.Replaces),
	}
	if task.Node != "" {
		view.Hostname = s.hostname(task.Node)
	}
	for _, address := range task.Addresses {
		view.IPs = append(view.IPs, address.IP)
	}
	return view
}

func nodeOf(node swarm.Node, tasks int) Node {
	d := node.Description
	return Node{
		ID: string(node.ID), Hostname: d.Hostname, Role: node.Role,
		State: string(node.State), Availability: string(node.Availability), Since: node.Since, Joined: node.Joined,
		OS: d.OS, Arch: d.Arch, NanoCPUs: d.Resources.NanoCPUs, Memory: d.Resources.Memory,
		Build: d.Build, Address: d.Address, Labels: node.Labels, Tasks: tasks,
		EngineLabels: d.Labels, DataPath: d.DataPath, Generic: genericOf(d.Resources.Generic),
	}
}

func genericOf(resources []swarm.GenericResource) []string {
	var texts []string
	for _, r := range resources {
		count := strconv.FormatInt(r.Count, 10)
		if len(r.Names) > 0 {
			count = strings.Join(r.Names, ",")
		}
		texts = append(texts, r.Kind+"="+count)
	}
	return texts
}

func (s Snapshot) volumeOf(volume swarm.KeptVolume) Volume {
	view := Volume{
		ID: string(volume.ID), Node: string(volume.Node), Hostname: s.hostname(volume.Node),
		Created: volume.Created, Orphan: optionalTime(volume.Orphan),
	}
	view.Dropped = optionalTime(volume.Dropped)
	if !volume.Orphan.IsZero() {
		view.Removal = optionalTime(volume.Orphan.Add(swarm.VolumeKept))
	}
	return view
}

func eventOf(event swarm.Event) Event {
	return Event{
		Index: event.Index, At: event.At, Kind: event.Kind, Stack: string(event.Stack), Service: event.Service,
		Slot: event.Slot, Task: string(event.Task), Node: string(event.Node), Revision: string(event.Revision), Text: event.Text,
	}
}

func planOf(result PlanResult) Plan {
	plan := Plan{Revision: string(result.Revision), Stacks: []PlannedStack{}}
	for _, stack := range result.Stacks {
		view := PlannedStack{
			Name: string(stack.Name), Steps: []Step{},
			Problem: problemOf(stack.Problem), Findings: findingsOf(stack.Findings),
		}
		for _, step := range stack.Plan.Steps {
			view.Steps = append(view.Steps, Step{
				Verb: string(step.Verb), Target: step.Target(), Node: string(step.Node), Why: step.Why,
			})
		}
		plan.Changes += len(view.Steps)
		plan.Stacks = append(plan.Stacks, view)
	}
	return plan
}
