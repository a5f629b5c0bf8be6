package manager

import (
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/manager/scheduler"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/reconciler"
	"github.com/gitswarm/gitswarm/swarm"
)

// A service that fails this often on a node within this time, with the same
// spec, gets that node last. The figures are Docker Swarm's.
const (
	failuresOfNode = 5
	failuresWithin = 5 * time.Minute
)

// wantedOf is a task as the scheduler sees it.
func wantedOf(view *store.View, sight reconciler.View, task swarm.Task) scheduler.Wanted {
	service, _ := serviceOf(sight, task)
	return wantedBy(view, sight, service, task)
}

func wantedBy(view *store.View, sight reconciler.View, service swarm.Service, task swarm.Task) scheduler.Wanted {
	w := scheduler.Wanted{
		Task: task.ID, Service: task.Service, Slot: task.Slot, Node: task.Node,
		Reservations: service.Reservations, Constraints: service.Constraints, Spread: service.Spread, MaxPerNode: service.MaxPerNode,
		HostPorts: service.Task.HostPorts, Platforms: service.Image.Platforms,
		Failing: failing(sight.Tasks, task.Service, service.Spec, view.Now()),
	}
	for _, id := range namedVolumes(task.Service.Stack(), service) {
		kept, dropped := volumesNamed(view, id)
		w.Dropped = append(w.Dropped, dropped...)
		if service.Mode.PerNode() {
			continue // each node has its own
		}
		if kept = homes(sight, service, task, id, kept); len(kept) > 0 {
			w.Volumes = append(w.Volumes, kept...)
		} else {
			w.NewVolumes = append(w.NewVolumes, id)
		}
	}
	return w
}

// volumesNamed returns the volumes of one name: those that are kept, and those
// that were given up and lie on their node still.
func volumesNamed(view *store.View, id swarm.VolumeID) (kept, dropped []swarm.KeptVolume) {
	for _, volume := range view.VolumesOf(swarm.ServiceID(id).Stack()) {
		switch {
		case volume.ID != id:
		case volume.Dropped.IsZero():
			kept = append(kept, volume)
		default:
			dropped = append(dropped, volume)
		}
	}
	return kept, dropped
}

// homes returns, of the volumes of one name, those that a task of the service
// may have. A slot stays with the one on the node where it last ran. One that
// never ran takes any that no other slot of its service uses, and makes one of
// its own if there is none; but a volume that other services mount too is
// shared.
func homes(sight reconciler.View, service swarm.Service, task swarm.Task, id swarm.VolumeID, kept []swarm.KeptVolume) []swarm.KeptVolume {
	last := lastNode(sight.Tasks, task)
	for _, volume := range kept {
		if volume.Node == last {
			return []swarm.KeptVolume{volume}
		}
	}
	if shared(sight, service, id) {
		return kept
	}
	return slices.DeleteFunc(kept, func(v swarm.KeptVolume) bool {
		return slices.ContainsFunc(sight.Tasks, func(t swarm.Task) bool {
			return t.Service == task.Service && t.Slot != task.Slot && t.Node == v.Node && t.Status.State.Live()
		})
	})
}

// lastNode returns the node that a slot had last, or "".
func lastNode(tasks []swarm.Task, of swarm.Task) swarm.NodeID {
	var last swarm.Task
	for _, task := range tasks {
		if task.Service == of.Service && task.Slot == of.Slot && task.Node != "" && !task.Created.Before(last.Created) {
			last = task
		}
	}
	return last.Node
}

// shared reports whether others than this service may mount the volume.
func shared(sight reconciler.View, service swarm.Service, id swarm.VolumeID) bool {
	if swarm.ServiceID(id).Stack() != sight.Record.Name {
		return true
	}
	for _, stack := range stacksOf(sight) {
		for _, other := range stack.Services {
			if other.Name != service.Name && slices.Contains(namedVolumes(sight.Record.Name, other), id) {
				return true
			}
		}
	}
	return false
}

// failing returns, by id, the nodes on which a service keeps failing with the
// same spec. An end that is excused is no failure.
func failing(tasks []swarm.Task, service swarm.ServiceID, spec swarm.Digest, now time.Time) []swarm.NodeID {
	failures := make(map[swarm.NodeID]int)
	var nodes []swarm.NodeID
	for _, task := range tasks {
		ended := task.Status.State == swarm.TaskFailed || task.Status.State == swarm.TaskRejected
		recent := now.Sub(task.Status.Since) <= failuresWithin
		if !ended || !recent || task.Node == "" || task.Excused != "" || task.Service != service || task.Spec != spec {
			continue
		}
		if failures[task.Node]++; failures[task.Node] == failuresOfNode {
			nodes = append(nodes, task.Node)
		}
	}
	slices.Sort(nodes)
	return nodes
}
