package manager

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// sourceCache is what the leader remembers of a source between two commits.
type sourceCache struct {
	tree   *gitsync.Tree
	found  map[swarm.StackName]gitsync.Found
	reads  map[swarm.StackName][]string        // a stack that this leader has not loaded is not in it
	was    map[swarm.StackName]swarm.StackName // of stacks that were never accepted: the former name, or ""
	unread map[swarm.StackName]bool            // never accepted and never read: they may be any stack's new name
}

func newSourceCache(tree *gitsync.Tree) *sourceCache {
	return &sourceCache{
		tree: tree, found: make(map[swarm.StackName]gitsync.Found), reads: make(map[swarm.StackName][]string),
		was: make(map[swarm.StackName]swarm.StackName), unread: make(map[swarm.StackName]bool),
	}
}

// unchanged reports whether a commit that changed these paths left the stack
// as it was. What a stack reads that was not loaded yet is not known: any
// change may be one of it.
func (c *sourceCache) unchanged(f gitsync.Found, changed []string) bool {
	reads, known := c.reads[f.Name]
	return same(c.found[f.Name], f) && (len(changed) == 0 || known && !touches(changed, f, reads))
}

// carry remembers of a stack what was remembered before.
func (c *sourceCache) carry(old *sourceCache, name swarm.StackName) {
	if reads, known := old.reads[name]; known {
		c.reads[name] = reads
	}
	if was, known := old.was[name]; known {
		c.was[name] = was
	}
	if old.unread[name] {
		c.unread[name] = true
	}
}

// changedPaths returns the paths that differ from what was last read; all
// means that this can't be told.
func (m *Manager) changedPaths(source swarm.Source, from *gitsync.Commit, old *sourceCache) (changed []string, all bool) {
	if old == nil {
		sameHead := source.Status.Head == from.Revision && source.Status.Scope == scope(source, from.Revision)
		return nil, !sameHead || m.regranted
	}
	changed, err := from.Tree.Changed(old.tree)
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

// recall remembers a stack that an earlier leader has read: its former name,
// if it still waits to be accepted under the new one.
func (m *Manager) recall(ctx context.Context, cache *sourceCache, record swarm.StackRecord) error {
	if record.Accepted.Content != "" {
		return nil
	}
	stack, err := m.content(ctx, record.Head.Content)
	if err != nil {
		return err
	}
	if stack == nil {
		cache.unread[record.Name] = true
		return nil
	}
	cache.was[record.Name] = stack.Was
	return nil
}

// trace remembers what a candidate read and where it comes from. One that
// takes over another stack's name keeps that stack's digests.
func (m *Manager) trace(ctx context.Context, view *store.View, source swarm.SourceID, c *candidate, cache *sourceCache) error {
	cache.reads[c.found.Name] = c.reads
	if c.record.Accepted.Content != "" {
		return nil
	}
	if c.stack == nil {
		cache.unread[c.found.Name] = true
		return nil
	}
	was := c.stack.Was
	cache.was[c.found.Name] = was
	if was == "" {
		return nil
	}

	former, _ := view.Stack(was)
	stack, err := m.content(ctx, former.Accepted.Content)
	if err != nil {
		return err
	}
	c.pins = append(c.pins, stack)
	_, there := cache.found[was]
	other, foreign := owner(view, former, source)
	switch {
	case there:
		c.refuse(swarm.ProblemLoad, fmt.Sprintf("x-gitswarm.was names stack %q, which the commit has as well; remove one of the two", was))
	case foreign:
		c.refuse(swarm.ProblemLoad, fmt.Sprintf("x-gitswarm.was names stack %q, which belongs to source %s; rename it there", was, other))
	}
	return nil
}

// removedStacks returns the stacks of a source that its tree no longer has,
// less those that others take over under a new name.
func removedStacks(view *store.View, source swarm.SourceID, cache *sourceCache) []swarm.StackRecord {
	renamed := make(map[swarm.StackName]bool)
	for _, was := range cache.was {
		renamed[was] = true
	}
	var removed []swarm.StackRecord
	for _, record := range view.Stacks() {
		if _, there := cache.found[record.Name]; record.Source == source && !there && !record.Removing && !renamed[record.Name] {
			removed = append(removed, record)
		}
	}
	return removed
}
