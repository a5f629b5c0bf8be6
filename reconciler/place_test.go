package reconciler

import (
	"maps"
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// place gives a task the ready node with the fewest live tasks that has what
// the service needs: room, its host port, its volume.
func (c *cluster) place(t *swarm.Task) {
	if t.Status.State != swarm.TaskNew || t.Desired >= swarm.DesiredStop {
		return
	}
	if t.Node != "" && t.Slot > 0 && !c.admits(t, c.nodes[t.Node]) {
		t.Status.State, t.Status.Since, t.Status.Cause = swarm.TaskRejected, c.now, swarm.CauseEnvironment
		t.Status.Message, t.Desired = "no node fits", swarm.DesiredPrepare
		return
	}
	if t.Node == "" {
		t.Node = c.bestNode(t)
	}
	if t.Node == "" {
		t.Status.Message = "no node fits"
		return
	}
	for _, volume := range c.volumesOf(t) {
		c.volumes[volume] = t.Node
	}
	t.Status.State, t.Status.Since, t.Status.Message = swarm.TaskAssigned, c.now, ""
}

// remove forgets a node, as the store does: what runs there is lost.
func (c *cluster) remove(id swarm.NodeID) {
	delete(c.nodes, id)
	for _, t := range c.tasks {
		if t.Node == id && t.Status.State.Live() {
			t.Status.State, t.Status.Since, t.Excused = swarm.TaskLost, c.now, "node removed"
		}
	}
}

// bestNode returns the node that takes the task and has the fewest, or "".
func (c *cluster) bestNode(t *swarm.Task) (best swarm.NodeID) {
	load := maps.Clone(c.others)
	for _, other := range c.tasks {
		if other.Status.State.Live() {
			load[other.Node]++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.nodes)) {
		if c.admits(t, c.nodes[id]) && (best == "" || load[id] < load[best]) {
			best = id
		}
	}
	return best
}

// admits reports whether the node takes the task now.
func (c *cluster) admits(t *swarm.Task, n *swarm.Node) bool {
	if n == nil || c.full || c.tight[n.ID] || n.State != swarm.NodeReady || n.Availability != swarm.NodeActive {
		return false
	}
	def := c.definition(t)
	if def == nil {
		return true
	}
	here := 0
	for _, other := range c.tasks {
		if other.ID != t.Replaces && other.Node == n.ID && other.Service == t.Service && other.Status.State.Live() && other.Desired <= swarm.DesiredDrain {
			here++
		}
	}
	switch {
	case !Fits(def, n), len(def.Task.HostPorts) > 0 && here > 0, def.MaxPerNode > 0 && here >= def.MaxPerNode:
		return false
	}
	return !slices.ContainsFunc(c.volumesOf(t), func(name string) bool {
		at, kept := c.volumes[name]
		return kept && at != n.ID
	})
}

func (c *cluster) volumesOf(t *swarm.Task) (names []string) {
	if def := c.definition(t); def != nil {
		for _, mount := range def.Task.Mounts {
			names = append(names, mount.Source)
		}
	}
	return names
}

func (c *cluster) definition(t *swarm.Task) *swarm.Service {
	for _, content := range []swarm.Digest{c.record.Accepted.Content, c.record.Healthy.Content} {
		if service, ok := c.contents[content].Service(t.Service.Name()); ok && service.Spec == t.Spec {
			return &service
		}
	}
	return nil
}
