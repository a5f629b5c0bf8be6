// Package scheduler decides which node each task gets, and says why one gets
// none. It reads no clock, opens no connection and keeps nothing between
// calls: equal inputs give equal placements.
package scheduler

import (
	"cmp"
	"slices"
	"strings"

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
	HostPorts    []swarm.Port
	Platforms    []string           // "linux/amd64"; empty means any
	Volumes      []swarm.KeptVolume // named volumes it mounts: it goes where each of them is
	Dropped      []swarm.KeptVolume // of these, what nodes are about to remove: it waits, or goes elsewhere
}

// Occupant is a task that already holds its node.
type Occupant struct {
	Task         swarm.TaskID
	Service      swarm.ServiceID
	Node         swarm.NodeID
	Reservations swarm.Resources
	HostPorts    []swarm.Port
}

// Cluster is what there is to place on.
type Cluster struct {
	Nodes     []swarm.Node
	Occupants []Occupant
}

// Placement is the scheduler's answer on one task.
type Placement struct {
	Task swarm.TaskID
	Node swarm.NodeID // empty: no node fits
	Why  string       // no node fits web.2: not enough memory on 3 nodes, …
}

// Place gives each wanted task, in the order given, the node that fits it and
// has the fewest tasks of its service, then the fewest tasks at all, then the
// lowest id. Tasks that were placed count as occupants of those that follow.
func Place(wanted []Wanted, cluster Cluster) []Placement {
	rooms := roomsOf(cluster)
	placements := make([]Placement, 0, len(wanted))
	for _, w := range wanted {
		placements = append(placements, place(w, rooms))
	}
	return placements
}

func place(w Wanted, rooms []*room) Placement {
	var best *room
	refusals := make(map[string]int)
	for _, r := range rooms {
		if refusal := r.refuses(w); refusal != "" {
			refusals[refusal]++
			continue
		}
		if best == nil || r.less(best, w.Service) {
			best = r
		}
	}
	if best == nil {
		return Placement{Task: w.Task, Why: explain(w, refusals)}
	}
	best.take(Occupant{Task: w.Task, Service: w.Service, Reservations: w.Reservations, HostPorts: w.HostPorts})
	return Placement{Task: w.Task, Node: best.node.ID}
}

// explain counts the nodes behind each refusal, the most frequent first.
func explain(w Wanted, refusals map[string]int) string {
	type count struct {
		refusal string
		nodes   int
	}
	var counts []count
	for refusal, nodes := range refusals {
		counts = append(counts, count{refusal, nodes})
	}
	slices.SortFunc(counts, func(a, b count) int {
		return cmp.Or(cmp.Compare(b.nodes, a.nodes), cmp.Compare(a.refusal, b.refusal))
	})

	parts := make([]string, 0, len(counts))
	for _, c := range counts {
		parts = append(parts, c.refusal+" on "+plural(c.nodes, "node"))
	}
	if len(parts) == 0 {
		parts = []string{"the cluster has no nodes"}
	}
	return "no node fits " + string(w.Service.Stack()) + "/" + swarm.SlotName(w.Service.Name(), w.Slot) + ": " + strings.Join(parts, ", ")
}
