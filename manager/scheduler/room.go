package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/gitswarm/gitswarm/swarm"
)

// room is one node and what is left of it.
type room struct {
	node     swarm.Node
	cpus     int64 // free, in billionths of a core
	memory   int64 // free, in bytes
	tasks    int
	services map[swarm.ServiceID]int
	ports    map[hostPort]string // the holder
}

type hostPort struct {
	number   uint16
	protocol swarm.Protocol
}

func roomsOf(cluster Cluster) []*room {
	rooms := make([]*room, 0, len(cluster.Nodes))
	byID := make(map[swarm.NodeID]*room, len(cluster.Nodes))
	for _, node := range cluster.Nodes {
		has := node.Description.Resources
		r := &room{node: node, cpus: has.NanoCPUs, memory: has.Memory,
			services: make(map[swarm.ServiceID]int), ports: make(map[hostPort]string)}
		for _, port := range node.Description.BusyPorts {
			r.ports[keyOf(port)] = "another program"
		}
		rooms = append(rooms, r)
		byID[node.ID] = r
	}
	for _, occupant := range cluster.Occupants {
		if r := byID[occupant.Node]; r != nil {
			r.take(occupant)
		}
	}
	slices.SortFunc(rooms, func(a, b *room) int { return cmp.Compare(a.node.ID, b.node.ID) })
	return rooms
}

func keyOf(port swarm.Port) hostPort {
	protocol := port.Protocol
	if protocol == "" {
		protocol = swarm.TCP
	}
	return hostPort{port.Published, protocol}
}

func (r *room) take(o Occupant) {
	r.cpus -= o.Reservations.NanoCPUs
	r.memory -= o.Reservations.Memory
	r.tasks++
	r.services[o.Service]++
	for _, port := range o.HostPorts {
		r.ports[keyOf(port)] = string(o.Service)
	}
}

func (r *room) less(other *room, service swarm.ServiceID) bool {
	return cmp.Or(
		cmp.Compare(r.services[service], other.services[service]),
		cmp.Compare(r.tasks, other.tasks),
		cmp.Compare(r.node.ID, other.node.ID)) < 0
}

// refuses returns why the task can't have this node, or "".
func (r *room) refuses(w Wanted) string {
	if w.Node != "" && w.Node != r.node.ID {
		return "it belongs to another node"
	}
	if refusal := r.unfit(); refusal != "" {
		return refusal
	}
	if refusal := r.unmet(w.Constraints); refusal != "" {
		return refusal
	}
	if refusal := r.wrongPlatform(w.Platforms); refusal != "" {
		return refusal
	}
	if refusal := r.withoutVolume(w); refusal != "" {
		return refusal
	}
	if refusal := r.tooSmall(w.Reservations); refusal != "" {
		return refusal
	}
	return r.portTaken(w.HostPorts)
}

// withoutVolume says which volume of the task is on other nodes only, or has
// not gone from here yet.
func (r *room) withoutVolume(w Wanted) string {
	here := func(v swarm.KeptVolume) bool { return v.Node == r.node.ID }
	if at := slices.IndexFunc(w.Dropped, here); at >= 0 {
		return fmt.Sprintf("its volume %s is still to be removed", w.Dropped[at].ID)
	}
	for _, volume := range w.Volumes {
		same := func(v swarm.KeptVolume) bool { return v.ID == volume.ID && here(v) }
		if !slices.ContainsFunc(w.Volumes, same) {
			return fmt.Sprintf("its volume %s is on node %s, not", volume.ID, volume.Node)
		}
	}
	return ""
}

func (r *room) unfit() string {
	switch {
	case r.node.State != swarm.NodeReady:
		return "not ready"
	case r.node.Availability != swarm.NodeActive:
		return string(r.node.Availability)
	}
	return ""
}

func (r *room) unmet(constraints []string) string {
	for _, text := range constraints {
		c, err := swarm.ParseConstraint(text)
		if err != nil {
			return err.Error() + ", so it holds"
		}
		if !c.Holds(r.node) {
			return "constraint " + c.String() + " is not met"
		}
	}
	return ""
}

func (r *room) wrongPlatform(platforms []string) string {
	own := r.node.Description.OS + "/" + r.node.Description.Arch
	if len(platforms) == 0 || slices.Contains(platforms, own) {
		return ""
	}
	return "the image does not exist for " + own
}

func (r *room) tooSmall(need swarm.Resources) string {
	switch {
	case need.Memory > 0 && need.Memory > r.memory:
		return fmt.Sprintf("not enough memory (%s reserved, %s free)", bytes(need.Memory), bytes(max(r.memory, 0)))
	case need.NanoCPUs > 0 && need.NanoCPUs > r.cpus:
		return fmt.Sprintf("not enough cpu (%s reserved, %s free)", cores(need.NanoCPUs), cores(max(r.cpus, 0)))
	}
	return ""
}

func (r *room) portTaken(ports []swarm.Port) string {
	for _, port := range ports {
		if port.Published == 0 {
			continue
		}
		if holder, taken := r.ports[keyOf(port)]; taken {
			return fmt.Sprintf("port %d/%s is held by %s", port.Published, keyOf(port).protocol, holder)
		}
	}
	return ""
}

func bytes(n int64) string {
	switch {
	case n >= 1<<30:
		return strconv.FormatFloat(float64(n)/(1<<30), 'f', 1, 64) + " GiB"
	case n >= 1<<20:
		return strconv.FormatInt(n>>20, 10) + " MiB"
	}
	return strconv.FormatInt(n, 10) + " B"
}

func cores(nano int64) string { return strconv.FormatFloat(float64(nano)/1e9, 'g', 4, 64) }

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
