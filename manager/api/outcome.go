package api

import (
	"fmt"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// Outcome is how a wait ended; Code is the exit code of `status --wait`.
type Outcome struct {
	Code int    `json:"code"`
	Word string `json:"word"`
	Text string `json:"text"`
}

// The exit codes of `status --wait`.
const (
	CodeHealthy    = 0
	CodeError      = 1 // usage, or the daemon could not be reached
	CodeFailed     = 2 // failed or rolled back
	CodeTimeout    = 3
	CodeRefused    = 4
	CodeSuperseded = 5
	CodeHeld       = 6 // for an approval, a window or a resume
)

// Goal is what a wait waits for.
type Goal struct {
	Stack    swarm.StackName // empty means every stack
	Revision string          // a commit or its first digits, with or without "branch@"; empty means the newest
	After    uint64          // a failed rollout counts only if its id is above this
	Accepted bool            // what is accepted is enough: why the newest commit is not does not count
}

// Sight remembers what a wait has seen of its revision, now or earlier. The
// zero value has seen nothing.
type Sight struct {
	sources map[swarm.SourceID]bool  // that were at it
	stacks  map[swarm.StackName]bool // that it was the newest commit of: it touched them
}

// Look adds what a snapshot shows.
func (s *Sight) Look(shot Snapshot, revision string) {
	if s.sources == nil {
		s.sources, s.stacks = map[swarm.SourceID]bool{}, map[swarm.StackName]bool{}
	}
	for _, source := range shot.Sources {
		if Matches(source.Status.Head, revision) {
			s.sources[source.ID] = true
		}
	}
	for _, r := range shot.Stacks {
		if Matches(r.Head.Revision, revision) {
			s.stacks[r.Name], s.sources[r.Source] = true, true
		}
	}
}

// Judge says how the stack's way to the goal ended, or what it waits for: ok
// is false while it goes on.
func (s Snapshot) Judge(r swarm.StackRecord, goal Goal, sight Sight) (outcome Outcome, ok bool) {
	source, _ := s.source(r.Source)
	if goal.Revision != "" {
		if ended, ok := judgeRevision(r, goal, sight); ok {
			return ended, true
		}
		if !sight.sources[r.Source] {
			return Outcome{Text: unseenText(source, goal)}, false
		}
	}
	return s.judgeNewest(r, source, goal)
}

// judgeRevision answers for a revision that is over: history remembers it, or
// a newer commit took the stack. A revision that did not touch the stack is
// answered by what the stack does anyway.
func judgeRevision(r swarm.StackRecord, goal Goal, sight Sight) (Outcome, bool) {
	if Matches(r.Head.Revision, goal.Revision) {
		return Outcome{}, false
	}
	for _, ended := range r.History {
		if Matches(ended.To.Revision, goal.Revision) && ended.ID > goal.After {
			return endedOutcome(r, ended)
		}
	}
	if sight.stacks[r.Name] {
		text := fmt.Sprintf("%s: %s was superseded by %s", r.Name, goal.Revision, r.Head.Revision.Short())
		return Outcome{CodeSuperseded, "superseded", text}, true
	}
	return Outcome{}, false
}

func endedOutcome(r swarm.StackRecord, ended swarm.Ended) (Outcome, bool) {
	text := fmt.Sprintf("%s: %s %s", r.Name, ended.To.Revision.Short(), ended.Phase)
	if ended.Why != "" {
		text += ": " + ended.Why
	}
	switch ended.Phase {
	case swarm.PhaseHealthy:
		return Outcome{CodeHealthy, "healthy", text}, true
	case swarm.PhaseSuperseded:
		return Outcome{CodeSuperseded, "superseded", text}, true
	case swarm.PhaseFailed, swarm.PhaseRolledBack:
		return Outcome{CodeFailed, string(ended.Phase), text}, true
	}
	return Outcome{}, false
}

// judgeNewest answers for the newest commit that touched the stack.
func (s Snapshot) judgeNewest(r swarm.StackRecord, source swarm.Source, goal Goal) (Outcome, bool) {
	if outcome, ok := heldOutcome(r, source); ok {
		return outcome, true
	}
	if r.Problem != nil && !goal.Accepted {
		return problemOutcome(r)
	}

	rollout := r.Rollout
	sameContent := rollout.To.Key() == r.Accepted.Key()
	name := fmt.Sprintf("%s: %s", r.Name, r.Accepted.Revision.Short())
	switch {
	case !sameContent || rollout.Phase == swarm.PhaseNone:
		return Outcome{Text: name + " is accepted, its rollout has not begun"}, false
	case rollout.Phase == swarm.PhaseHealthy && s.settled(r):
		return Outcome{CodeHealthy, "healthy", name + " is healthy"}, true
	case rollout.Phase == swarm.PhaseFailed, rollout.Phase == swarm.PhaseRolledBack, rollout.Phase == swarm.PhasePaused:
		return Outcome{CodeFailed, string(rollout.Phase), fmt.Sprintf("%s %s: %s", name, rollout.Phase, rollout.Why)}, rollout.ID > goal.After
	case rollout.Phase == swarm.PhaseWaiting:
		return Outcome{Text: fmt.Sprintf("%s waits: %s", name, rollout.Why)}, false
	}
	return Outcome{Text: string(r.Name) + ": " + s.progress(r, s.stackOf(r))}, false
}

func heldOutcome(r swarm.StackRecord, source swarm.Source) (Outcome, bool) {
	why, command := r.Suspended, "gitswarm resume "+string(r.Name)
	if why == "" {
		why, command = source.Suspended, "gitswarm source inspect "+string(r.Source)
	}
	if why == "" {
		return Outcome{}, false
	}
	return Outcome{CodeHeld, "suspended", fmt.Sprintf("%s: suspended: %s → %s", r.Name, why, command)}, true
}

func problemOutcome(r swarm.StackRecord) (Outcome, bool) {
	text := fmt.Sprintf("%s: %s %s", r.Name, r.Head.Revision.Short(), r.Problem.Kind)
	switch r.Problem.Kind {
	case swarm.ProblemLoad, swarm.ProblemPolicy:
		return Outcome{CodeRefused, "refused", fmt.Sprintf("%s: %s refused: %s", r.Name, r.Head.Revision.Short(), refusal(r.Problem))}, true
	case swarm.ProblemApproval:
		return Outcome{CodeHeld, "approval", fmt.Sprintf("%s: %s → gitswarm approve %s", text, r.Problem.Text, r.Problem.Plan)}, true
	case swarm.ProblemQuarantine:
		return Outcome{CodeFailed, "quarantined", fmt.Sprintf("%s: %s", text, r.Problem.Text)}, true
	}
	return Outcome{Text: fmt.Sprintf("%s: %s", text, r.Problem.Text)}, false
}

// settled reports whether every wanted replica runs the accepted spec. It
// closes the gap between an operator's word and the rollout that follows it.
func (s Snapshot) settled(r swarm.StackRecord) bool {
	content, known := s.content(r.Accepted)
	if !known {
		return false
	}
	for _, service := range content.Services {
		count := s.count(r, service, s.Tasks[r.Name])
		if count.current < count.healthy {
			return false
		}
		taken := len(seatsWithTasks(s.Tasks[r.Name], swarm.NewServiceID(r.Name, service.Name)))
		if !service.Mode.PerNode() && taken != count.wanted {
			return false
		}
		if s.filling(r.Name, service) {
			return false
		}
	}
	return true
}

// filling reports whether the first task of a seat is on its way, as after a
// `scale`.
func (s Snapshot) filling(stack swarm.StackName, service swarm.Service) bool {
	for _, line := range seats(s.Tasks[stack], swarm.NewServiceID(stack, service.Name)) {
		first := line[len(line)-1]
		if first.Replaces == "" && first.Desired <= swarm.DesiredRun && first.Status.State < swarm.TaskHealthy {
			return true
		}
	}
	return false
}

// seatsWithTasks are the seats that hold a task which is not asked to go, or
// one that ended by itself.
func seatsWithTasks(tasks []swarm.Task, service swarm.ServiceID) map[swarm.Seat]bool {
	taken := map[swarm.Seat]bool{}
	for seat, line := range seats(tasks, service) {
		if newest := line[len(line)-1]; newest.Desired <= swarm.DesiredRun {
			taken[seat] = true
		}
	}
	return taken
}

func unseenText(source swarm.Source, goal Goal) string {
	if source.Status.Problem != "" {
		return fmt.Sprintf("source %s does not answer: %s", source.ID, source.Status.Problem)
	}
	return fmt.Sprintf("source %s is at %s; %s was not seen yet", source.ID, source.Status.Head.Short(), goal.Revision)
}

// Matches reports whether text names the revision: its commit or the first
// digits of it, with or without "branch@" in front.
func Matches(revision swarm.Revision, text string) bool {
	branch, digits := splitRevision(text)
	if branch != "" && branch != revision.Branch() {
		return false
	}
	return leastDigits(text) && strings.HasPrefix(revision.Commit(), digits)
}

func splitRevision(text string) (branch, digits string) {
	if branch, rest, ok := strings.Cut(text, "@"); ok {
		return branch, strings.ToLower(strings.TrimPrefix(rest, "sha1:"))
	}
	return "", strings.ToLower(text)
}

// leastDigits reports whether text has the four digits that git asks for, too.
func leastDigits(text string) bool {
	_, digits := splitRevision(text)
	return len(digits) >= 4 && strings.Trim(digits, "0123456789abcdef") == ""
}

// JudgeAll sums up the stacks of a goal. The line of each stack that goes on
// is in pending; ok is false while there is one.
func (s Snapshot) JudgeAll(goal Goal, sight Sight) (outcome Outcome, pending []string, ok bool) {
	found := false
	outcome = Outcome{CodeHealthy, "healthy", "every stack is healthy"}
	for _, r := range s.Stacks {
		if goal.Stack != "" && r.Name != goal.Stack {
			continue
		}
		found = true
		ended, done := s.Judge(r, goal, sight)
		switch {
		case !done:
			pending = append(pending, ended.Text)
		case goal.Stack != "" || worse(ended.Code, outcome.Code):
			outcome = ended
		}
	}
	if !found {
		return s.judgeMissing(goal)
	}
	return outcome, pending, len(pending) == 0
}

// judgeMissing answers while there is no stack of the goal.
func (s Snapshot) judgeMissing(goal Goal) (Outcome, []string, bool) {
	what := "no stack"
	if goal.Stack != "" {
		what = fmt.Sprintf("no stack %q", goal.Stack)
	}
	for _, source := range s.Sources {
		if goal.Revision != "" && !Matches(source.Status.Head, goal.Revision) {
			return Outcome{}, []string{unseenText(source, goal)}, false
		}
	}
	return Outcome{CodeError, "unknown", what + " is there → gitswarm status"}, nil, true
}

// worse orders exit codes: a failure hides a refusal, that one a hold, that
// one a newer commit.
func worse(a, b int) bool {
	order := map[int]int{
		CodeHealthy: 0, CodeSuperseded: 1, CodeHeld: 2, CodeTimeout: 3, CodeRefused: 4, CodeFailed: 5, CodeError: 6,
	}
	return order[a] > order[b]
}
