package manager

import (
	"context"
	"slices"

	"github.com/gitswarm/gitswarm/manager/allocator"
	"github.com/gitswarm/gitswarm/manager/scheduler"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/reconciler"
	"github.com/gitswarm/gitswarm/swarm"
)

// equip turns a decision into a command: the stack's networks and endpoints
// are allocated, each new task gets a node and its addresses, and tasks that
// found no node before are tried again.
func (m *Manager) equip(ctx context.Context, view *store.View, sight reconciler.View, decision swarm.Decision) (store.Decide, error) {
	decide := store.Decide{Decision: decision}
	if decision.Gone {
		return decide, nil
	}
	if err := m.settle(ctx, &decide); err != nil {
		return decide, err
	}
	if !begun(sight, decision) {
		return decide, nil
	}

	serves := sight
	if waits(sight, decision) {
		serves = asHealthy(sight)
	}
	stacks := stacksOf(sight)
	if len(sight.Obstacles) > 0 {
		stacks = stacksOf(serves)
	}
	// What can't be allocated was an obstacle before the rollout began; by now
	// the rest of the stack must go on without it.
	_ = m.allocateNetworks(view, sight.Record.Name, stacks, &decide)
	_ = m.allocateEndpoints(view, sight.Record.Name, reconciler.Target(serves), &decide)
	m.dropUnused(view, sight, stacks, &decide)
	m.seat(view, sight, &decide)
	return decide, nil
}

// waits reports whether the newest content has touched nothing yet: its ports
// and addresses are not those of the stack.
func waits(sight reconciler.View, decision swarm.Decision) bool {
	rollout := sight.Record.Rollout
	if decision.Rollout != nil {
		rollout = *decision.Rollout
	}
	heldBack := sight.Record.Suspended != "" && rollout.To.Content != sight.Record.Accepted.Content
	return heldBack || rollout.Phase == swarm.PhaseWaiting && rollout.Touched.IsZero()
}

// asHealthy is the stack as it was before its newest content came.
func asHealthy(sight reconciler.View) reconciler.View {
	healthy := sight.Record.Healthy
	sight.Record.Accepted, sight.Accepted = healthy, sight.Healthy
	sight.Record.Rollout = swarm.Rollout{ID: sight.Record.Rollout.ID, From: healthy, To: healthy, Phase: swarm.PhaseHealthy}
	return sight
}

// settle stores what a partial rollback ended at: a mixture of two revisions.
func (m *Manager) settle(ctx context.Context, decide *store.Decide) error {
	settle := decide.Decision.Settle
	if settle == nil || decide.Decision.Healthy == nil {
		return nil
	}
	content, err := m.put(ctx, settle)
	if err != nil {
		return err
	}
	healthy := *decide.Decision.Healthy
	healthy.Content = content
	decide.Decision.Healthy, decide.Decision.Settle = &healthy, nil
	return nil
}

// begun reports whether the stack has anything that needs addresses: while a
// rollout waits, nothing of it is touched.
func begun(sight reconciler.View, decision swarm.Decision) bool {
	return len(decision.Create) > 0 || len(decision.Desire) > 0 || len(sight.Tasks) > 0
}

// stacksOf returns the contents that the stack's tasks may be of.
func stacksOf(sight reconciler.View) []*swarm.Stack {
	var stacks []*swarm.Stack
	for _, stack := range []*swarm.Stack{sight.Accepted, sight.Healthy} {
		if stack != nil {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// seat gives a node and addresses to the decision's new tasks, and to those
// that an earlier decision could not seat.
func (m *Manager) seat(view *store.View, sight reconciler.View, decide *store.Decide) {
	asked := slices.Clone(decide.Decision.Create)
	for _, task := range sight.Tasks {
		if isHomeless(task) {
			asked = append(asked, task)
		}
	}
	if len(asked) == 0 {
		return
	}

	book := m.bookFor(view, sight.Record.Name, stacksOf(sight), *decide)
	wanted := make([]scheduler.Wanted, 0, len(asked))
	for _, task := range asked {
		wanted = append(wanted, wantedOf(view, sight, task))
	}
	for i, placement := range m.picture.place(wanted, leaving(sight, decide.Decision)) {
		seated := asked[i]
		furnish(&seated, placement, sight, book)
		if i < len(decide.Decision.Create) {
			decide.Decision.Create[i] = seated
		} else if seated.Node != "" || seated.Status.Message != asked[i].Status.Message {
			decide.Decision.Desire = append(decide.Decision.Desire, swarm.Desire{
				Task: seated.ID, Desired: seated.Desired, Node: seated.Node, Addresses: seated.Addresses, Message: seated.Status.Message, Claims: seated.Claims,
			})
		}
		if seated.Node != "" {
			decide.Volumes = append(decide.Volumes, volumesOf(view, sight, seated)...)
		}
	}
}

// furnish writes a placement into its task.
func furnish(task *swarm.Task, placement scheduler.Placement, sight reconciler.View, book *allocator.Book) {
	if placement.Node == "" {
		refuseSeat(task, placement.Why)
		return
	}
	task.Node = placement.Node
	task.Status.Message = ""
	task.Status.State = swarm.TaskAssigned
	service, found := serviceOf(sight, *task)
	if !found {
		return
	}
	task.Claims = &swarm.Claims{Resources: service.Reservations, Ports: service.Task.HostPorts}
	task.Claims.Resources.Generic = placement.Generic
	if len(task.Addresses) > 0 {
		return
	}
	var networks []swarm.NetworkID
	for _, attachment := range service.Task.Networks {
		networks = append(networks, swarm.NewNetworkID(task.Service.Stack(), attachment.Network))
	}
	addresses, err := book.Take(networks)
	if err != nil {
		if !service.Mode.PerNode() {
			task.Node, task.Claims = "", nil
		}
		refuseSeat(task, err.Error())
		return
	}
	task.Addresses = addresses
}

// refuseSeat says why a task has no place. One whose seat is a node can't wait
// for another: it ends, and the reconciler tries again later.
func refuseSeat(task *swarm.Task, why string) {
	task.Status.State, task.Status.Message = swarm.TaskNew, why
	if task.Node != "" {
		task.Status.State, task.Status.Cause = swarm.TaskRejected, swarm.CauseEnvironment
		task.Desired = swarm.DesiredPrepare // what ended is never asked to run
	}
}

// serviceOf returns the service that a task is of, as the content says it
// whose spec the task has.
func serviceOf(sight reconciler.View, task swarm.Task) (swarm.Service, bool) {
	for _, stack := range stacksOf(sight) {
		service, found := stack.Service(task.Service.Name())
		if found && service.Spec == task.Spec {
			return service, true
		}
	}
	return swarm.Service{}, false
}

// volumesOf returns records for the named volumes that a task is the first to
// use on its node, or that its stack came back for.
func volumesOf(view *store.View, sight reconciler.View, task swarm.Task) []swarm.KeptVolume {
	service, found := serviceOf(sight, task)
	if !found {
		return nil
	}
	var volumes []swarm.KeptVolume
	for _, id := range namedVolumes(task.Service.Stack(), service) {
		there := view.VolumesOf(swarm.ServiceID(id).Stack())
		at := slices.IndexFunc(there, func(v swarm.KeptVolume) bool { return v.ID == id && v.Node == task.Node })
		if at < 0 {
			volumes = append(volumes, swarm.KeptVolume{ID: id, Node: task.Node, Created: task.Created})
		} else if kept := there[at]; !kept.Orphan.IsZero() {
			kept.Orphan = swarm.KeptVolume{}.Orphan
			volumes = append(volumes, kept)
		}
	}
	return volumes
}

func namedVolumes(stack swarm.StackName, service swarm.Service) []swarm.VolumeID {
	var ids []swarm.VolumeID
	for _, mount := range service.Task.Mounts {
		if mount.Kind == swarm.MountVolume && mount.Source != "" {
			ids = append(ids, swarm.NewVolumeID(stack, mount.Source))
		}
	}
	return ids
}

// idle reports whether proposing the command would change nothing.
func idle(d store.Decide) bool {
	return d.Decision.Empty() && len(d.Networks) == 0 && len(d.DropNetworks) == 0 && len(d.Endpoints) == 0 && len(d.DropEndpoints) == 0 && len(d.Volumes) == 0
}
