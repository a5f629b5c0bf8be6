package manager

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// KeepBlobs makes this manager's blobs what the cluster's state names: what is
// missing here comes from other managers, what nothing names any more goes.
// Every manager calls it, whether it leads or not: when it begins, and from
// time to time. It waits for a leader until ctx ends.
func (m *Manager) KeepBlobs(ctx context.Context) error {
	if err := m.store.Confirm(ctx); err != nil {
		return fmt.Errorf("keep blobs: %w", err)
	}
	live, err := m.liveBlobs(ctx, m.store.View())
	if err != nil {
		return fmt.Errorf("keep blobs: %w", err)
	}
	came, missing := m.blobs.Fill(ctx, slices.Sorted(maps.Keys(live)))
	if came > 0 {
		m.log.Info("blobs came from other managers", "blobs", came)
	}
	_, err = m.blobs.Sweep(func(digest swarm.Digest) bool { return live[digest] })
	if err = errors.Join(missing, err); err != nil {
		return fmt.Errorf("keep blobs: %w", err)
	}
	return nil
}
