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
	m.caches = make(map[swarm.SourceID]*sourceCache)
	last := make(map[swarm.SourceID]gitsync.Report) // the last answer with a commit
	again := newAlarms[swarm.SourceID]()
	for {
		var answer gitsync.Report
		var wake map[swarm.StackName]bool
		select {
		case <-ctx.Done():
			return nil
		case answer = <-m.answers:
		case order := <-m.orders:
			answer, wake = last[order.source], order.stacks
		case <-again.ring():
			source := again.due(time.Now())
			answer, wake = last[source], m.waiting(source)
		}
		if answer.Source == "" {
			continue
		}
		if answer.Commit != nil {
			last[answer.Source] = answer
		}
		at, err := m.accept(ctx, answer, wake)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, store.ErrNotLeader) {
				return nil
			}
			m.log.Error("commit not accepted", "source", answer.Source, "err", err)
			at = time.Now().Add(retryAfter)
		}
		again.set(answer.Source, at)
		m.heard(answer.Source)
	}
}

// retryAfter is how long the leader waits after a step that failed for a
// reason of its own: a full disk, a blob that can't be read.
const retryAfter = 5 * time.Second

// waiting lists the stacks of a source whose problem may have solved itself.
func (m *Manager) waiting(source swarm.SourceID) map[swarm.StackName]bool {
	wake := make(map[swarm.StackName]bool)
	for _, record := range m.store.View().Stacks() {
		if record.Source == source && record.Problem != nil && record.Problem.Kind == swarm.ProblemWaiting {
			wake[record.Name] = true
		}
	}
	return wake
}

// followStacks advances each stack that Apply touched, and each whose deadline
// has come. Stacks that wait for room are looked at again with every change.
func (m *Manager) followStacks(ctx context.Context) error {
	touched := m.store.Subscribe()
	defer touched.Close()
	deadlines := newAlarms[swarm.StackName]()
	for {
		news, changed := touched.Take()
		for _, name := range m.stacksToLookAt(news, deadlines) {
			askAt, err := m.advance(ctx, name)
			switch {
			case ctx.Err() != nil || errors.Is(err, store.ErrNotLeader):
				return nil
			case errors.Is(err, store.ErrStale): // its record changed meanwhile, so it is touched again
			case err != nil:
				m.log.Error("stack not advanced", "stack", name, "err", err)
				askAt = time.Now().Add(retryAfter)
			}
			deadlines.set(name, askAt)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-deadlines.ring():
		}
	}
}

// stacksToLookAt lists, sorted and once each, the stacks that news touches,
// those that are due, and those that something which changed may have made
// room for.
func (m *Manager) stacksToLookAt(news store.Touched, deadlines *alarms[swarm.StackName]) []swarm.StackName {
	names := make(map[swarm.StackName]bool)
	for _, name := range news.Stacks {
		names[name] = true
	}
	for now := time.Now(); ; {
		name := deadlines.due(now)
		if name == "" {
			break
		}
		names[name] = true
	}
	everyone := news.Everything || len(news.Nodes) > 0
	for _, record := range m.store.View().Stacks() {
		if everyone || record.Rollout.Phase == swarm.PhaseWaiting {
			names[record.Name] = true
		}
	}
	return sorted(names)
}
