package swarm

import "time"

// Availability is what an operator lets a node do.
type Availability string

// The availabilities of a node.
const (
	NodeActive  Availability = "active"
	NodePaused  Availability = "paused"  // keeps its tasks, gets no new ones
	NodeDrained Availability = "drained" // keeps none
)

// NodeState is what the managers know of a node.
type NodeState string

// The states of a node.
const (
	NodeReady   NodeState = "ready"
	NodeDown    NodeState = "down"    // missed its heartbeats
	NodeUnknown NodeState = "unknown" // not heard of since this leader began
)

// Node is one machine.
type Node struct {
	ID           NodeID            `cbor:"1,keyasint,omitempty"`
	Availability Availability      `cbor:"2,keyasint,omitempty"` // written by operators
	State        NodeState         `cbor:"3,keyasint,omitempty"` // written by the dispatcher
	Since        time.Time         `cbor:"4,keyasint,omitzero"`  // when State was entered
	Description  NodeDescription   `cbor:"5,keyasint,omitempty"` // written by its agent
	Labels       map[string]string `cbor:"6,keyasint,omitempty"` // node.labels, written by operators
	Role         string            `cbor:"7,keyasint,omitempty"` // "manager" or "worker"
	Joined       time.Time         `cbor:"8,keyasint,omitzero"`
	Issuer       string            `cbor:"9,keyasint,omitempty"` // of its newest certificate, written with it: the authority's key, in hex
}

// NodeDescription is what a node says of itself.
type NodeDescription struct {
	Hostname  string            `cbor:"1,keyasint,omitempty"`
	OS        string            `cbor:"2,keyasint,omitempty"` // "linux"
	Arch      string            `cbor:"3,keyasint,omitempty"` // "amd64"
	Resources Resources         `cbor:"4,keyasint,omitempty"` // all that it has
	Labels    map[string]string `cbor:"5,keyasint,omitempty"` // engine.labels
	Build     string            `cbor:"6,keyasint,omitempty"`
	Address   string            `cbor:"7,keyasint,omitempty"`  // host:port where its manager is, or would be, reached
	BusyPorts []Port            `cbor:"8,keyasint,omitempty"`  // host ports that programs other than gitswarm's hold
	DataPath  string            `cbor:"9,keyasint,omitempty"`  // address that other nodes send containers' traffic to
	Level     int               `cbor:"10,keyasint,omitempty"` // of the log's commands: what this build understands
}
