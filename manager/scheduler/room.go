package scheduler

import (
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// room is one node and what is held of it.
type room struct {
	node  swarm.Node
	known bool // it is a node; else tasks name one that is not, or not yet
	rank  int  // among the nodes by id, once the cluster is settled
	tasks int

	cpus    int64 // held, in billionths of a core
	memory  int64 // held, in bytes
	generic []held
	ports   []heldPort
}

// held is what tasks hold of one kind.
type held struct {
	kind  string
	count int64
	names []string
}

type heldPort struct {
	number   uint16
	protocol swarm.Protocol
	task     swarm.TaskID
	service  swarm.ServiceID
}

func protocolOf(port swarm.Port) swarm.Protocol {
	if port.Protocol == "" {
		return swarm.TCP
	}
	return port.Protocol
}

func (r *room) take(task *holding) {
	if task.Claims == nil {
		return
	}
	r.cpus += task.Claims.Resources.NanoCPUs
	r.memory += task.Claims.Resources.Memory
	for _, claim := range task.Claims.Resources.Generic {
		h := r.heldOf(claim.Kind)
		h.count += claim.Count
		h.names = append(h.names, claim.Names...)
	}
	for _, port := range task.Claims.Ports {
		r.ports = append(r.ports, heldPort{port.Published, protocolOf(port), task.Task, task.Service})
	}
}

func (r *room) leave(task *holding) {
	if task.Claims == nil {
		return
	}
	r.cpus -= task.Claims.Resources.NanoCPUs
	r.memory -= task.Claims.Resources.Memory
	for _, claim := range task.Claims.Resources.Generic {
		h := r.heldOf(claim.Kind)
		h.count -= claim.Count
		for _, name := range claim.Names {
			if at := slices.Index(h.names, name); at >= 0 {
				h.names = slices.Delete(h.names, at, at+1)
			}
		}
	}
	r.ports = slices.DeleteFunc(r.ports, func(p heldPort) bool { return p.task == task.Task })
}

func (r *room) heldOf(kind string) *held {
	at := slices.IndexFunc(r.generic, func(h held) bool { return h.kind == kind })
	if at < 0 {
		r.generic = append(r.generic, held{kind: kind})
		at = len(r.generic) - 1
	}
	return &r.generic[at]
}

// free returns how many pieces of a kind nobody holds, and the names of those
// that have one, sorted.
func (r *room) free(kind string) (count int64, names []string) {
	at := slices.IndexFunc(r.node.Description.Resources.Generic, func(g swarm.GenericResource) bool { return g.Kind == kind })
	if at < 0 {
		return 0, nil
	}
	has, h := r.node.Description.Resources.Generic[at], r.heldOf(kind)
	if len(has.Names) == 0 {
		return max(has.Count-h.count, 0), nil
	}
	for _, name := range has.Names {
		if !slices.Contains(h.names, name) {
			names = append(names, name)
		}
	}
	return max(min(int64(len(has.Names))-h.count, int64(len(names))), 0), names
}

// give returns what a reservation gets of the room, which has enough.
func (r *room) give(need []swarm.GenericResource) []swarm.GenericResource {
	if len(need) == 0 {
		return nil
	}
	given := make([]swarm.GenericResource, 0, len(need))
	for _, want := range need {
		got := swarm.GenericResource{Kind: want.Kind, Count: want.Count}
		if _, names := r.free(want.Kind); len(names) > 0 {
			got.Names = names[:want.Count]
		}
		given = append(given, got)
	}
	return given
}

// keeps reports whether what runs in the room goes on running there.
func (r *room) keeps() bool {
	return r.known && r.node.State != swarm.NodeDown && r.node.Availability != swarm.NodeDrained
}

// busyPort reports whether a program other than gitswarm's holds the port.
func (r *room) busyPort(port swarm.Port) bool {
	return slices.ContainsFunc(r.node.Description.BusyPorts, func(busy swarm.Port) bool {
		return busy.Published == port.Published && protocolOf(busy) == protocolOf(port)
	})
}
