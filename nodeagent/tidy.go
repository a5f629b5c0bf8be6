package nodeagent

import (
	"context"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

const (
	blobsKept  = 10 * time.Minute   // how long content that no task names stays on disk
	imagesKept = 7 * 24 * time.Hour // how long images that no container uses stay
	pruneEvery = 6 * time.Hour
)

// keepTidy removes the volumes that the assignment gives up and the content
// that no task names, when there may be some, and once what an unclean end left
// behind. Images go when nothing has used them for a week.
func (a *Agent) keepTidy(ctx context.Context) error {
	prune := time.NewTicker(pruneEvery)
	defer prune.Stop()
	swept := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-prune.C:
			if _, err := a.config.Runtime.PruneImages(ctx, imagesKept); err != nil {
				a.log.Error("images were not pruned", "error", err)
			}
			continue
		case <-a.tidy:
		}
		if !swept {
			swept = a.sweepRuntime(ctx)
		}
		a.removeVolumes(ctx)
		a.sweepBlobs()
	}
}

// sweepRuntime reports whether there was a word from a manager to sweep by.
func (a *Agent) sweepRuntime(ctx context.Context) bool {
	a.mu.Lock()
	heard := a.heard
	a.mu.Unlock()
	if !heard {
		return false
	}
	err := a.config.Runtime.Sweep(ctx, func(task swarm.TaskID) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.workers[task] != nil
	})
	if err != nil && ctx.Err() == nil {
		a.log.Error("leftovers were not swept", "error", err)
	}
	return true
}

func (a *Agent) removeVolumes(ctx context.Context) {
	a.mu.Lock()
	volumes := a.held.Assignment.Volumes
	heard := a.heard
	a.mu.Unlock()
	if !heard || len(volumes) == 0 {
		return
	}

	used := a.volumesInUse()
	var removed []swarm.VolumeID
	for _, volume := range volumes {
		if used[volume] {
			continue // its task's end tidies again
		}
		if err := a.config.Runtime.RemoveVolume(ctx, volume); err != nil {
			a.log.Error("volume was not removed", "volume", volume, "error", err)
			continue
		}
		a.log.Info("volume was removed", "volume", volume)
		removed = append(removed, volume)
	}
	if len(removed) > 0 {
		a.outbox.gone(removed)
	}
}

func (a *Agent) volumesInUse() map[swarm.VolumeID]bool {
	used := make(map[swarm.VolumeID]bool)
	for _, w := range a.everyone() {
		w.mu.Lock()
		if w.spec != nil && w.seen.Traces {
			for _, mount := range w.spec.Mounts {
				if mount.Kind == swarm.MountVolume {
					used[swarm.NewVolumeID(w.task.Service.Stack(), mount.Source)] = true
				}
			}
		}
		w.mu.Unlock()
	}
	return used
}

func (a *Agent) sweepBlobs() {
	live := make(map[swarm.Digest]bool)
	for _, w := range a.everyone() {
		w.mu.Lock()
		live[w.task.Spec] = true
		if w.spec != nil {
			for _, file := range w.spec.Files {
				live[file.Content] = true
			}
		}
		w.mu.Unlock()
	}
	if err := a.keep.sweep(live, time.Now().Add(-blobsKept)); err != nil {
		a.log.Error("kept blobs were not swept", "error", err)
	}
}
