package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/reconciler"
	"github.com/gitswarm/gitswarm/swarm"
)

// Plan says what a commit or a folder would change, by the same steps that
// would change it: load, resolve, judge, diff, place. It proposes nothing.
func (m *Manager) Plan(ctx context.Context, request api.PlanRequest) (api.PlanResult, error) {
	view := m.store.View()
	source, err := planSource(view, request.Source)
	if err != nil {
		return api.PlanResult{}, fmt.Errorf("plan: %w", err)
	}
	commit, err := m.planCommit(ctx, source, request)
	if err != nil {
		return api.PlanResult{}, fmt.Errorf("plan: %w", err)
	}
	found, _, err := gitsync.FindStacks(commit.Tree, source.Path, cmp.Or(request.Environment, source.Environment))
	if err != nil {
		return api.PlanResult{}, fmt.Errorf("plan: find stacks: %w", err)
	}

	result := api.PlanResult{Revision: commit.Revision}
	var candidates []*candidate
	cache := newSourceCache(commit.Tree)
	for _, f := range found {
		if request.Stack != "" && f.Name != request.Stack {
			continue
		}
		record, _ := view.Stack(f.Name)
		if owner, foreign := owner(view, record, source.ID); foreign {
			result.Stacks = append(result.Stacks, api.StackPlan{Name: f.Name, Problem: &swarm.Problem{Kind: swarm.ProblemLoad, Text: ownedText(f.Name, owner)}})
			continue
		}
		cache.found[f.Name] = f
		c, err := m.candidate(ctx, commit, f, record)
		if err != nil {
			return result, fmt.Errorf("plan: %w", err)
		}
		candidates = append(candidates, c)
	}
	if err := m.render(ctx, commit, candidates); err != nil {
		return result, fmt.Errorf("plan: %w", err)
	}
	for _, c := range candidates {
		if err := m.trace(ctx, view, source.ID, c, cache); err != nil {
			return result, fmt.Errorf("plan: %w", err)
		}
		m.resolve(ctx, view, c)
		m.judge(view, c)
		m.seal(ctx, c)
		m.examine(view, c)
		result.Stacks = append(result.Stacks, m.planStack(ctx, view, c))
	}
	if request.Stack == "" {
		result.Stacks = append(result.Stacks, m.planRemovals(ctx, view, source, found)...)
	}
	slices.SortFunc(result.Stacks, func(a, b api.StackPlan) int { return cmp.Compare(a.Name, b.Name) })
	return result, nil
}

// planSource returns the source that was named, or the only one.
func planSource(view *store.View, id swarm.SourceID) (swarm.Source, error) {
	sources := view.Sources()
	if id != "" {
		source, found := view.Source(id)
		if !found {
			return source, errNotWatched
		}
		return source, nil
	}
	switch len(sources) {
	case 0:
		return swarm.Source{}, errors.New("no repository is watched; type `gitswarm init --repo URL`")
	case 1:
		return sources[0], nil
	}
	return swarm.Source{}, fmt.Errorf("%d repositories are watched; name one with --source", len(sources))
}

func (m *Manager) planCommit(ctx context.Context, source swarm.Source, request api.PlanRequest) (*gitsync.Commit, error) {
	if request.Dir != "" {
		return gitsync.FromDir(request.Dir)
	}
	if request.Ref == "" {
		return m.syncer.Commit(source, source.Status.Head)
	}
	credential, err := m.credential(ctx, source.Credential)
	if err != nil {
		return nil, err
	}
	return m.fetchBranch(ctx, source, credential, request.Ref)
}

// fetchBranch reads the newest commit of another branch of a source.
func (m *Manager) fetchBranch(ctx context.Context, source swarm.Source, credential swarm.Credential, branch string) (*gitsync.Commit, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	source.ID += swarm.SourceID("-plan-" + branch) // objects of its own, which keepHouse removes
	source.Branch = branch
	var first gitsync.Report
	err := m.syncer.Watch(ctx, source, credential, nil, func(answer gitsync.Report) {
		if first.Source == "" {
			first = answer
		}
		stop()
	})
	switch {
	case err != nil:
		return nil, err
	case first.Problem != nil:
		return nil, fmt.Errorf("read branch %s: %w", branch, first.Problem)
	case first.Commit == nil:
		return nil, fmt.Errorf("read branch %s: %w", branch, ctx.Err())
	}
	return first.Commit, nil
}

// planStack diffs what a candidate wants against what runs, and places what
// would start.
func (m *Manager) planStack(ctx context.Context, view *store.View, c *candidate) api.StackPlan {
	plan := api.StackPlan{Name: c.found.Name, Problem: c.problem, Findings: c.loaded.Findings}
	if c.stack == nil {
		return plan
	}
	sight, found, err := m.look(ctx, view, c.found.Name)
	if err != nil {
		plan.Problem = &swarm.Problem{Kind: swarm.ProblemWaiting, Text: err.Error()}
		return plan
	}
	if !found {
		sight = reconciler.View{Record: swarm.StackRecord{Name: c.found.Name}, Nodes: view.Nodes()}
	}
	sight.Accepted, sight.Record.Accepted = c.stack, c.head
	sight.Record.Removing = false
	plan.Plan = reconciler.Diff(sight)
	m.placeSteps(view, sight, &plan)
	return plan
}

// placeSteps writes into each step the node that the scheduler gives it.
func (m *Manager) placeSteps(view *store.View, sight reconciler.View, plan *api.StackPlan) {
	wanted, gone, steps := m.wantedSteps(view, sight, plan.Plan)
	for i, placement := range m.picture.place(wanted, gone) {
		if placement.Node == "" && plan.Problem == nil {
			plan.Problem = &swarm.Problem{Kind: swarm.ProblemWaiting, Text: placement.Why}
		}
		plan.Plan.Steps[steps[i]].Node = placement.Node
	}
	if busy := m.obstacles(view, sight); plan.Problem == nil && len(busy) > 0 {
		plan.Problem = &swarm.Problem{Kind: swarm.ProblemWaiting, Text: busy[0]}
	}
}

func (m *Manager) planRemovals(ctx context.Context, view *store.View, source swarm.Source, found []gitsync.Found) []api.StackPlan {
	var plans []api.StackPlan
	for _, record := range view.Stacks() {
		there := slices.ContainsFunc(found, func(f gitsync.Found) bool { return f.Name == record.Name })
		if there || record.Source != source.ID || record.Removing {
			continue
		}
		sight, _, err := m.look(ctx, view, record.Name)
		if err != nil {
			continue
		}
		sight.Record.Removing, sight.Accepted = true, nil
		plans = append(plans, api.StackPlan{Name: record.Name, Plan: reconciler.Diff(sight)})
	}
	return plans
}
