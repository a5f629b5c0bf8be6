package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/gitsync/compose"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// A commit is what one commit of a source gives: its stacks, as far as they
// must be looked at.
type commit struct {
	revision   swarm.Revision
	candidates []*candidate // by name; stacks that the commit did not touch are not in it
	removed    []swarm.StackRecord
	kept       int // stacks of the source that the commit has
	asked      *swarm.Problem
	removals   swarm.Removal // what goes without being asked
	cache      *sourceCache  // what to remember once the commit is accepted
}

// A candidate is one stack of a commit on its way to being accepted.
type candidate struct {
	found   gitsync.Found
	record  swarm.StackRecord // as it is now; zero for a new stack
	before  *swarm.Stack      // what is accepted now; nil for a new stack
	loaded  compose.Loaded
	reads   []string     // paths that decide what it renders to
	stack   *swarm.Stack // what the commit wants; nil if it can't be rendered
	head    swarm.Rendered
	problem *swarm.Problem
	renewed bool // resolve images anew, pinned or not
}

// sourceCache is what the leader remembers of a source between two commits. A
// new leader begins with an empty one and loads every stack once.
type sourceCache struct {
	tree  *gitsync.Tree
	found map[swarm.StackName]gitsync.Found
	reads map[swarm.StackName][]string
}

// load renders the stacks of a commit that differ from what was last read, and
// those in wake.
func (m *Manager) load(ctx context.Context, view *store.View, source swarm.Source, answer gitsync.Report, wake map[swarm.StackName]bool) (*commit, error) {
	found, _, err := gitsync.FindStacks(answer.Commit.Tree, source.Path, source.Environment)
	if err != nil {
		return nil, fmt.Errorf("find stacks in %s: %w", answer.Commit.Revision.Short(), err)
	}
	c := &commit{revision: answer.Commit.Revision, kept: len(found)}
	old := m.caches[source.ID]
	cache := &sourceCache{tree: answer.Commit.Tree, found: make(map[swarm.StackName]gitsync.Found), reads: make(map[swarm.StackName][]string)}
	changed, all := m.changedPaths(source, answer, old)
	for _, f := range found {
		record, _ := view.Stack(f.Name)
		cache.found[f.Name] = f
		if old != nil && !all && !wake[f.Name] && same(old.found[f.Name], f) && !touches(changed, f, old.reads[f.Name]) {
			cache.reads[f.Name] = old.reads[f.Name]
			continue
		}
		if old == nil && !all && !wake[f.Name] && settled(record) {
			cache.reads[f.Name] = nil
			continue
		}
		candidate, err := m.candidate(ctx, source, answer.Commit, f, record)
		if err != nil {
			return nil, err
		}
		c.candidates = append(c.candidates, candidate)
	}
	if err := m.render(ctx, answer.Commit, c.candidates); err != nil {
		return nil, err
	}
	for _, candidate := range c.candidates {
		cache.reads[candidate.found.Name] = candidate.reads
	}
	c.removed = removedStacks(view, source.ID, cache.found, c.candidates)
	c.cache = cache
	return c, nil
}

// changedPaths returns the paths that differ from what was last read; all
// means that this can't be told.
func (m *Manager) changedPaths(source swarm.Source, answer gitsync.Report, old *sourceCache) (changed []string, all bool) {
	if old == nil {
		sameHead := source.Status.Head == answer.Commit.Revision && source.Status.Scope == scope(source)
		return nil, !sameHead
	}
	changed, err := answer.Commit.Tree.Changed(old.tree)
	return changed, err != nil
}

// settled reports whether nothing but a commit can change the stack's answer.
func settled(record swarm.StackRecord) bool {
	if record.Name == "" {
		return false
	}
	return record.Problem == nil || record.Problem.Kind == swarm.ProblemApproval || record.Problem.Kind == swarm.ProblemQuarantine
}

func same(a, b gitsync.Found) bool {
	return a.Name == b.Name && a.Dir == b.Dir && slices.Equal(a.Files, b.Files) && slices.Equal(a.EnvFiles, b.EnvFiles) && fmt.Sprint(a.Variables) == fmt.Sprint(b.Variables)
}

// touches reports whether a commit that changed these paths can change what a
// stack renders to. A read that ends in a slash stands for all below it.
func touches(changed []string, found gitsync.Found, reads []string) bool {
	for _, p := range changed {
		if slices.Contains(found.Files, p) || slices.Contains(reads, p) {
			return true
		}
		if slices.ContainsFunc(reads, func(read string) bool { return strings.HasSuffix(read, "/") && strings.HasPrefix(p, read) }) {
			return true
		}
	}
	return false
}

// candidate begins with one stack of the commit. A stack that can't be loaded
// is a candidate with a problem; an error means that the cluster's own content
// could not be read.
func (m *Manager) candidate(ctx context.Context, source swarm.Source, from *gitsync.Commit, found gitsync.Found, record swarm.StackRecord) (*candidate, error) {
	c := &candidate{found: found, record: record, head: swarm.Rendered{
		Revision: from.Revision, Author: from.Author, Subject: from.Subject, Committed: from.Committed,
	}}
	if other := record.Source; other != "" && other != source.ID {
		c.refuse(swarm.ProblemLoad, fmt.Sprintf("stack %q belongs to source %s already; give one of them another name", found.Name, other))
		return c, nil
	}
	before, err := m.content(ctx, record.Accepted.Content)
	if err != nil {
		return nil, err
	}
	c.before = before

	if len(found.Findings) > 0 {
		c.reads = append([]string{found.Dir + "/"}, found.Files...)
		c.refuse(swarm.ProblemLoad, found.Findings[0].Text, found.Findings...)
	}
	return c, nil
}

// render loads the candidates that have no problem yet. An error means that
// the commit as a whole could not be read.
func (m *Manager) render(ctx context.Context, from *gitsync.Commit, candidates []*candidate) error {
	var whole []*candidate
	var projects []compose.Project
	for _, c := range candidates {
		if c.problem == nil {
			whole = append(whole, c)
			projects = append(projects, compose.Project{
				Name: string(c.found.Name), Dir: c.found.Dir, Files: c.found.Files, EnvFiles: c.found.EnvFiles, Variables: c.found.Variables,
			})
		}
	}
	for i, result := range compose.LoadAll(ctx, m.config.Limits, treeOf{from.Tree}, projects) {
		whole[i].take(result)
	}
	return ctx.Err()
}

// take makes the candidate what loading it gave.
func (c *candidate) take(result compose.Result) {
	c.loaded, c.reads = result.Loaded, result.Loaded.Reads
	var refused *compose.Error
	switch err := result.Err; {
	case errors.As(err, &refused):
		c.reads = refused.Reads
		c.refuse(loadProblem(refused), err.Error(), refusals(refused.Findings)...)
	case err != nil:
		c.refuse(swarm.ProblemLoad, err.Error())
	default:
		c.stack = &c.loaded.Stack
	}
}

// loadProblem sorts what a load refused: a file that a secret or config names
// may be on its way, anything else is for a commit to solve.
func loadProblem(refused *compose.Error) swarm.ProblemKind {
	for _, f := range refusals(refused.Findings) {
		if !missingContent(f) {
			return swarm.ProblemLoad
		}
	}
	return swarm.ProblemWaiting
}

// missingContent reports whether a refusal is about the file of a secret or a
// config that the tree does not have.
func missingContent(f swarm.Finding) bool {
	ofContent := strings.HasPrefix(f.Rule, "secrets.") || strings.HasPrefix(f.Rule, "configs.")
	return ofContent && strings.HasSuffix(f.Rule, ".file") && strings.Contains(f.Text, compose.MissingFile)
}

func (c *candidate) refuse(kind swarm.ProblemKind, text string, findings ...swarm.Finding) {
	c.problem = &swarm.Problem{Kind: kind, Text: text, Refuse: findings}
	c.stack = nil
}

// removedStacks returns the stacks of a source that its tree no longer has,
// less those that a candidate takes over under a new name.
func removedStacks(view *store.View, source swarm.SourceID, found map[swarm.StackName]gitsync.Found, candidates []*candidate) []swarm.StackRecord {
	renamed := make(map[swarm.StackName]bool)
	for _, c := range candidates {
		if c.stack != nil && c.stack.Was != "" {
			renamed[c.stack.Was] = true
		}
	}
	var removed []swarm.StackRecord
	for _, record := range view.Stacks() {
		if _, there := found[record.Name]; record.Source == source && !there && !record.Removing && !renamed[record.Name] {
			removed = append(removed, record)
		}
	}
	return removed
}

// refusals leaves the warnings out.
func refusals(findings []swarm.Finding) []swarm.Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f swarm.Finding) bool { return f.Class != swarm.Refused })
}

// scope is what a source was read under; a change of it is guarded.
func scope(source swarm.Source) string {
	return source.Branch + ":" + path.Clean("/"+source.Path) + ":" + source.Environment
}

// again returns when stacks that wait for something outside of the cluster
// should be tried once more: after 2 s at first, then after as long as they
// have waited, at most 30 s.
func (c *commit) again(now time.Time) time.Time {
	const first, longest = 2 * time.Second, 30 * time.Second
	var soonest time.Time
	for _, candidate := range c.candidates {
		if candidate.problem == nil || candidate.problem.Kind != swarm.ProblemWaiting {
			continue
		}
		wait := min(max(now.Sub(candidate.problem.Since), first), longest)
		if at := now.Add(wait); soonest.IsZero() || at.Before(soonest) {
			soonest = at
		}
	}
	return soonest
}

// acceptance is the command that the commit comes down to, and whether it
// says anything new.
func (c *commit) acceptance(source swarm.Source, answer gitsync.Report) (store.Command, bool) {
	status := swarm.SourceStatus{Head: c.revision, Seen: answer.At, Scope: scope(source), Removed: recent(source.Status.Removed, answer.At)}
	if c.removals.Stacks+c.removals.Services > 0 {
		status.Removed = append(status.Removed, c.removals)
	}
	accept := &store.AcceptStacks{Source: source.ID, Status: status}
	for _, candidate := range c.candidates {
		if stack, changed := candidate.acceptance(answer.At); changed {
			accept.Stacks = append(accept.Stacks, stack)
		}
	}
	for _, record := range c.removed {
		if stack, changed := removal(record, c, answer.At); changed {
			accept.Stacks = append(accept.Stacks, stack)
		}
	}
	slices.SortFunc(accept.Stacks, func(a, b store.AcceptStack) int { return cmp.Compare(a.Name, b.Name) })

	changed := len(accept.Stacks) > 0 || source.Status.Head != c.revision || source.Status.Problem != "" ||
		source.Status.Scope != status.Scope || answer.At.Sub(source.Status.Seen) >= seenEvery
	return store.Command{At: answer.At, AcceptStacks: accept}, changed
}

// seenEvery is how often an answer without news is written down.
const seenEvery = time.Minute

func (c *candidate) acceptance(now time.Time) (store.AcceptStack, bool) {
	accept := store.AcceptStack{Name: c.found.Name, Path: c.found.Dir, Head: c.head, Problem: c.problem, Warnings: c.loaded.Findings}
	if c.problem != nil {
		c.problem.Since = now
		if old := c.record.Problem; old != nil && old.Kind == c.problem.Kind {
			c.problem.Since = old.Since
		}
	}
	if c.stack != nil {
		accept.Was = c.stack.Was
		accept.Rescale = rescaled(c.before, c.stack)
	}
	return accept, !sameAnswer(c.record, accept)
}

// sameAnswer reports whether the record says already what accept would say.
func sameAnswer(record swarm.StackRecord, accept store.AcceptStack) bool {
	if record.Name == "" || record.Head != accept.Head || record.Removing || record.Path != accept.Path {
		return false
	}
	if accept.Problem == nil || record.Problem == nil {
		return accept.Problem == nil && record.Problem == nil
	}
	return record.Problem.Kind == accept.Problem.Kind && record.Problem.Text == accept.Problem.Text && record.Problem.Plan == accept.Problem.Plan
}

// rescaled lists the services that a revision changes: an operator's scale of
// them ends.
func rescaled(before, after *swarm.Stack) []string {
	var names []string
	for _, service := range after.Services {
		old, had := before.Service(service.Name)
		if had && (old.Spec != service.Spec || old.Replicas != service.Replicas || old.Mode != service.Mode) {
			names = append(names, service.Name)
		}
	}
	return names
}

func removal(record swarm.StackRecord, c *commit, now time.Time) (store.AcceptStack, bool) {
	accept := store.AcceptStack{Name: record.Name, Path: record.Path, Head: swarm.Rendered{Revision: c.revision}, Removed: true}
	if c.asked != nil {
		problem := *c.asked
		problem.Since = now
		accept.Problem = &problem
		waits := record.Problem != nil && record.Problem.Kind == swarm.ProblemApproval && record.Problem.Text == problem.Text && record.Head.Content == ""
		return accept, !waits
	}
	return accept, true
}

// recent drops removals that are more than a day old.
func recent(removals []swarm.Removal, now time.Time) []swarm.Removal {
	return slices.DeleteFunc(slices.Clone(removals), func(r swarm.Removal) bool { return now.Sub(r.At) > 24*time.Hour })
}

func (m *Manager) sawProblem(ctx context.Context, source swarm.Source, answer gitsync.Report) error {
	status := source.Status
	if status.Problem == answer.Problem.Error() {
		return nil
	}
	status.Problem = answer.Problem.Error()
	status.Since = answer.At
	return m.propose(ctx, store.Command{At: answer.At, SawSource: &store.SawSource{Source: source.ID, Status: status}})
}

// sawNothingNew writes down that the source answered, which ends a problem.
func (m *Manager) sawNothingNew(ctx context.Context, source swarm.Source, answer gitsync.Report) error {
	status := source.Status
	if status.Problem == "" && answer.At.Sub(status.Seen) < seenEvery {
		return nil
	}
	status.Seen, status.Problem, status.Since = answer.At, "", time.Time{}
	return m.propose(ctx, store.Command{At: answer.At, SawSource: &store.SawSource{Source: source.ID, Status: status}})
}
