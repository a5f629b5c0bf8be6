package manager

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/reconciler"
	"github.com/gitswarm/gitswarm/swarm"
)

// lead carries every commit and every status along the route, until ctx ends
// or leadership is lost. All that it knows comes from the store and all that
// it wants is proposed to it, so whoever leads next goes on where it stopped.
func (m *Manager) lead(ctx context.Context) error {
	if err := m.propose(ctx, store.Command{Lead: &store.Lead{Node: m.config.Node, Cluster: m.newName()}}); err != nil {
		return err
	}
	if err := m.found(ctx); err != nil {
		return err
	}
	if err := m.grant(ctx); err != nil {
		return err
	}
	m.forget()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.watchSources(ctx) })
	group.Go(func() error { return m.followCommits(ctx) })
	group.Go(func() error { return m.followStacks(ctx) })
	group.Go(func() error { return m.keepHouse(ctx) })
	group.Go(func() error { return m.keepMembers(ctx) })
	return group.Wait()
}

// accept is the first half of the route: from what a repository answered to
// stacks that the cluster has agreed to run. It touches no task. An answer
// whose At is zero is one from before that is looked at again.
func (m *Manager) accept(ctx context.Context, answer gitsync.Report) error {
	view := m.store.View()
	source, watched := view.Source(answer.Source)
	switch {
	case !watched || source.Suspended != "": // the watch that heard it is ending
		return nil
	case answer.Problem != nil:
		return m.sawProblem(ctx, source, answer.Problem.Error())
	case answer.Commit == nil:
		return m.sawNothingNew(ctx, source, answer)
	}

	began := m.now()
	found, err := m.find(source, answer.Commit)
	if err != nil {
		return m.sawProblem(ctx, source, err.Error())
	}
	commit, err := m.load(ctx, view, source, answer.Commit, found) // the stacks that the commit touched, rendered
	if err != nil {
		return fmt.Errorf("load %s: %w", answer.Commit.Revision, err)
	}
	for _, candidate := range commit.candidates {
		m.resolve(ctx, view, candidate) // image strings to digests
		m.judge(view, candidate)        // policy on the stack
		m.seal(ctx, candidate)          // contents and specs to blobs
		m.examine(view, candidate)      // quarantine
	}
	if err := m.guard(ctx, view, source, commit); err != nil { // policy on what the commit takes away
		return fmt.Errorf("guard %s: %w", answer.Commit.Revision, err)
	}

	if command, changed := commit.acceptance(source, answer.At, began); changed {
		if err := m.propose(ctx, command); err != nil {
			return fmt.Errorf("accept %s: %w", answer.Commit.Revision, err)
		}
		m.log.Info("commit accepted", "source", source.ID, "revision", commit.revision, "stacks", len(commit.candidates), "took", m.now().Sub(began))
	}
	m.remember(source.ID, commit)
	return nil
}

// advance is the second half: one step of one stack, from what the cluster
// agreed to run to tasks that run it. The dispatcher carries the tasks to
// their nodes, the agents' statuses come back through the log, and the change
// they make brings the stack here again. It returns when time alone may ask
// for the next step.
func (m *Manager) advance(ctx context.Context, name swarm.StackName) (askAt time.Time, err error) {
	now := time.Now()
	view := m.store.View()
	sight, found, err := m.look(ctx, view, name)
	if err != nil || !found {
		return time.Time{}, err
	}
	sight.Obstacles = m.obstacles(view, sight) // would it fit, were it begun now?

	decision := reconciler.Advance(sight, now)
	decide, err := m.equip(ctx, view, sight, decision) // networks, addresses, ports, nodes
	if err != nil {
		return time.Time{}, fmt.Errorf("advance %s: %w", name, err)
	}
	if !idle(decide) {
		err = m.propose(ctx, store.Command{At: now, Decide: &decide})
	}
	return decision.AskAt, err
}
