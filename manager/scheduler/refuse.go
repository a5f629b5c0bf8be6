package scheduler

import (
	"slices"
	"strconv"

	"github.com/gitswarm/gitswarm/swarm"
)

// refusal is why a node can't have a task. The zero value refuses nothing.
type refusal struct {
	text string // "drained", "not enough memory"

	// Of a shortage.
	reserved, free int64
	unit           unit
}

// unit says how an amount is written.
type unit int

const (
	unitNone unit = iota
	unitBytes
	unitCores
	unitPieces
)

func (u unit) write(n int64) string {
	switch u {
	case unitBytes:
		return bytes(n)
	case unitCores:
		return cores(n)
	}
	return strconv.FormatInt(n, 10)
}

func because(text string) refusal { return refusal{text: text} }

// demand is a wanted task, read.
type demand struct {
	*Wanted
	constraints []swarm.Constraint
	unreadable  string // why a constraint can't be read: it holds on no node
}

func newDemand(w *Wanted) demand {
	d := demand{Wanted: w}
	for _, text := range w.Constraints {
		c, err := swarm.ParseConstraint(text)
		if err != nil {
			d.unreadable = err.Error()
			return d
		}
		d.constraints = append(d.constraints, c)
	}
	return d
}

// refuses returns why the task can't have this room, where so many tasks of
// its service are already.
func (d demand) refuses(r *room, there int) refusal {
	for _, why := range []refusal{d.unsuited(r), d.apart(r), d.short(r, there)} {
		if why.text != "" {
			return why
		}
	}
	return refusal{}
}

// unsuited judges what the node is: nothing that a task changes.
func (d demand) unsuited(r *room) refusal {
	switch {
	case r.node.State == swarm.NodeUnknown || r.node.State == "":
		return because("not heard of yet")
	case r.node.State != swarm.NodeReady:
		return because(string(r.node.State))
	case r.node.Availability != swarm.NodeActive:
		return because(string(r.node.Availability))
	case d.unreadable != "":
		return because(d.unreadable + ", so it holds")
	}
	for _, c := range d.constraints {
		if !c.Holds(r.node) {
			return because("constraint " + c.String() + " is not met")
		}
	}
	own := r.node.Description.OS + "/" + r.node.Description.Arch
	if len(d.Platforms) > 0 && !slices.Contains(d.Platforms, own) {
		return because("the image does not exist for " + own)
	}
	return refusal{}
}

// apart says which volume of the task is on other nodes only, or has not gone
// from here yet.
func (d demand) apart(r *room) refusal {
	here := func(v swarm.KeptVolume) bool { return v.Node == r.node.ID }
	if at := slices.IndexFunc(d.Dropped, here); at >= 0 {
		return because("its volume " + string(d.Dropped[at].ID) + " is still to be removed")
	}
	for _, volume := range d.Volumes {
		same := func(v swarm.KeptVolume) bool { return v.ID == volume.ID && here(v) }
		if !slices.ContainsFunc(d.Volumes, same) {
			return because("its volume " + string(volume.ID) + " is on node " + string(volume.Node) + ", not")
		}
	}
	return refusal{}
}

// short judges what tasks have left of the room. Once it refuses, it refuses
// until a task leaves.
func (d demand) short(r *room, there int) refusal {
	if d.MaxPerNode > 0 && there >= d.MaxPerNode {
		return because("max_replicas_per_node " + strconv.Itoa(d.MaxPerNode) + " is reached")
	}
	if why := d.tooSmall(r); why.text != "" {
		return why
	}
	for _, port := range d.HostPorts {
		if why := portTaken(r, port); why.text != "" {
			return why
		}
	}
	return refusal{}
}

func (d demand) tooSmall(r *room) refusal {
	need, has := d.Reservations, r.node.Description.Resources
	if free := max(has.Memory-r.memory, 0); need.Memory > free {
		return refusal{"not enough memory", need.Memory, free, unitBytes}
	}
	if free := max(has.NanoCPUs-r.cpus, 0); need.NanoCPUs > free {
		return refusal{"not enough cpu", need.NanoCPUs, free, unitCores}
	}
	for _, generic := range need.Generic {
		if free, _ := r.free(generic.Kind); generic.Count > free {
			return refusal{"not enough " + generic.Kind, generic.Count, free, unitPieces}
		}
	}
	return refusal{}
}

func portTaken(r *room, port swarm.Port) refusal {
	if port.Published == 0 {
		return refusal{}
	}
	holder := ""
	if r.busyPort(port) {
		holder = "another program"
	}
	for _, held := range r.ports {
		if held.number == port.Published && held.protocol == protocolOf(port) {
			holder = string(held.service)
		}
	}
	if holder == "" {
		return refusal{}
	}
	return because("port " + strconv.Itoa(int(port.Published)) + "/" + string(protocolOf(port)) + " is held by " + holder)
}
