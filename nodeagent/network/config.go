package network

import (
	"github.com/gitswarm/gitswarm/swarm"
)

// Config is all that a node's network should be. Addresses are IPv4.
type Config struct {
	Node      swarm.NodeID
	Networks  []swarm.AssignedNetwork
	Endpoints []Endpoint              // of the containers on this node
	Services  []swarm.AssignedService // with the backends that take connections now
	Upstream  []string                // resolvers, "address" or "address:port"; empty means those of /etc/resolv.conf
}

// Endpoint is the place of one container on its networks. It exists from
// before the container starts until after it is gone.
type Endpoint struct {
	Task      swarm.TaskID
	Service   swarm.ServiceID
	Slot      int
	Hostname  string          // empty means the last part of Task
	Addresses []swarm.Address // one for each network; none leaves the container its loopback alone
	Hosts     []swarm.Host    // extra lines of /etc/hosts; "host-gateway" means the node
	Ports     []swarm.Port    // published in mode host while they are listed: a draining task has none
}

// Reached is what a Set has reached.
type Reached struct {
	Endpoints map[swarm.TaskID]EndpointState
	Conflicts []Conflict // ports that two of the Config want; the first by name has them
}

// EndpointState is what a container needs of its endpoint. With Err set the
// container must not be started, unless it runs already.
type EndpointState struct {
	NetNS      string // path of the network namespace
	ResolvConf []byte // for /etc/resolv.conf
	Hosts      []byte // for /etc/hosts
	Err        error
}

// Conflict is a published port that cannot be had.
type Conflict struct {
	Port swarm.Port
	By   string // who has it: a service, a task, or a program of the node
}
