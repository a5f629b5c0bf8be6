package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	kept       int  // stacks of the source that the commit has
	moved      bool // branch or path differ from what was last read
	asked      *swarm.Problem
	removals   swarm.Removal // what goes without being asked
	problem    string        // what of the commit can't be read; the rest is accepted
	cache      *sourceCache  // what to remember once the commit is accepted
}

// A candidate is one stack of a commit on its way to being accepted.
type candidate struct {
	found   gitsync.Found
	record  swarm.StackRecord // as it is now; zero for a new stack
	before  *swarm.Stack      // what is accepted now; nil for a new stack
	pins    []*swarm.Stack    // what its images may have been resolved to before, the newest first
	loaded  compose.Loaded
	reads   []string     // paths that decide what it renders to
	stack   *swarm.Stack // what the commit wants; nil if it can't be rendered
	head    swarm.Rendered
	problem *swarm.Problem
}

// load renders the stacks of a commit that differ from what was last read, and
// those that wait for something outside of the cluster.
func (m *Manager) load(ctx context.Context, view *store.View, source swarm.Source, from *gitsync.Commit, found []gitsync.Found) (*commit, error) {
	c := &commit{revision: from.Revision, kept: len(found), cache: newSourceCache(from.Tree)}
	old := m.caches[source.ID]
	changed, all := m.changedPaths(source, from, old)
	for _, f := range found {
		record, _ := view.Stack(f.Name)
		if owner, foreign := owner(view, record, source.ID); foreign {
			c.problem = ownedText(f.Name, owner)
			continue
		}
		c.cache.found[f.Name] = f
		switch waits := record.Problem != nil && record.Problem.Kind == swarm.ProblemWaiting; {
		case all, waits:
		case old == nil && settled(record):
			if err := m.recall(ctx, c.cache, record); err != nil {
				return nil, err
			}
			continue
		case old != nil && old.unchanged(f, changed):
			c.cache.carry(old, f.Name)
			continue
		}
		candidate, err := m.candidate(ctx, from, f, record)
		if err != nil {
			return nil, err
		}
		c.candidates = append(c.candidates, candidate)
	}
	if err := m.render(ctx, from, c.candidates); err != nil {
		return nil, err
	}
	for _, candidate := range c.candidates {
		if err := m.trace(ctx, view, source.ID, candidate, c.cache); err != nil {
			return nil, err
		}
	}
	c.removed = removedStacks(view, source.ID, c.cache)
	return c, nil
}

func ownedText(name swarm.StackName, owner swarm.SourceID) string {
	return fmt.Sprintf("stack %q belongs to source %s already; give one of them another name", name, owner)
}

// find lists the stacks that a commit has. What keeps it from being read stays
// the source's problem until another commit comes.
func (m *Manager) find(source swarm.Source, from *gitsync.Commit) ([]gitsync.Found, error) {
	found, _, err := gitsync.FindStacks(from.Tree, source.Path, source.Environment)
	if err != nil {
		err = fmt.Errorf("find stacks in %s: %w", from.Revision.Short(), err)
		m.unreadable[source.ID] = err.Error()
	}
	return found, err
}

// remember keeps what the next commit is compared with.
func (m *Manager) remember(source swarm.SourceID, c *commit) {
	m.caches[source] = c.cache
	m.unreadable[source] = c.problem
}

// forget begins a term with nothing remembered.
func (m *Manager) forget() {
	m.caches = make(map[swarm.SourceID]*sourceCache)
	m.unreadable = make(map[swarm.SourceID]string)
}

// owner tells which other source a stack belongs to, if any. The stacks of a
// source that is no longer watched are free to be taken over.
func owner(view *store.View, record swarm.StackRecord, source swarm.SourceID) (swarm.SourceID, bool) {
	if record.Source == source || record.Source == "" {
		return record.Source, false
	}
	_, watched := view.Source(record.Source)
	return record.Source, watched
}

// candidate begins with one stack of the commit. A stack that can't be loaded
// is a candidate with a problem; an error means that the cluster's own content
// could not be read.
func (m *Manager) candidate(ctx context.Context, from *gitsync.Commit, found gitsync.Found, record swarm.StackRecord) (*candidate, error) {
	c := &candidate{found: found, record: record, head: swarm.Rendered{
		Revision: from.Revision, Author: from.Author, Subject: from.Subject, Committed: from.Committed,
	}}
	var err error
	if c.before, err = m.content(ctx, record.Accepted.Content); err != nil {
		return nil, err
	}
	healthy, err := m.content(ctx, record.Healthy.Content)
	if err != nil {
		return nil, err
	}
	c.pins = []*swarm.Stack{c.before, healthy}

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
	for i, result := range m.loader.LoadAll(ctx, treeOf{from.Tree}, projects) {
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
	case err != nil: // the tree or the child failed, not what is written there
		c.refuse(swarm.ProblemWaiting, err.Error())
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
	c.stack, c.head.Content = nil, ""
}

// refusals leaves the warnings out.
func refusals(findings []swarm.Finding) []swarm.Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f swarm.Finding) bool { return f.Class != swarm.Refused })
}

// acceptance is the command that the commit comes down to, and whether it
// says anything new.
func (c *commit) acceptance(source swarm.Source, seen, now time.Time) (store.Command, bool) {
	accept := &store.AcceptStacks{Source: source.ID, Status: c.status(source, seen, now)}
	for _, candidate := range c.candidates {
		if stack, changed := candidate.acceptance(now); changed {
			accept.Stacks = append(accept.Stacks, stack)
		}
	}
	for _, record := range c.removed {
		if stack, changed := removal(record, c, now); changed {
			accept.Stacks = append(accept.Stacks, stack)
		}
	}
	slices.SortFunc(accept.Stacks, func(a, b store.AcceptStack) int { return cmp.Compare(a.Name, b.Name) })

	old := source.Status
	changed := len(accept.Stacks) > 0 || old.Head != c.revision || old.Problem != accept.Status.Problem ||
		old.Scope != accept.Status.Scope || accept.Status.Seen.Sub(old.Seen) >= seenEvery
	return store.Command{At: now, AcceptStacks: accept}, changed
}

func (c *candidate) acceptance(now time.Time) (store.AcceptStack, bool) {
	accept := store.AcceptStack{Name: c.found.Name, Path: c.found.Dir, Head: c.head, Problem: c.problem, Warnings: c.loaded.Findings, Version: c.record.Version}
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
	accept := store.AcceptStack{Name: record.Name, Path: record.Path, Head: swarm.Rendered{Revision: c.revision}, Removed: true, Version: record.Version}
	if c.asked != nil && record.Accepted.Content != "" {
		problem := *c.asked
		problem.Since = now
		accept.Problem = &problem
		waits := record.Problem != nil && record.Problem.Kind == swarm.ProblemApproval && record.Problem.Text == problem.Text && record.Head.Content == ""
		return accept, !waits
	}
	return accept, true
}
