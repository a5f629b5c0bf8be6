package dispatcher

import (
	"maps"
	"reflect"

	"github.com/gitswarm/gitswarm/swarm"
)

// book holds the sheets of all stacks and finds those that concern a node, and
// the nodes that a sheet concerns, without a look at all the others.
type book struct {
	sheets   map[swarm.StackName]sheet
	onNode   map[swarm.NodeID]map[swarm.StackName]bool    // stacks with tasks there
	nodes    map[swarm.NetworkID]map[swarm.NodeID]int     // nodes with tasks on it: for how many stacks
	around   map[swarm.NetworkID]map[swarm.StackName]bool // stacks whose network it is, or with a service on it
	ports    map[swarm.StackName]bool                     // stacks that publish ports on every node
	draining map[swarm.StackName]bool                     // stacks with tasks on their way out of the load balancers
}

func newBook() book {
	return book{
		sheets:   make(map[swarm.StackName]sheet),
		onNode:   make(map[swarm.NodeID]map[swarm.StackName]bool),
		nodes:    make(map[swarm.NetworkID]map[swarm.NodeID]int),
		around:   make(map[swarm.NetworkID]map[swarm.StackName]bool),
		ports:    make(map[swarm.StackName]bool),
		draining: make(map[swarm.StackName]bool),
	}
}

// concern is whom a new sheet concerns.
type concern struct {
	everyone bool
	nodes    map[swarm.NodeID]bool
}

// replace puts a stack's new sheet in place of the old one. It returns whom
// that concerns: those that the old sheet concerned among them, and nobody if
// nothing differs.
func (b *book) replace(stack swarm.StackName, s sheet) concern {
	old, had := b.sheets[stack]
	if had && reflect.DeepEqual(old, s) {
		return concern{}
	}
	c := concern{nodes: make(map[swarm.NodeID]bool)}
	b.concerned(&c, old)
	b.take(stack, old)
	if len(s.tasks) > 0 || len(s.services) > 0 || len(s.networks) > 0 {
		b.add(stack, s)
	}
	b.concerned(&c, s)
	return c
}

// concerned adds the nodes that a sheet concerns: by its tasks, by networks
// that they share, by ports that every node publishes.
func (b *book) concerned(c *concern, s sheet) {
	c.everyone = c.everyone || s.publishes()
	for node := range s.tasks {
		c.nodes[node] = true
	}
	for network := range s.reach() {
		for node := range b.nodes[network] {
			c.nodes[node] = true
		}
	}
}

func (b *book) add(stack swarm.StackName, s sheet) {
	b.sheets[stack] = s
	for node, tasks := range s.tasks {
		enter(b.onNode, node, stack)
		for network := range networksOf(tasks) {
			if b.nodes[network] == nil {
				b.nodes[network] = make(map[swarm.NodeID]int)
			}
			b.nodes[network][node]++
		}
	}
	for network := range s.reach() {
		enter(b.around, network, stack)
	}
	if s.publishes() {
		b.ports[stack] = true
	}
	if len(s.draining) > 0 {
		b.draining[stack] = true
	}
}

func (b *book) take(stack swarm.StackName, s sheet) {
	delete(b.sheets, stack)
	delete(b.ports, stack)
	delete(b.draining, stack)
	for node, tasks := range s.tasks {
		leave(b.onNode, node, stack)
		for network := range networksOf(tasks) {
			if b.nodes[network][node]--; b.nodes[network][node] == 0 {
				leave(b.nodes, network, node)
			}
		}
	}
	for network := range s.reach() {
		leave(b.around, network, stack)
	}
}

func enter[K, V comparable](m map[K]map[V]bool, key K, value V) {
	if m[key] == nil {
		m[key] = make(map[V]bool)
	}
	m[key][value] = true
}

func leave[K, V comparable, X any](m map[K]map[V]X, key K, value V) {
	delete(m[key], value)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

// networksOn returns the networks that a node's tasks have addresses on.
func (b *book) networksOn(node swarm.NodeID) map[swarm.NetworkID]bool {
	networks := make(map[swarm.NetworkID]bool)
	for stack := range b.onNode[node] {
		maps.Copy(networks, networksOf(b.sheets[stack].tasks[node]))
	}
	return networks
}

// stacksFor returns the stacks that concern a node which is on these networks.
func (b *book) stacksFor(node swarm.NodeID, networks map[swarm.NetworkID]bool) map[swarm.StackName]bool {
	stacks := maps.Clone(b.ports)
	maps.Copy(stacks, b.onNode[node])
	for network := range networks {
		maps.Copy(stacks, b.around[network])
	}
	return stacks
}

// publishes reports whether a service of the stack has ports on every node.
func (s sheet) publishes() bool {
	for i := range s.services {
		if len(s.services[i].Ports) > 0 {
			return true
		}
	}
	return false
}

// reach returns the networks that the stack has, or has services on.
func (s sheet) reach() map[swarm.NetworkID]bool {
	networks := make(map[swarm.NetworkID]bool)
	for _, network := range s.networks {
		networks[network.ID] = true
	}
	for i := range s.services {
		maps.Copy(networks, s.services[i].on)
	}
	return networks
}
