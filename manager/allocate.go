package manager

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/gitswarm/gitswarm/manager/allocator"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/reconciler"
	"github.com/gitswarm/gitswarm/swarm"
)

// allocateNetworks gives the networks of the stack's contents what they lack,
// and returns why some have not become what the stack wants.
func (m *Manager) allocateNetworks(view *store.View, name swarm.StackName, stacks []*swarm.Stack, decide *store.Decide) (problems []string) {
	cluster, _ := view.Cluster()
	pool := poolOf(cluster.Settings, m.config.Pool)
	seen := make(map[swarm.NetworkID]bool)
	for _, stack := range stacks {
		for _, network := range stack.Networks {
			id := swarm.NewNetworkID(name, network.Name)
			if seen[id] || network.External {
				continue
			}
			seen[id] = true
			had, known := view.Network(id)
			others := []swarm.AllocatedNetwork{had} // keeps what it has, whatever others have
			if !known {
				others = append(view.Networks(), decide.Networks...)
			}
			given, err := allocator.Network(id, network, others, pool)
			if err != nil {
				problems = append(problems, err.Error())
			} else if given != had {
				decide.Networks = append(decide.Networks, given)
			}
		}
	}
	return problems
}

// poolOf is the cluster's address pool, or where it has none the one that this
// manager was told of.
func poolOf(settings swarm.ClusterSettings, own allocator.Pool) allocator.Pool {
	var bases []netip.Prefix
	for _, text := range settings.AddressPool {
		if base, err := netip.ParsePrefix(text); err == nil { // the control API let no other in
			bases = append(bases, base)
		}
	}
	if len(bases) > 0 {
		own.Bases = bases
	}
	return own
}

// allocateEndpoints gives each service of the target its virtual addresses and
// published ports, and returns why some have not become what the stack wants.
func (m *Manager) allocateEndpoints(view *store.View, name swarm.StackName, target *swarm.Stack, decide *store.Decide) (problems []string) {
	book := sync.OnceValue(func() *allocator.Book { return m.bookFor(view, name, []*swarm.Stack{target}, *decide) }) // most need none
	for _, service := range target.Services {
		id := swarm.NewServiceID(name, service.Name)
		had, known := view.Endpoint(id)
		others := func() []swarm.Endpoint { return overlaid(view.Endpoints(), decide.Endpoints) }
		given, err := endpointFor(id, service, had, others, book)
		if err != nil {
			problems = append(problems, err.Error())
		} else if !known || fmt.Sprint(had) != fmt.Sprint(given) {
			decide.Endpoints = append(decide.Endpoints, given)
		}
	}
	return problems
}

// overlaid is endpoints as they are once some have changed.
func overlaid(endpoints, changed []swarm.Endpoint) []swarm.Endpoint {
	var all []swarm.Endpoint
	for _, endpoint := range endpoints {
		if !slices.ContainsFunc(changed, func(e swarm.Endpoint) bool { return e.Service == endpoint.Service }) {
			all = append(all, endpoint)
		}
	}
	return append(all, changed...)
}

// bookFor knows which addresses are taken on the networks that the stack's
// services attach to, once the decision has its networks and endpoints.
func (m *Manager) bookFor(view *store.View, name swarm.StackName, stacks []*swarm.Stack, decide store.Decide) *allocator.Book {
	ids := attached(name, stacks)
	var networks []swarm.AllocatedNetwork
	for _, id := range ids {
		at := slices.IndexFunc(decide.Networks, func(n swarm.AllocatedNetwork) bool { return n.ID == id })
		if at >= 0 {
			networks = append(networks, decide.Networks[at])
		} else if network, known := view.Network(id); known {
			networks = append(networks, network)
		}
	}
	var endpoints []swarm.Endpoint
	var tasks []swarm.Task
	for _, stack := range m.picture.stacksOn(ids) {
		endpoints = append(endpoints, view.EndpointsOf(stack)...)
		tasks = append(tasks, view.Tasks(stack)...)
	}
	return allocator.NewBook(networks, overlaid(endpoints, decide.Endpoints), tasks)
}

// attached returns, by id, the networks that the services of a stack's
// contents attach to.
func attached(name swarm.StackName, stacks []*swarm.Stack) []swarm.NetworkID {
	var ids []swarm.NetworkID
	for _, stack := range stacks {
		for _, service := range stack.Services {
			for _, attachment := range service.Task.Networks {
				ids = append(ids, swarm.NewNetworkID(name, attachment.Network))
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func endpointFor(id swarm.ServiceID, service swarm.Service, had swarm.Endpoint, all func() []swarm.Endpoint, book func() *allocator.Book) (swarm.Endpoint, error) {
	given := swarm.Endpoint{Service: id, Mode: service.Endpoint}
	if len(service.Ports) > 0 {
		ports, err := allocator.Publish(id, service.Ports, had.Ports, holders(all(), id))
		if err != nil {
			return given, err
		}
		given.Ports = ports
	}
	if service.Endpoint == swarm.DNSRR {
		return given, nil
	}
	for _, attachment := range service.Task.Networks {
		network := swarm.NewNetworkID(id.Stack(), attachment.Network)
		at := slices.IndexFunc(had.VIPs, func(a swarm.Address) bool { return a.Network == network })
		if at >= 0 {
			given.VIPs = append(given.VIPs, had.VIPs[at])
			continue
		}
		vip, err := book().Take([]swarm.NetworkID{network})
		if err != nil {
			return given, err
		}
		given.VIPs = append(given.VIPs, vip...)
	}
	return given, nil
}

// holders lists the published ports of every service but one.
func holders(endpoints []swarm.Endpoint, but swarm.ServiceID) []allocator.Holder {
	var all []allocator.Holder
	for _, endpoint := range endpoints {
		if endpoint.Service == but {
			continue
		}
		for _, port := range endpoint.Ports {
			all = append(all, allocator.Holder{Service: endpoint.Service, Port: port})
		}
	}
	return all
}

// dropUnused lets go of networks and endpoints that neither a revision nor a
// task of the stack names any more.
func (m *Manager) dropUnused(view *store.View, sight reconciler.View, stacks []*swarm.Stack, decide *store.Decide) {
	name := sight.Record.Name
	networks, services := make(map[swarm.NetworkID]bool), make(map[swarm.ServiceID]bool)
	for _, stack := range stacks {
		for _, network := range stack.Networks {
			networks[swarm.NewNetworkID(name, network.Name)] = true
		}
		for _, service := range stack.Services {
			services[swarm.NewServiceID(name, service.Name)] = true
		}
	}
	for _, task := range sight.Tasks {
		services[task.Service] = services[task.Service] || task.Status.State.Live()
		for _, address := range task.Addresses {
			networks[address.Network] = networks[address.Network] || task.Status.State.Live()
		}
	}
	for _, network := range view.NetworksOf(name) {
		if !networks[network.ID] && !m.reached(view, network.ID) {
			decide.DropNetworks = append(decide.DropNetworks, network.ID)
		}
	}
	for _, endpoint := range view.EndpointsOf(name) {
		if !services[endpoint.Service] {
			decide.DropEndpoints = append(decide.DropEndpoints, endpoint.Service)
		}
	}
}

// reached reports whether a live task of any stack has an address on a network.
func (m *Manager) reached(view *store.View, id swarm.NetworkID) bool {
	for _, stack := range m.picture.stacksOn([]swarm.NetworkID{id}) {
		for _, task := range view.Tasks(stack) {
			if task.Status.State.Live() && slices.ContainsFunc(task.Addresses, func(a swarm.Address) bool { return a.Network == id }) {
				return true
			}
		}
	}
	return false
}
