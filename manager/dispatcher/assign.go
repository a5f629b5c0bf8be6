package dispatcher

import (
	"cmp"
	"iter"
	"maps"
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// cluster is what assignments are made from; a store.View is one.
type cluster interface {
	Node(swarm.NodeID) (swarm.Node, bool)
	Tasks(swarm.StackName) []swarm.Task
	EndpointsOf(swarm.StackName) []swarm.Endpoint
	NetworksOf(swarm.StackName) []swarm.AllocatedNetwork
	Volumes() []swarm.KeptVolume
}

// Facts are what an assignment tells of a TaskSpec beside its digest, and the
// contents that a node may fetch for it.
type Facts struct {
	Hostname string
	Networks []swarm.Attachment
	Files    []swarm.Digest
}

// Assign returns all that a node must run and know of these stacks, in the
// order that every Assignment has. It is pure: equal state, equal assignment.
func Assign(view cluster, stacks []swarm.StackName, node swarm.NodeID, facts func(swarm.Digest) Facts) swarm.Assignment {
	var sheets []sheet
	for _, stack := range stacks {
		sheets = append(sheets, newSheet(view, stack, facts))
	}
	networks := networksOn(node, slices.Values(sheets))

	var a swarm.Assignment
	for _, s := range sheets {
		add(&a, s.part(node, networks))
	}
	a.Volumes = volumesToRemove(view, node)
	sortAssignment(&a)
	return a
}

func add(a *swarm.Assignment, part swarm.Assignment) {
	a.Tasks = append(a.Tasks, part.Tasks...)
	a.Networks = append(a.Networks, part.Networks...)
	a.Services = append(a.Services, part.Services...)
}

// sortAssignment is needed where parts were put together: stack "a-b" sorts
// after stack "a", but "a-b/web" before "a/web".
func sortAssignment(a *swarm.Assignment) {
	slices.SortFunc(a.Tasks, func(a, b swarm.AssignedTask) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(a.Networks, func(a, b swarm.AssignedNetwork) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(a.Services, func(a, b swarm.AssignedService) int { return cmp.Compare(a.ID, b.ID) })
}

// sheet is one stack as all nodes see it: made once for each change of the
// stack, and cut to measure for each node.
type sheet struct {
	tasks    map[swarm.NodeID][]swarm.AssignedTask // by id
	networks []swarm.AssignedNetwork               // by id
	services []service                             // by id
	draining []swarm.TaskID                        // asked to drain, not yet known to be out of every load balancer
}

// service is an AssignedService with the networks on which it has an address.
type service struct {
	swarm.AssignedService
	on map[swarm.NetworkID]bool
}

func newSheet(view cluster, stack swarm.StackName, facts func(swarm.Digest) Facts) sheet {
	s := sheet{tasks: make(map[swarm.NodeID][]swarm.AssignedTask)}
	for _, network := range view.NetworksOf(stack) {
		s.networks = append(s.networks, swarm.AssignedNetwork(network))
	}
	index := make(map[swarm.ServiceID]int)
	for _, e := range view.EndpointsOf(stack) {
		index[e.Service] = len(s.services)
		s.services = append(s.services, newService(e))
	}

	down := make(map[swarm.NodeID]bool)
	for _, task := range view.Tasks(stack) {
		if task.Node == "" {
			continue
		}
		if _, asked := down[task.Node]; !asked {
			node, known := view.Node(task.Node)
			down[task.Node] = known && node.State == swarm.NodeDown
		}
		s.tasks[task.Node] = append(s.tasks[task.Node], assigned(task))
		if task.Desired == swarm.DesiredDrain && task.Status.State.Live() && !task.Status.Drained {
			s.draining = append(s.draining, task.ID)
		}
		if at, found := index[task.Service]; found && task.Status.State.Live() {
			s.services[at].add(task, facts(task.Spec), down[task.Node])
		}
	}
	for i := range s.services {
		s.services[i].tidy()
	}
	return s
}

func assigned(t swarm.Task) swarm.AssignedTask {
	a := swarm.AssignedTask{
		ID: t.ID, Service: t.Service, Slot: t.Slot, Spec: t.Spec, Revision: t.Revision,
		Desired: t.Desired, Job: t.Job, Addresses: t.Addresses,
	}
	if t.Claims != nil {
		a.Generic = t.Claims.Resources.Generic
	}
	return a
}

func newService(e swarm.Endpoint) service {
	s := service{on: make(map[swarm.NetworkID]bool)}
	s.ID, s.Mode, s.VIPs, s.Ports = e.Service, e.Mode, e.VIPs, e.Ports
	for _, vip := range e.VIPs {
		s.on[vip.Network] = true
	}
	return s
}

// add makes a live task known to the service: as a backend if it is healthy
// and not going away, and by its aliases.
func (s *service) add(t swarm.Task, facts Facts, down bool) {
	for _, address := range t.Addresses {
		s.on[address.Network] = true
	}
	for _, network := range facts.Networks {
		for _, name := range network.Aliases {
			alias := swarm.Alias{Network: swarm.NewNetworkID(t.Service.Stack(), network.Network), Name: name}
			s.Aliases = append(s.Aliases, alias)
		}
	}
	if t.Status.State == swarm.TaskHealthy && t.Desired == swarm.DesiredRun && !down {
		s.Backends = append(s.Backends, swarm.Backend{
			Task: t.ID, Slot: t.Slot, Node: t.Node, Addresses: t.Addresses, Hostname: facts.Hostname,
		})
	}
}

func (s *service) tidy() {
	slices.SortFunc(s.Backends, func(a, b swarm.Backend) int { return cmp.Compare(a.Task, b.Task) })
	slices.SortFunc(s.Aliases, func(a, b swarm.Alias) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Name, b.Name))
	})
	s.Aliases = slices.Compact(s.Aliases)
}

// part is what one node gets of the stack: its own tasks, the networks among
// those that it has, and the services that are on these or publish ports.
func (s sheet) part(node swarm.NodeID, networks map[swarm.NetworkID]bool) swarm.Assignment {
	part := swarm.Assignment{Tasks: s.tasks[node]}
	for _, network := range s.networks {
		if networks[network.ID] {
			part.Networks = append(part.Networks, network)
		}
	}
	for _, service := range s.services {
		if len(service.Ports) > 0 || service.reaches(networks) {
			part.Services = append(part.Services, service.AssignedService)
		}
	}
	return part
}

func (s service) reaches(networks map[swarm.NetworkID]bool) bool {
	for network := range s.on {
		if networks[network] {
			return true
		}
	}
	return false
}

// networksOn returns the networks that a node's tasks have addresses on. Tasks
// that have ended count until they are forgotten, so that a restart does not
// take a bridge down and up.
func networksOn(node swarm.NodeID, sheets iter.Seq[sheet]) map[swarm.NetworkID]bool {
	networks := make(map[swarm.NetworkID]bool)
	for s := range sheets {
		maps.Copy(networks, networksOf(s.tasks[node]))
	}
	return networks
}

func networksOf(tasks []swarm.AssignedTask) map[swarm.NetworkID]bool {
	networks := make(map[swarm.NetworkID]bool)
	for _, task := range tasks {
		for _, address := range task.Addresses {
			networks[address.Network] = true
		}
	}
	return networks
}

// volumesToRemove lists what was given up on a node, by id.
func volumesToRemove(view cluster, node swarm.NodeID) []swarm.VolumeID {
	var volumes []swarm.VolumeID
	for _, volume := range view.Volumes() {
		if volume.Node == node && !volume.Dropped.IsZero() {
			volumes = append(volumes, volume.ID)
		}
	}
	slices.Sort(volumes)
	return volumes
}
