package manager

import (
	"context"
	"errors"
	"time"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// followCommits takes what the repositories answer, one answer after the
// other, and looks again at stacks that wait.
func (m *Manager) followCommits(ctx context.Context) error {
	last := make(map[swarm.SourceID]gitsync.Report) // the last answer with a commit, as one that is looked at again
	again := newAlarms[swarm.SourceID]()
	prepare := time.After(prepareAfter)
	defer m.loader.Close()
	for {
		var answer gitsync.Report
		select {
		case <-ctx.Done():
			return nil
		case answer = <-m.answers:
		case source := <-m.orders:
			answer = last[source]
		case <-again.ring():
			answer = last[again.due(time.Now())]
		case <-prepare:
			if len(m.store.View().Sources()) > 0 { // else no commit is to come
				m.loader.Prepare(ctx)
			}
		}
		if answer.Source == "" {
			continue
		}
		if answer.Commit != nil {
			last[answer.Source] = gitsync.Report{Source: answer.Source, Commit: answer.Commit}
		}

		switch err := m.accept(ctx, answer); {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrNotLeader):
			return err
		case errors.Is(err, store.ErrStale): // an operator was faster
			again.set(answer.Source, time.Now())
		case err != nil:
			m.log.Error("commit not accepted", "source", answer.Source, "err", err)
			again.set(answer.Source, time.Now().Add(retryAfter))
		case answer.Commit != nil:
			again.set(answer.Source, m.nextTry(answer.Source))
		}
		m.heard(answer)
		if answer.Commit != nil {
			prepare = time.After(prepareAfter)
		}
	}
}

// prepareAfter is how long after a commit the process that loads the next one
// is started: what the commit began needs the processors first.
const prepareAfter = 3 * time.Second

// retryAfter is how long the leader waits after a step that failed for a
// reason of its own: a full disk, a blob that can't be read.
const retryAfter = 5 * time.Second

// nextTry returns when a source's stacks that wait for something outside of
// the cluster should be tried once more, or zero if none waits.
func (m *Manager) nextTry(source swarm.SourceID) time.Time {
	var waiting []swarm.Problem
	for _, record := range m.store.View().Stacks() {
		if record.Source == source && record.Problem != nil && record.Problem.Kind == swarm.ProblemWaiting {
			waiting = append(waiting, *record.Problem)
		}
	}
	if m.unreadable[source] != "" { // another source may give the stack's name free
		waiting = append(waiting, swarm.Problem{})
	}
	return tryAgain(waiting, m.now())
}

// tryAgain returns when to try again what waits: after 2 s at first, then after
// as long as it has waited, at most 30 s.
func tryAgain(waiting []swarm.Problem, now time.Time) (soonest time.Time) {
	const first, longest = 2 * time.Second, 30 * time.Second
	for _, problem := range waiting {
		wait := min(max(now.Sub(problem.Since), first), longest)
		if at := now.Add(wait); soonest.IsZero() || at.Before(soonest) {
			soonest = at
		}
	}
	return soonest
}

// followStacks advances each stack that Apply touched, and each whose deadline
// has come. Stacks that wait for room are looked at again when there may be
// some.
func (m *Manager) followStacks(ctx context.Context) error {
	touched := m.store.Subscribe()
	defer touched.Close()
	round := newRound()
	for {
		news, changed := touched.Take()
		for _, name := range round.stacks(m.store.View(), news, time.Now()) {
			askAt, err := m.advance(ctx, name)
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, store.ErrNotLeader):
				return err
			case errors.Is(err, store.ErrStale): // its record changed meanwhile, so it is touched again
			case err != nil:
				m.log.Error("stack not advanced", "stack", name, "err", err)
				askAt = time.Now().Add(retryAfter)
			}
			round.looked(m.store.View(), name, askAt, m.followsNodes(ctx, name))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-round.deadlines.ring():
		}
	}
}
