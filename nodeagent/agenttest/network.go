package agenttest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/nodeagent/network"
	"github.com/gitswarm/gitswarm/swarm"
)

// Network is a fake that prints itself.
type Network struct {
	Takes time.Duration              // optional: how long a Set takes
	Fails func(network.Config) error // optional: the error of a Set
	Place func(swarm.TaskID) error   // optional: the error of an endpoint
	OnSet func(network.Config)       // optional: called at the end of each Set

	mu   sync.Mutex
	last network.Config
	sets int
}

// Set keeps what it is told.
func (n *Network) Set(ctx context.Context, config network.Config) (network.Reached, error) {
	if n.Takes > 0 {
		select {
		case <-ctx.Done():
			return network.Reached{}, ctx.Err()
		case <-time.After(n.Takes):
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sets++
	if n.Fails != nil {
		if err := n.Fails(config); err != nil {
			return network.Reached{}, err
		}
	}
	n.last = config
	reached := network.Reached{Endpoints: make(map[swarm.TaskID]network.EndpointState)}
	for _, e := range config.Endpoints {
		state := network.EndpointState{NetNS: "/netns/" + string(e.Task)}
		if n.Place != nil {
			if err := n.Place(e.Task); err != nil {
				state = network.EndpointState{Err: err}
			}
		}
		reached.Endpoints[e.Task] = state
	}
	if n.OnSet != nil {
		n.OnSet(config)
	}
	return reached, nil
}

// Sets is how often the network was set.
func (n *Network) Sets() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sets
}

// Backends returns the tasks that take a service's connections, by id.
func (n *Network) Backends(service swarm.ServiceID) []swarm.TaskID {
	n.mu.Lock()
	defer n.mu.Unlock()
	var tasks []swarm.TaskID
	for _, s := range n.last.Services {
		if s.ID == service {
			for _, b := range s.Backends {
				tasks = append(tasks, b.Task)
			}
		}
	}
	return tasks
}

// String is the network in a line: its bridges, its endpoints with their host
// ports, its services with their backends.
func (n *Network) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var words []string
	for _, network := range n.last.Networks {
		words = append(words, "bridge "+string(network.ID))
	}
	for _, e := range n.last.Endpoints {
		word := "endpoint " + string(e.Task)
		for _, port := range e.Ports {
			word += fmt.Sprintf(" :%d", port.Published)
		}
		words = append(words, word)
	}
	for _, s := range n.last.Services {
		word := "service " + string(s.ID)
		for _, b := range s.Backends {
			word += " " + string(b.Task)
		}
		words = append(words, word)
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}
