package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// kindOrder is how bad the kinds of problems are, the worst first.
var kindOrder = []string{"NODE", "GIT", "FAIL", "DENY", "DOWN", "ASK", "WAIT", "HOLD", "ROLL"}

// problems lists what a person should know first, worst first, then by subject.
func (s Snapshot) problems(stacks []Stack) []Problem {
	var found []Problem
	for _, node := range s.Nodes {
		switch {
		case node.State == swarm.NodeDown:
			found = append(found, s.nodeProblem(node))
		case node.Availability == swarm.NodeDrained:
			found = append(found, s.drainProblem(node)...)
		}
	}
	for _, source := range s.Sources {
		if problem, ok := sourceProblem(source, s.Now); ok {
			found = append(found, problem)
		}
	}
	for i, record := range s.Stacks {
		found = append(found, s.stackProblems(record, stacks[i])...)
	}

	slices.SortStableFunc(found, func(a, b Problem) int {
		return slices.Index(kindOrder, a.Kind) - slices.Index(kindOrder, b.Kind)
	})
	return found
}

// nodeProblem: "w2 down 4m; 11/12 tasks moved; db.1 waits for volume db@w2".
func (s Snapshot) nodeProblem(node swarm.Node) Problem {
	lost, moved := 0, 0
	var waiting []string
	for _, name := range slices.Sorted(maps.Keys(s.Tasks)) {
		successor := map[swarm.TaskID]swarm.Task{}
		for _, task := range s.Tasks[name] {
			successor[task.Replaces] = task
		}
		for _, task := range s.Tasks[name] {
			if task.Node != node.ID || task.Excused == "" {
				continue
			}
			lost++
			next, ok := successor[task.ID]
			switch {
			case ok && next.Status.State.Running():
				moved++
			case ok && next.Status.Message != "":
				waiting = append(waiting, swarm.SlotName(next.Service.Name(), next.Slot)+" "+next.Status.Message)
			}
		}
	}

	name := s.hostname(node.ID)
	text := fmt.Sprintf("down %s", Ago(s.Now.Sub(node.Since)))
	if lost > 0 {
		text += fmt.Sprintf("; %d/%d tasks moved", moved, lost)
	}
	if len(waiting) > 0 {
		text += "; " + firstFew(waiting)
	}
	if node.Role == swarm.RoleManager {
		text += "; " + s.spareManagers()
	}
	return Problem{Kind: "NODE", Subject: name, Text: text, Command: "gitswarm node inspect " + name}
}

// spareManagers: "2 of 3 managers left, 0 more may fail".
func (s Snapshot) spareManagers() string {
	left, all := 0, 0
	for _, node := range s.Nodes {
		if node.Role != swarm.RoleManager {
			continue
		}
		all++
		if node.State == swarm.NodeReady {
			left++
		}
	}
	return fmt.Sprintf("%d of %d managers left, %d more may fail", left, all, max(left-(all/2+1), 0))
}

// drainProblem says which slots keep a drained node from being empty, if any
// does: "w3 is drained, 2 still run there: shop/db.1; shop/web.4".
func (s Snapshot) drainProblem(node swarm.Node) []Problem {
	var left []string
	for _, name := range slices.Sorted(maps.Keys(s.Tasks)) {
		for _, task := range s.Tasks[name] {
			if task.Node == node.ID && task.Status.State.Running() {
				left = append(left, string(name)+"/"+swarm.SlotName(task.Service.Name(), task.Slot))
			}
		}
	}
	if len(left) == 0 {
		return nil
	}
	subject := s.hostname(node.ID)
	text := fmt.Sprintf("is drained, %d still run there: %s", len(left), firstFew(left))
	if len(left) == 1 {
		text = "is drained, 1 still runs there: " + left[0]
	}
	return []Problem{{Kind: "NODE", Subject: subject, Text: text, Command: "gitswarm node ps " + subject}}
}

func sourceProblem(source swarm.Source, now time.Time) (Problem, bool) {
	problem := Problem{Subject: string(source.ID), Command: "gitswarm source inspect " + string(source.ID)}
	switch {
	case source.Suspended != "":
		problem.Kind, problem.Text = "HOLD", "source suspended: "+source.Suspended
	case source.Status.Problem != "":
		problem.Kind = "GIT"
		problem.Text = source.Status.Problem
		if !source.Status.Since.IsZero() {
			problem.Text = fmt.Sprintf("for %s: %s", Ago(now.Sub(source.Status.Since)), source.Status.Problem)
		}
	default:
		return Problem{}, false
	}
	return problem, true
}

// stackProblems lists at most one line about the stack's sync and one about
// how it runs.
func (s Snapshot) stackProblems(r swarm.StackRecord, stack Stack) []Problem {
	var found []Problem
	if problem, ok := s.syncProblem(r, stack); ok {
		problem.Subject = stack.Name
		found = append(found, problem)
	}

	settled := stack.Sync != Rolling && stack.Sync != Failed && stack.Sync != Paused
	if settled && (stack.Runtime == RuntimeDown || stack.Runtime == RuntimeDegraded) {
		found = append(found, downProblem(stack))
	}
	return found
}

func (s Snapshot) syncProblem(r swarm.StackRecord, stack Stack) (Problem, bool) {
	name := stack.Name
	switch stack.Sync {
	case Rolling:
		return Problem{Kind: "ROLL", Text: s.progress(r, stack)}, true
	case RolledBack:
		return rolledBackProblem(r, stack), true
	case Failed:
		text := fmt.Sprintf("%s failed: %s", shortCommit(r.Rollout.To.Revision), r.Rollout.Why)
		return Problem{Kind: "FAIL", Text: text, Command: logsCommand(r, r.Rollout.To.Revision)}, true
	case Paused:
		text := fmt.Sprintf("%s paused: %s", shortCommit(r.Rollout.To.Revision), r.Rollout.Why)
		return Problem{Kind: "HOLD", Text: text, Command: "gitswarm rollback " + name}, true
	case Refused:
		text := fmt.Sprintf("%s refused: %s", shortCommit(r.Head.Revision), refusal(r.Problem))
		return Problem{Kind: "DENY", Text: text, Command: "gitswarm inspect " + name}, true
	case Suspended:
		return Problem{Kind: "HOLD", Text: "suspended: " + r.Suspended, Command: "gitswarm resume " + name}, r.Suspended != ""
	case Waiting:
		return waitProblem(r), true
	}
	return Problem{}, false
}

// rolledBackProblem: "77aa102 rolled back to b81e004: web.1 exited 1 after 2s".
func rolledBackProblem(r swarm.StackRecord, stack Stack) Problem {
	bad, why := failedRevision(r)
	runs := shortCommit(swarm.Revision(stack.Revision))
	if byPerson, ok := strings.CutPrefix(why, "rolled back"); ok {
		text := fmt.Sprintf("%s rolled back%s; %s runs", shortCommit(bad), byPerson, runs)
		return Problem{Kind: "HOLD", Text: text, Command: "gitswarm retry " + stack.Name}
	}
	text := fmt.Sprintf("%s rolled back to %s: %s", shortCommit(bad), runs, why)
	return Problem{Kind: "FAIL", Text: text, Command: logsCommand(r, bad)}
}

func waitProblem(r swarm.StackRecord) Problem {
	inspect := "gitswarm inspect " + string(r.Name)
	switch {
	case r.Problem != nil && r.Problem.Kind == swarm.ProblemApproval:
		return Problem{
			Kind: "ASK", Command: "gitswarm approve " + r.Problem.Plan,
			Text: fmt.Sprintf("%s waits for approval: %s", shortCommit(r.Head.Revision), r.Problem.Text),
		}
	case r.Problem != nil:
		text := fmt.Sprintf("%s waits: %s", shortCommit(r.Head.Revision), r.Problem.Text)
		return Problem{Kind: "WAIT", Text: text, Command: inspect}
	case r.Rollout.Why != "":
		text := fmt.Sprintf("%s waits: %s", shortCommit(r.Accepted.Revision), r.Rollout.Why)
		return Problem{Kind: "WAIT", Text: text, Command: inspect}
	}
	return Problem{Kind: "WAIT", Text: "no revision was accepted yet", Command: inspect}
}

// refusal is a problem's first finding, or its text.
func refusal(problem *swarm.Problem) string {
	if problem == nil {
		return "the newest commit is not a stack"
	}
	if len(problem.Refuse) == 0 {
		return problem.Text
	}
	text := problem.Refuse[0].Text
	if first := problem.Refuse[0]; first.File != "" && first.Line > 0 {
		text = fmt.Sprintf("%s:%d: %s", first.File, first.Line, first.Text)
	}
	if more := len(problem.Refuse) - 1; more > 0 {
		text += fmt.Sprintf(" (+%d more)", more)
	}
	return text
}

// failedRevision is the newest revision that was rolled back, and why.
func failedRevision(r swarm.StackRecord) (swarm.Revision, string) {
	for _, q := range r.Quarantine {
		if q.Content == r.Accepted.Key() || q.Content == r.Head.Key() {
			return q.Revision, q.Why
		}
	}
	return r.Rollout.To.Revision, r.Rollout.Why
}

// logsCommand shows what the replica that failed had to say.
func logsCommand(r swarm.StackRecord, revision swarm.Revision) string {
	if r.Rollout.FailedBy == "" {
		return "gitswarm inspect " + string(r.Name)
	}
	service, _, _ := strings.Cut(r.Rollout.FailedBy, ".")
	return fmt.Sprintf("gitswarm logs %s/%s --revision %s", r.Name, service, shortCommit(revision))
}

func downProblem(stack Stack) Problem {
	var texts []string
	command := "gitswarm ps " + stack.Name
	for _, service := range stack.Services {
		if service.Runtime == RuntimeHealthy || service.Runtime == RuntimeUnknown {
			continue
		}
		name := swarm.ServiceID(service.ID).Name()
		text := fmt.Sprintf("%s %d/%d", name, service.Replicas.Well, service.Replicas.Of)
		if service.Message != "" {
			text += ": " + service.Message
		}
		if len(texts) == 0 {
			command = "gitswarm logs " + service.ID
		}
		texts = append(texts, text)
	}
	return Problem{Kind: "DOWN", Subject: stack.Name, Text: firstFew(texts), Command: command}
}

// progress: "3f2c91a web 2/5, w4 pulling 61%, deadline in 8m".
func (s Snapshot) progress(r swarm.StackRecord, stack Stack) string {
	if r.Removing {
		return "being removed"
	}
	text := shortCommit(r.Rollout.To.Revision)
	if r.Rollout.Phase == swarm.PhaseRollingBack {
		text = fmt.Sprintf("%s rolling back to %s: %s;", text, shortCommit(r.Healthy.Revision), r.Rollout.Why)
	}

	var parts []string
	for _, service := range stack.Services {
		if !service.Current.Full() {
			parts = append(parts, fmt.Sprintf("%s %d/%d", swarm.ServiceID(service.ID).Name(), service.Current.Well, service.Current.Of))
		}
	}
	for _, task := range s.Tasks[r.Name] {
		if task.Status.State == swarm.TaskPreparing && task.Status.Pulled > 0 && task.Status.Pulled < 100 {
			parts = append(parts, fmt.Sprintf("%s pulling %d%%", s.hostname(task.Node), task.Status.Pulled))
		}
	}
	if stack.Rollout != nil && stack.Rollout.Deadline != nil {
		parts = append(parts, "deadline in "+Ago(stack.Rollout.Deadline.Sub(s.Now)))
	}
	if len(parts) == 0 {
		parts = []string{"every replica is replaced, watching them"}
	}
	return text + " " + strings.Join(slices.Compact(parts), ", ")
}

// Ago writes a span for people: "12s", "4m", "3h", "9d".
func Ago(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
