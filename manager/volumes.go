package manager

import (
	"context"
	"fmt"
	"slices"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// ReleaseVolume unpins the slots that a volume keeps on its node: from now on
// they may start elsewhere, with an empty volume. What the volume holds on
// that node is removed.
func (m *Manager) ReleaseVolume(ctx context.Context, id swarm.VolumeID, node swarm.NodeID, by string) error {
	view := m.store.View()
	volume, err := volumeOn(view, id, node)
	if err != nil {
		return fmt.Errorf("release volume %s: %w", id, err)
	}
	if user := userOf(m, view, volume); user != "" {
		return fmt.Errorf("release volume %s: %s uses it on node %s; drain that node or scale the service down first", id, user, volume.Node)
	}
	return m.propose(ctx, store.Command{By: by, DropVolumes: []swarm.KeptVolume{volume}})
}

// RemoveVolume removes a volume that outlived its stack before its time.
func (m *Manager) RemoveVolume(ctx context.Context, id swarm.VolumeID, node swarm.NodeID, by string) error {
	view := m.store.View()
	volume, err := volumeOn(view, id, node)
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	if user := userOf(m, view, volume); user != "" {
		return fmt.Errorf("remove volume %s: %s uses it; remove it from the stack first", id, user)
	}
	if err := m.unnamed(ctx, view, id); err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	return m.propose(ctx, store.Command{By: by, DropVolumes: []swarm.KeptVolume{volume}})
}

// volumeOn finds a volume; the node may be left out where only one has it.
func volumeOn(view *store.View, id swarm.VolumeID, node swarm.NodeID) (swarm.KeptVolume, error) {
	var found []swarm.KeptVolume
	for _, volume := range view.Volumes() {
		if volume.ID == id && (node == "" || volume.Node == node) {
			found = append(found, volume)
		}
	}
	switch len(found) {
	case 0:
		return swarm.KeptVolume{}, fmt.Errorf("there is none of that name; see `gitswarm volume ls`")
	case 1:
		if !found[0].Dropped.IsZero() {
			return found[0], fmt.Errorf("it is given up already, and goes once node %s has removed it", found[0].Node)
		}
		return found[0], nil
	}
	return swarm.KeptVolume{}, fmt.Errorf("%d nodes have one; name the node", len(found))
}

// unnamed refuses a volume that its stack has, whether a task runs or not.
func (m *Manager) unnamed(ctx context.Context, view *store.View, id swarm.VolumeID) error {
	name := swarm.ServiceID(id).Stack()
	record, found := view.Stack(name)
	if !found {
		return nil
	}
	for _, content := range []swarm.Digest{record.Accepted.Content, record.Healthy.Content} {
		stack, err := m.content(ctx, content)
		if err != nil {
			return err
		}
		if stack != nil && slices.ContainsFunc(stack.Volumes, func(v swarm.Volume) bool { return swarm.NewVolumeID(name, v.Name) == id }) {
			return fmt.Errorf("stack %s still has it; remove it there first", name)
		}
	}
	return nil
}

// userOf names a live task that mounts the volume, or "".
func userOf(m *Manager, view *store.View, volume swarm.KeptVolume) swarm.TaskID {
	for _, task := range view.TasksOn(volume.Node) {
		if !task.Status.State.Live() {
			continue
		}
		service, found := m.serviceOfTask(view, task)
		if !found {
			continue
		}
		for _, id := range namedVolumes(task.Service.Stack(), service) {
			if id == volume.ID {
				return task.ID
			}
		}
	}
	return ""
}
