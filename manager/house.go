package manager

import (
	"context"
	"fmt"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// keepHouseEvery is how often what nobody needs any more is looked for.
const keepHouseEvery = time.Hour

// keepHouse removes volumes that have outlived their stack for long enough, and
// objects of repositories that are no longer watched. Blobs are each manager's
// own to keep, see KeepBlobs.
func (m *Manager) keepHouse(ctx context.Context) error {
	tick := time.NewTicker(keepHouseEvery)
	defer tick.Stop()
	for {
		if err := m.tidy(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("house not kept", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (m *Manager) tidy(ctx context.Context) error {
	view := m.store.View()
	if expired := expiredVolumes(view.Volumes(), m.now()); len(expired) > 0 {
		if err := m.propose(ctx, store.Command{DropVolumes: expired}); err != nil {
			return fmt.Errorf("drop expired volumes: %w", err)
		}
	}
	return m.syncer.Sweep(m.store.View().Sources()) // a source that was added meanwhile is fetched already
}

func expiredVolumes(volumes []swarm.KeptVolume, now time.Time) []swarm.KeptVolume {
	var expired []swarm.KeptVolume
	for _, volume := range volumes {
		if !volume.Orphan.IsZero() && volume.Dropped.IsZero() && now.Sub(volume.Orphan) >= swarm.VolumeKept {
			expired = append(expired, volume)
		}
	}
	return expired
}

// liveBlobs collects every digest that a source, a kept revision or a task
// names.
func (m *Manager) liveBlobs(ctx context.Context, view *store.View) (map[swarm.Digest]bool, error) {
	live := make(map[swarm.Digest]bool)
	for _, source := range view.Sources() {
		live[source.Credential] = true
	}
	for _, task := range view.AllTasks() {
		live[task.Spec] = true
	}
	for _, record := range view.Stacks() {
		for _, content := range contentsOf(record) {
			live[content] = true
			stack, err := m.content(ctx, content)
			if err != nil {
				return nil, err
			}
			if stack != nil {
				noteBlobs(live, stack)
			}
		}
	}
	return live, nil
}

func contentsOf(record swarm.StackRecord) []swarm.Digest {
	contents := []swarm.Digest{record.Head.Content, record.Accepted.Content, record.Healthy.Content, record.Rollout.From.Content, record.Rollout.To.Content}
	for _, ended := range record.History {
		contents = append(contents, ended.To.Content)
	}
	return contents
}

func noteBlobs(live map[swarm.Digest]bool, stack *swarm.Stack) {
	for _, service := range stack.Services {
		live[service.Spec] = true
		for _, file := range service.Task.Files {
			live[file.Content] = true
		}
	}
}
