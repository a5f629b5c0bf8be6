package api

import (
	"fmt"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// NewStatus computes the page of `gitswarm status`. Equal snapshots give equal
// pages.
func NewStatus(s Snapshot) Status {
	page := Status{
		Now: s.Now, Index: s.Index,
		Sources: []Source{}, Problems: []Problem{}, Stacks: []Stack{},
	}
	for _, record := range s.Stacks {
		stack := s.stackOf(record)
		page.Stacks = append(page.Stacks, stack)
		page.Healthy.Of++
		if stack.Runtime == RuntimeHealthy {
			page.Healthy.Well++
		}
	}

	for _, node := range s.Nodes {
		ready := 0
		if node.State == swarm.NodeReady {
			ready = 1
		}
		page.Nodes.Of++
		page.Nodes.Well += ready
		if node.Role == "manager" {
			page.Managers.Of++
			page.Managers.Well += ready
		}
	}
	for _, source := range s.Sources {
		page.Sources = append(page.Sources, sourceOf(source, s.Stacks))
	}

	page.Problems = append(page.Problems, s.problems(page.Stacks)...)
	return page
}

// stackOf computes what people see of a stack.
func (s Snapshot) stackOf(r swarm.StackRecord) Stack {
	source, _ := s.source(r.Source)
	goal := target(r)
	stack := Stack{
		Name: string(r.Name), Source: string(r.Source), Path: r.Path,
		Sync: syncOf(r, source), Revision: string(goal.Revision),
		Head: string(r.Head.Revision), Accepted: string(r.Accepted.Revision), Running: string(r.Healthy.Revision),
		Why: whyDifferent(r), Services: []Service{},
		Problem: problemOf(r.Problem), Suspended: r.Suspended, Removing: r.Removing,
		Warnings: findingsOf(r.Warnings),
	}

	content, known := s.content(goal)
	if content != nil {
		for _, service := range content.Services {
			stack.Services = append(stack.Services, s.serviceOf(r, service, s.Tasks[r.Name]))
		}
	}
	for _, service := range stack.Services {
		stack.Working.Of++
		if service.Runtime == RuntimeHealthy {
			stack.Working.Well++
		}
		stack.Replicas.Well += service.Replicas.Well
		stack.Replicas.Of += service.Replicas.Of
	}
	stack.Runtime = runtimeOf(stack.Services, known)
	stack.Rollout = s.rolloutOf(r, content)
	return stack
}

func (s Snapshot) content(rendered swarm.Rendered) (stack *swarm.Stack, known bool) {
	if rendered.Content == "" || s.Content == nil {
		return nil, false
	}
	return s.Content(rendered.Content)
}

// rolloutOf is the current or last rollout, or nil before the first.
func (s Snapshot) rolloutOf(r swarm.StackRecord, content *swarm.Stack) *Rollout {
	rollout := r.Rollout
	if rollout.Phase == swarm.PhaseNone {
		return nil
	}
	return &Rollout{
		ID: rollout.ID, Phase: string(rollout.Phase),
		Revision: string(rollout.To.Revision), From: string(rollout.From.Revision),
		Author: rollout.To.Author, Subject: rollout.To.Subject, Operator: rollout.Operator,
		Began: rollout.Began, Over: optionalTime(rollout.Over),
		Deadline: optionalTime(deadline(r, content, s.Tasks[r.Name])),
		Why:      rollout.Why, FailedBy: rollout.FailedBy,
	}
}

// defaultDeadline is how long a new task may take to turn healthy unless
// x-gitswarm.progress_deadline says so.
const defaultDeadline = 10 * time.Minute

// deadline is when the first of the rollout's tasks must be healthy, or zero.
func deadline(r swarm.StackRecord, content *swarm.Stack, tasks []swarm.Task) time.Time {
	var first time.Time
	if r.Rollout.Phase.Ended() {
		return first
	}
	for _, task := range tasks {
		waiting := task.Desired == swarm.DesiredRun && task.Status.State < swarm.TaskHealthy && !task.Touched.IsZero()
		if task.Rollout != r.Rollout.ID || !waiting {
			continue
		}
		allowed := defaultDeadline
		if service, ok := content.Service(task.Service.Name()); ok && service.Deadline > 0 {
			allowed = service.Deadline
		}
		if end := task.Touched.Add(allowed); first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return first
}

// whyDifferent says why head, accepted and running are not one revision.
func whyDifferent(r swarm.StackRecord) string {
	head, accepted, running := r.Head.Revision, r.Accepted.Revision, r.Healthy.Revision
	switch {
	case r.Problem != nil:
		return fmt.Sprintf("%s is not rolled out: %s", shortCommit(head), r.Problem.Text)
	case accepted == running:
		return ""
	case r.Rollout.Phase == swarm.PhaseRolledBack || r.Rollout.Phase == swarm.PhaseRollingBack:
		return fmt.Sprintf("%s failed and is not tried again: %s", shortCommit(accepted), r.Rollout.Why)
	case r.Rollout.Phase == swarm.PhaseFailed || r.Rollout.Phase == swarm.PhasePaused:
		return fmt.Sprintf("%s failed: %s", shortCommit(accepted), r.Rollout.Why)
	case r.Rollout.Phase == swarm.PhaseWaiting:
		return fmt.Sprintf("%s waits: %s", shortCommit(accepted), r.Rollout.Why)
	case !r.Rollout.Phase.Ended():
		return fmt.Sprintf("%s is being rolled out", shortCommit(accepted))
	}
	return ""
}

// shortCommit is the form of a revision within a sentence: "3f2c91a".
func shortCommit(r swarm.Revision) string {
	commit := r.Commit()
	return commit[:min(len(commit), 7)]
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// sourceOf computes what people see of a source.
func sourceOf(source swarm.Source, stacks []swarm.StackRecord) Source {
	view := Source{
		ID: string(source.ID), URL: source.URL, Branch: source.Branch, Path: source.Path,
		Environment: source.Environment, Head: string(source.Status.Head), Seen: source.Status.Seen,
		Problem: source.Status.Problem, Since: source.Status.Since, Approved: source.Approved,
		Suspended: source.Suspended, Credential: source.Credential != "", Stacks: []string{}, Created: source.Created,
	}
	if source.Poll > 0 {
		view.Poll = source.Poll.String()
	}
	for _, stack := range stacks {
		if stack.Source == source.ID {
			view.Stacks = append(view.Stacks, string(stack.Name))
		}
	}
	slices.Sort(view.Stacks)
	return view
}
