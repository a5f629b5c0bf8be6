package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/gitswarm/gitswarm/swarm"
)

// Sweep removes what an unclean end left behind: containers of tasks that are
// not to be kept, snapshots, directories, mounts and control groups without a
// container, and builds that no container was made with.
func (r *Runtime) Sweep(ctx context.Context, keep func(swarm.TaskID) bool) error {
	ctx = r.namespaced(ctx)
	all, err := r.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range all {
		if !keep(o.ID) {
			errs = append(errs, r.Remove(ctx, o.ID))
		}
	}

	records, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("list containers: %w", err))...)
	}
	owned, builds := make(map[string]bool), make(map[string]bool)
	for _, record := range records {
		owned[record.ID] = true
		builds[record.Runtime.Name] = true
	}
	owned = r.withPlanned(owned)
	errs = append(errs, r.sweepSnapshots(ctx, owned), r.sweepDirs(owned), r.sweepCgroups(owned), r.dropBuilds(builds))
	return errors.Join(errs...)
}

// withPlanned adds the tasks that are being created just now.
func (r *Runtime) withPlanned(owned map[string]bool) map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.tasks {
		owned[t.cid] = true
	}
	return owned
}

func (r *Runtime) sweepSnapshots(ctx context.Context, owned map[string]bool) error {
	service := r.client.SnapshotService(snapshotter)
	var orphans []string
	err := service.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindActive && !owned[info.Name] {
			orphans = append(orphans, info.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	for _, name := range orphans {
		if err := service.Remove(ctx, name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove snapshot %s: %w", name, err)
		}
	}
	return nil
}

func (r *Runtime) sweepDirs(owned map[string]bool) error {
	var errs []error
	for _, parent := range []string{filepath.Join(r.config.RunDir, "tasks"), filepath.Join(r.config.Dir, "tasks")} {
		entries, err := os.ReadDir(parent)
		if err != nil {
			return fmt.Errorf("list task directories: %w", err)
		}
		for _, e := range entries {
			if !owned[e.Name()] {
				errs = append(errs, r.clearDirs(e.Name()))
			}
		}
	}
	return errors.Join(errs...)
}

// sweepCgroups removes control groups that runc left, and those above them
// once they are empty. One with processes in it stays.
func (r *Runtime) sweepCgroups(owned map[string]bool) error {
	parent := r.cgroup("")
	pattern := "/sys/fs/cgroup"
	if !unified() {
		pattern += "/*"
	}
	groups, err := filepath.Glob(pattern + parent + "*")
	if err != nil {
		return fmt.Errorf("list control groups: %w", err)
	}
	for _, group := range groups {
		info, err := os.Stat(group)
		if err != nil || !info.IsDir() || owned[filepath.Base(group)] {
			continue
		}
		if err := removeGroup(group); err != nil {
			r.log.Warn("control group was not removed", "path", group, "err", err)
		}
	}

	for _, above := range []string{parent, filepath.Dir(filepath.Clean(parent))} {
		groups, _ := filepath.Glob(pattern + filepath.Clean(above)) // the pattern is right
		for _, group := range groups {
			_ = os.Remove(group) // it has children
		}
	}
	return nil
}

// removeGroup removes a control group and those that its container made in it.
func removeGroup(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeGroup(filepath.Join(path, e.Name())))
		}
	}
	return errors.Join(err, os.Remove(path))
}
