package manager

import (
	"context"
	"path"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// seenEvery is how often an answer without news is written down.
const seenEvery = time.Minute

// scope is what a source was read under; a change of it is guarded. The branch
// is the one that was read: the remote's HEAD may have begun to name another.
func scope(source swarm.Source, revision swarm.Revision) string {
	return revision.Branch() + ":" + path.Clean("/"+source.Path) + ":" + source.Environment
}

// status is the source's after the commit. A commit that is looked at again
// says nothing of the repository: what was seen of it stays.
func (c *commit) status(source swarm.Source, seen, now time.Time) swarm.SourceStatus {
	status := source.Status
	status.Head, status.Removed = c.revision, recent(source.Status.Removed, now)
	if c.asked == nil || !c.moved {
		status.Scope = scope(source, c.revision)
	}
	if c.removals.Stacks+c.removals.Services > 0 {
		status.Removed = append(status.Removed, c.removals)
	}
	if !seen.IsZero() {
		status.Seen = seen
		status.Problem, status.Since = said(status, c.problem, now)
	}
	return status
}

// said is the problem that a status has from now on, and since when.
func said(status swarm.SourceStatus, problem string, now time.Time) (string, time.Time) {
	switch problem {
	case "":
		return "", time.Time{}
	case status.Problem:
		return problem, status.Since
	}
	return problem, now
}

// recent drops removals that are more than a day old.
func recent(removals []swarm.Removal, now time.Time) []swarm.Removal {
	return slices.DeleteFunc(slices.Clone(removals), func(r swarm.Removal) bool { return now.Sub(r.At) > 24*time.Hour })
}

func (m *Manager) sawProblem(ctx context.Context, source swarm.Source, problem string) error {
	status := source.Status
	if status.Problem == problem {
		return nil
	}
	now := m.now()
	status.Problem, status.Since = said(status, problem, now)
	return m.propose(ctx, store.Command{At: now, SawSource: &store.SawSource{Source: source.ID, Status: status}})
}

// sawNothingNew writes down that the source answered, which ends a problem
// unless the newest commit itself is the problem.
func (m *Manager) sawNothingNew(ctx context.Context, source swarm.Source, answer gitsync.Report) error {
	status := source.Status
	status.Seen = answer.At
	status.Problem, status.Since = said(status, m.unreadable[source.ID], answer.At)
	if status.Problem == source.Status.Problem && answer.At.Sub(source.Status.Seen) < seenEvery {
		return nil
	}
	return m.propose(ctx, store.Command{At: answer.At, SawSource: &store.SawSource{Source: source.ID, Status: status}})
}
