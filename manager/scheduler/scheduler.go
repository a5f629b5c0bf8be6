// Package scheduler decides which node each task gets, and says why one gets
// none. It reads no clock, draws no chance, opens no connection and starts no
// goroutine: equal inputs give equal placements. What it keeps between two
// calls is the caller's Cluster, and placing leaves that as it was.
package scheduler

import (
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// Wanted is a task that needs a node.
type Wanted struct {
	Task         swarm.TaskID
	Service      swarm.ServiceID
	Slot         int
	Node         swarm.NodeID // preset where the node is the seat; else empty
	Reservations swarm.Resources
	Constraints  []string
	Spread       []string // placement preferences in their order: "node.labels.zone"
	MaxPerNode   int      // tasks of the service on one node; 0 means unlimited
	HostPorts    []swarm.Port
	Platforms    []string           // "linux/amd64"; empty means any
	Volumes      []swarm.KeptVolume // named volumes it mounts: it goes where each of them is
	Dropped      []swarm.KeptVolume // of these, what nodes are about to remove: it waits, or goes elsewhere
	NewVolumes   []swarm.VolumeID   // named volumes it mounts that it may make anew; tasks of other services that mount one follow it
	Failing      []swarm.NodeID     // where the service keeps failing: they come last
}

// alike reports whether two tasks ask for the same, so that one search serves
// both.
func (w *Wanted) alike(other *Wanted) bool {
	return w.Service == other.Service && (w.Node == "") == (other.Node == "") && w.MaxPerNode == other.MaxPerNode &&
		w.Reservations.NanoCPUs == other.Reservations.NanoCPUs && w.Reservations.Memory == other.Reservations.Memory &&
		slices.EqualFunc(w.Reservations.Generic, other.Reservations.Generic, func(a, b swarm.GenericResource) bool {
			return a.Kind == b.Kind && a.Count == b.Count
		}) &&
		slices.Equal(w.Constraints, other.Constraints) && slices.Equal(w.Spread, other.Spread) &&
		slices.Equal(w.HostPorts, other.HostPorts) && slices.Equal(w.Platforms, other.Platforms) &&
		slices.Equal(w.Volumes, other.Volumes) && slices.Equal(w.Dropped, other.Dropped) && slices.Equal(w.NewVolumes, other.NewVolumes) &&
		slices.Equal(w.Failing, other.Failing)
}

// Placement is the scheduler's answer on one task.
type Placement struct {
	Task    swarm.TaskID
	Node    swarm.NodeID            // empty: no node fits
	Generic []swarm.GenericResource // of Node, what the task's reservation got; with names where the node's pieces have them
	Why     string                  // no node fits web.2: not enough memory on 3 nodes, …
}

// Place gives each wanted task, in the order given, a node that fits it, as if
// the tasks that leave had gone. Of these nodes it prefers, in this order: one
// where the service does not keep failing; one in the branch of Spread, level
// by level, that has the fewest tasks of the service; one with the fewest
// tasks of the service; one with the fewest tasks at all; the lowest id. Tasks
// that were placed count for those that follow. The cluster is afterwards what
// it was before.
func (c *Cluster) Place(wanted []Wanted, leaving []swarm.TaskID) []Placement {
	c.settle()
	t := &trial{cluster: c}
	defer t.undo()
	for _, id := range leaving {
		if task := c.tasks[id]; task != nil {
			t.leave(task)
		}
	}

	placements := make([]Placement, 0, len(wanted))
	var batch *search
	for i := range wanted {
		w := &wanted[i]
		if batch == nil || !w.alike(batch.asked) {
			batch = c.search(w, t)
		}
		placements = append(placements, batch.place(w, t))
	}
	return placements
}

// trial is what a call of Place changed, to be undone.
type trial struct {
	cluster     *Cluster
	gone, taken []*holding
	volumes     []newVolume
}

// newVolume is a volume that a placed task makes on its node.
type newVolume struct {
	swarm.KeptVolume
	service swarm.ServiceID
}

func (t *trial) leave(task *holding) {
	t.cluster.leave(task)
	t.gone = append(t.gone, task)
}

func (t *trial) take(task *holding) {
	t.cluster.take(task)
	t.taken = append(t.taken, task)
}

func (t *trial) undo() {
	for _, task := range t.taken {
		t.cluster.leave(task)
	}
	for _, task := range t.gone {
		t.cluster.take(task)
	}
}

// made returns the volumes that earlier tasks of other services make, and that
// the wanted task mounts as well.
func (t *trial) made(w *Wanted) []swarm.KeptVolume {
	var made []swarm.KeptVolume
	for _, v := range t.volumes {
		if v.service != w.Service && slices.Contains(w.NewVolumes, v.ID) {
			made = append(made, v.KeptVolume)
		}
	}
	return made
}
