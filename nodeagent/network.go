package nodeagent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/nodeagent/converge"
	"github.com/gitswarm/gitswarm/nodeagent/network"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	networkRetryFirst = 100 * time.Millisecond
	networkRetryLast  = 5 * time.Second
)

// passes counts the times that the network was set. What is asked for while
// one runs waits for the next, and many wait for the same one.
type passes struct {
	dirty chan struct{}

	mu      sync.Mutex
	asked   uint64
	done    uint64
	err     error // of the last pass
	over    chan struct{}
	backend map[swarm.TaskID]bool // that the load balancers of this node name
}

func newPasses() *passes { return &passes{dirty: make(chan struct{}, 1), over: make(chan struct{})} }

// ask returns the number of the pass that will know all that is true now.
func (p *passes) ask() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	poke(p.dirty)
	return p.asked
}

// wait returns when the pass is over, with its error.
func (p *passes) wait(ctx context.Context, pass uint64) error {
	for {
		p.mu.Lock()
		done, err, over := p.done, p.err, p.over
		p.mu.Unlock()
		if done >= pass {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
		}
	}
}

// names reports whether a load balancer of this node may send to the task.
func (p *passes) names(task swarm.TaskID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.backend[task]
}

func (p *passes) begin() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *passes) finish(pass uint64, services []swarm.AssignedService, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.err = pass, err
	if err == nil {
		p.backend = make(map[swarm.TaskID]bool)
		for _, service := range services {
			for _, backend := range service.Backends {
				p.backend[backend.Task] = true
			}
		}
	}
	close(p.over)
	p.over = make(chan struct{})
}

// keepNetwork sets the network whenever something asks for it, and again while
// it fails.
func (a *Agent) keepNetwork(ctx context.Context) error {
	retry := networkRetryFirst
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.passes.dirty:
		case <-again:
		}

		again = nil
		if err := a.setNetwork(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("network was not set; it is tried again", "error", err)
			again = time.After(retry)
			retry = min(2*retry, networkRetryLast)
		} else {
			retry = networkRetryFirst
		}
	}
}

func (a *Agent) setNetwork(ctx context.Context) error {
	pass := a.passes.begin()
	workers := a.everyone()
	config, index := a.networkConfig(workers)

	reached, err := a.config.Network.Set(ctx, config)
	for _, w := range workers {
		if state, ok := reached.Endpoints[w.id]; ok {
			w.place(state)
		}
	}
	a.passes.finish(pass, config.Services, err)
	if err != nil {
		return fmt.Errorf("set network for index %d: %w", index, err)
	}
	a.outbox.applied(index)
	return nil
}

// networkConfig is what the network should be now, and the assignment's index
// that it is true for.
func (a *Agent) networkConfig(workers []*worker) (network.Config, uint64) {
	a.mu.Lock()
	held := a.held
	a.mu.Unlock()
	config := network.Config{
		Node:     a.config.Node,
		Networks: held.Assignment.Networks,
		Services: held.Assignment.Services,
		Upstream: a.config.Upstream,
	}

	away := make(map[swarm.TaskID]bool)
	for _, w := range workers {
		w.mu.Lock()
		if !converge.Backend(w.want, w.seen) {
			away[w.id] = true
		}
		if endpoint, needed := w.endpointConfig(); needed {
			config.Endpoints = append(config.Endpoints, endpoint)
			config.Networks = withNetworks(config.Networks, w.networks)
		}
		w.mu.Unlock()
	}
	config.Services = withoutBackends(config.Services, func(b swarm.Backend) bool {
		return away[b.Task] || b.Node != "" && b.Node != a.config.Node
	})
	slices.SortFunc(config.Endpoints, func(a, b network.Endpoint) int {
		return strings.Compare(string(a.Task), string(b.Task))
	})
	return config, held.Index
}

// endpointConfig is the task's place on the network, if it needs one now. The
// caller holds mu.
func (w *worker) endpointConfig() (network.Endpoint, bool) {
	if !converge.NeedsEndpoint(w.want, w.seen) || w.spec != nil && w.spec.HostNet {
		return network.Endpoint{}, false
	}
	endpoint := network.Endpoint{
		Task: w.id, Service: w.task.Service, Slot: w.task.Slot, Addresses: w.task.Addresses,
	}
	if w.spec != nil {
		endpoint.Hostname, endpoint.Hosts = w.spec.Hostname, w.spec.ExtraHosts
		if w.want != nil && w.want.Desired == swarm.DesiredRun {
			endpoint.Ports = w.spec.HostPorts
		}
	}
	return endpoint, true
}

// withNetworks adds the networks that a container on its way out still uses.
func withNetworks(networks, used []swarm.AssignedNetwork) []swarm.AssignedNetwork {
	for _, u := range used {
		at, found := slices.BinarySearchFunc(networks, u.ID, func(n swarm.AssignedNetwork, id swarm.NetworkID) int {
			return strings.Compare(string(n.ID), string(id))
		})
		if !found {
			networks = slices.Insert(slices.Clone(networks), at, u)
		}
	}
	return networks
}

// withoutBackends leaves out the tasks that are gone for this node: those that
// it knows to be away before the managers do, and those on other nodes, whose
// containers it can't reach without an overlay network.
func withoutBackends(services []swarm.AssignedService, gone func(swarm.Backend) bool) []swarm.AssignedService {
	cloned := false
	for i := range services {
		if !slices.ContainsFunc(services[i].Backends, gone) {
			continue
		}
		if !cloned {
			services, cloned = slices.Clone(services), true
		}
		services[i].Backends = slices.DeleteFunc(slices.Clone(services[i].Backends), gone)
	}
	return services
}
