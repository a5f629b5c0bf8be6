package manager

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// A watch is one source that is being followed.
type watch struct {
	source swarm.Source // without its status
	stop   context.CancelFunc
	nudge  chan struct{} // holds one: more would say no more
}

// watchSources follows every source of the cluster, and goes on with those
// that are added, changed or removed.
func (m *Manager) watchSources(ctx context.Context) error {
	touched := m.store.Subscribe()
	defer touched.Close()
	var watches sync.WaitGroup
	defer watches.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer m.forgetWatches()

	for first := true; ; first = false {
		news, changed := touched.Take()
		if first || news.Everything || len(news.Sources) > 0 {
			m.adjustWatches(ctx, m.store.View().Sources(), &watches)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// adjustWatches starts what is missing and stops what is no longer wanted.
func (m *Manager) adjustWatches(ctx context.Context, sources []swarm.Source, watches *sync.WaitGroup) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wanted := make(map[swarm.SourceID]bool)
	for _, source := range sources {
		source.Status = swarm.SourceStatus{}
		source.Approved = false
		wanted[source.ID] = source.Suspended == ""
		old, running := m.watches[source.ID]
		if running && fmt.Sprint(old.source) == fmt.Sprint(source) {
			continue
		}
		if running {
			old.stop()
			delete(m.watches, source.ID)
		}
		if source.Suspended == "" {
			m.startWatch(ctx, source, watches)
		}
	}
	for id, w := range m.watches {
		if !wanted[id] {
			w.stop()
			delete(m.watches, id)
		}
	}
}

func (m *Manager) startWatch(ctx context.Context, source swarm.Source, watches *sync.WaitGroup) {
	ctx, stop := context.WithCancel(ctx)
	w := &watch{source: source, stop: stop, nudge: make(chan struct{}, 1)}
	m.watches[source.ID] = w
	watches.Go(func() {
		credential, err := m.credential(ctx, source.Credential)
		if err == nil {
			err = m.syncer.Watch(ctx, source, credential, w.nudge, func(answer gitsync.Report) { m.hear(ctx, answer) })
		}
		if err != nil && ctx.Err() == nil {
			m.hear(ctx, gitsync.Report{Source: source.ID, Problem: err, At: m.now()})
		}
	})
}

// hear hands an answer to followCommits.
func (m *Manager) hear(ctx context.Context, answer gitsync.Report) {
	select {
	case m.answers <- answer:
	case <-ctx.Done():
	}
}

func (m *Manager) forgetWatches() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, w := range m.watches {
		w.stop()
		delete(m.watches, id)
	}
}

func (m *Manager) credential(ctx context.Context, digest swarm.Digest) (swarm.Credential, error) {
	var credential swarm.Credential
	if digest == "" {
		return credential, nil
	}
	data, err := m.blobs.Get(ctx, digest)
	if err != nil {
		return credential, fmt.Errorf("read the source's credential: %w", err)
	}
	return credential, codec.Decode(data, &credential)
}

// SyncSource fetches now, and returns once what the repository answered is in
// the log. A source that was added just now is asked anyway.
func (m *Manager) SyncSource(ctx context.Context, id swarm.SourceID) error {
	source, found := m.store.View().Source(id)
	switch {
	case !found:
		return fmt.Errorf("sync source %s: %w", id, errNotWatched)
	case source.Suspended != "":
		return fmt.Errorf("sync source %s: it is suspended: %s", id, source.Suspended)
	}
	heard := m.nextAnswer(id, m.now())
	again := time.NewTicker(nudgeEvery)
	defer again.Stop()
	for {
		m.nudge(id)
		select {
		case <-heard:
			return nil
		case <-again.C: // the watch may have begun just now, or answered what was asked before
		case <-ctx.Done():
			return fmt.Errorf("sync source %s: the repository has not answered: %w", id, ctx.Err())
		}
	}
}

// nudgeEvery is how often a source is asked while somebody waits for it.
const nudgeEvery = 2 * time.Second

// nudge asks a source now, if it is watched.
func (m *Manager) nudge(id swarm.SourceID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.watches[id]; w != nil {
		select {
		case w.nudge <- struct{}{}:
		default: // it was nudged already
		}
	}
}

// A waiter is somebody who wants to know that an answer which the source gave
// since then has been dealt with.
type waiter struct {
	since time.Time
	heard chan struct{}
}

func (m *Manager) nextAnswer(id swarm.SourceID, since time.Time) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := waiter{since, make(chan struct{})}
	m.waiters[id] = append(m.waiters[id], w)
	return w.heard
}

// heard tells those who wait that an answer has been dealt with. One that was
// under way when they asked does not count.
func (m *Manager) heard(answer gitsync.Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiters[answer.Source] = slices.DeleteFunc(m.waiters[answer.Source], func(w waiter) bool {
		if answer.At.Before(w.since) {
			return false
		}
		close(w.heard)
		return true
	})
}

// propose commits a command; its time is now unless it has one.
func (m *Manager) propose(ctx context.Context, command store.Command) error {
	if command.At.IsZero() {
		command.At = m.now()
	}
	_, err := m.store.Propose(ctx, command)
	return err
}
