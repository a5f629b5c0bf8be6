package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	widestProblem = 96 // a problem that is longer does not move the other arrows
	calmShown     = 10 // as many stacks that are healthy and synced are listed without -a
)

// writeStatus prints the page: the cluster in one line, then problems with what
// to type, then the stacks. Those that are healthy and synced are counted
// alone unless all is set or they are few.
func (a *app) writeStatus(w io.Writer, page api.Status, all bool) {
	if page.Machine != nil {
		fmt.Fprintln(w, page.Machine.Text)
		return
	}
	if page.Leaderless != nil {
		fmt.Fprintf(w, "%s  → %s\n", a.paint.red(page.Leaderless.Text), page.Leaderless.Remedy)
	}
	fmt.Fprintln(w, a.statusHead(page))
	a.writeProblems(w, page.Problems)
	if len(page.Stacks) == 0 {
		fmt.Fprintln(w, "\n"+noStacks(page))
		return
	}

	list := a.table("STACK", "RUNTIME", "SYNC", "REVISION", "SERVICES", "REPLICAS", "LAST ROLLOUT")
	list.least[0], list.least[1], list.least[2] = 6, len("degraded"), len("rolled-back")
	calm := 0
	for _, stack := range page.Stacks {
		if isCalm(stack) {
			calm++
		}
	}
	hide := !all && calm > calmShown
	for _, stack := range page.Stacks {
		list.least[0] = max(list.least[0], len(stack.Name))
		if hide && isCalm(stack) {
			continue
		}
		list.add(stack.Name, string(stack.Runtime), string(stack.Sync), dash(short(stack.Revision)),
			count(stack.Working), count(stack.Replicas), lastRollout(page.Now, stack))
	}
	fmt.Fprintln(w)
	if !hide || calm < len(page.Stacks) {
		list.write(w)
	}
	if hide {
		fmt.Fprintf(w, "… %d healthy and synced (-a shows them)\n", calm)
	}
}

func isCalm(stack api.Stack) bool {
	return stack.Runtime == api.RuntimeHealthy && stack.Sync == api.Synced
}

func noStacks(page api.Status) string {
	if len(page.Sources) == 0 {
		return "no repository is watched yet → gitswarm init --repo URL"
	}
	return "no stack yet → push a folder with a compose file, or look at gitswarm source inspect " + page.Sources[0].ID
}

// statusHead: "40/40 stacks healthy   3/3 managers   8/9 nodes   git main@3f2c91a seen 12s ago".
func (a *app) statusHead(page api.Status) string {
	shown := func(c api.Count, text string) string {
		text = count(c) + " " + text
		if !c.Full() {
			return a.paint.yellow(text)
		}
		return text
	}
	parts := []string{
		shown(page.Healthy, "stacks healthy"), shown(page.Managers, "managers"), shown(page.Nodes, "nodes"),
	}
	return strings.Join(append(parts, gitHead(page)), "   ")
}

func gitHead(page api.Status) string {
	switch len(page.Sources) {
	case 0:
		return "git: no source"
	case 1:
		source := page.Sources[0]
		if source.Head == "" {
			return "git: nothing read yet"
		}
		return fmt.Sprintf("git %s seen %s", short(source.Head), ago(page.Now, source.Seen))
	}
	oldest := page.Sources[0].Seen
	for _, source := range page.Sources {
		if source.Seen.Before(oldest) {
			oldest = source.Seen
		}
	}
	return fmt.Sprintf("git %d sources seen %s", len(page.Sources), ago(page.Now, oldest))
}

// writeProblems prints one line each, with the commands below one another.
func (a *app) writeProblems(w io.Writer, problems []api.Problem) {
	texts := make([]string, len(problems))
	width := 0
	for i, problem := range problems {
		join := ": "
		if problem.Kind == "NODE" {
			join = " "
		}
		texts[i] = problem.Subject + join + firstLine([]byte(problem.Text))
		if n := utf8.RuneCountInString(texts[i]); n <= widestProblem && problem.Command != "" {
			width = max(width, n)
		}
	}
	for i, problem := range problems {
		line := fmt.Sprintf("%s  %s", a.problemKind(problem.Kind), texts[i])
		if problem.Command != "" {
			line += strings.Repeat(" ", max(width-utf8.RuneCountInString(texts[i]), 0)) + "  → " + a.paint.cyan(problem.Command)
		}
		fmt.Fprintln(w, line)
	}
}

func (a *app) problemKind(kind string) string {
	padded := fmt.Sprintf("%-4s", kind)
	switch kind {
	case "ROLL":
		return a.paint.cyan(padded)
	case "ASK", "WAIT", "HOLD":
		return a.paint.yellow(padded)
	}
	return a.paint.red(padded)
}

// lastRollout: "2m ago, refused main@77aa102", "by Ana: raise web to 5".
func lastRollout(now time.Time, stack api.Stack) string {
	rollout := stack.Rollout
	if stack.Removing {
		return "being removed"
	}
	if rollout == nil {
		return "-"
	}
	when := ""
	if rollout.Over != nil {
		when = ago(now, *rollout.Over)
	}

	switch swarm.Phase(rollout.Phase) {
	case swarm.PhaseRolledBack:
		return fmt.Sprintf("%s, refused %s", when, short(rollout.Revision))
	case swarm.PhaseFailed:
		return fmt.Sprintf("%s, failed %s", when, short(rollout.Revision))
	case swarm.PhasePaused:
		return "paused at " + short(rollout.Revision)
	case swarm.PhaseWaiting:
		return "waiting with " + short(rollout.Revision)
	case swarm.PhaseRollingBack:
		return "rolling back " + short(rollout.Revision)
	}
	return strings.TrimSpace(when + " " + whose(*rollout))
}

// whose: "by Ana: raise web to 5", or what an operator asked for.
func whose(rollout api.Rollout) string {
	switch {
	case rollout.Operator != "":
		return rollout.Operator
	case rollout.Author != "":
		return fmt.Sprintf("by %s: %s", rollout.Author, rollout.Subject)
	}
	return rollout.Subject
}

func count(c api.Count) string { return fmt.Sprintf("%d/%d", c.Well, c.Of) }

func short(revision string) string { return swarm.Revision(revision).Short() }

// writeStack prints one stack: what git says, what runs, and why they differ.
func (a *app) writeStack(w io.Writer, page api.Status, stack api.Stack, tasks []api.Task) {
	fmt.Fprintf(w, "%s   %s   %s   %s\n", a.paint.bold(stack.Name), a.paint.word(string(stack.Runtime)),
		a.paint.word(string(stack.Sync)), lastRollout(page.Now, stack))
	var own []api.Problem
	for _, problem := range page.Problems {
		if problem.Subject == stack.Name && problem.Kind != "NODE" || problem.Subject == stack.Source {
			own = append(own, problem)
		}
	}
	a.writeProblems(w, own)

	fmt.Fprintf(w, "\nhead      %s\naccepted  %s\nrunning   %s\n", dash(short(stack.Head)), dash(short(stack.Accepted)), dash(short(stack.Running)))
	if stack.Why != "" {
		fmt.Fprintf(w, "why       %s\n", stack.Why)
	}
	if stack.Problem != nil {
		a.writeFindings(w, stack.Problem.Findings)
	}
	a.writeFindings(w, stack.Warnings)

	fmt.Fprintln(w)
	services := a.table("SERVICE", "RUNTIME", "REPLICAS", "CURRENT", "IMAGE", "PORTS")
	for _, service := range stack.Services {
		services.add(swarm.ServiceID(service.ID).Name(), string(service.Runtime), count(service.Replicas), count(service.Current),
			dash(service.Image), dash(strings.Join(service.Ports, ", ")))
	}
	services.write(w)
	if len(tasks) > 0 {
		fmt.Fprintln(w)
		a.taskTable(page.Now, tasks, false).write(w)
	}
}

// writeFindings prints what is to say about the compose file: "compose.yaml:12: …".
func (a *app) writeFindings(w io.Writer, findings []api.Finding) {
	for _, finding := range findings {
		place := finding.File
		if finding.Line > 0 {
			place = fmt.Sprintf("%s:%d", finding.File, finding.Line)
		}
		fmt.Fprintf(w, "  %s: %s %s: %s\n", dash(place), a.paint.word(finding.Class), finding.Rule, finding.Text)
	}
}
