package swarm

// Assignment is all that one node must run, at one raft index. A node's agent
// keeps the last one and acts on it alone: what is not in it must not be
// there.
type Assignment struct {
	Tasks    []AssignedTask    `cbor:"1,keyasint,omitempty"` // by id
	Networks []AssignedNetwork `cbor:"2,keyasint,omitempty"` // by id; those of the tasks
	Services []AssignedService `cbor:"3,keyasint,omitempty"` // by id; those that the tasks can name, and all that publish ports
	Volumes  []VolumeID        `cbor:"4,keyasint,omitempty"` // that must be removed from the node, sorted
}

// AssignedTask is a task as its node sees it.
type AssignedTask struct {
	ID        TaskID    `cbor:"1,keyasint,omitempty"`
	Service   ServiceID `cbor:"2,keyasint,omitempty"`
	Slot      int       `cbor:"3,keyasint,omitempty"`
	Spec      Digest    `cbor:"4,keyasint,omitempty"` // blob: TaskSpec
	Revision  Revision  `cbor:"5,keyasint,omitempty"`
	Desired   Desired   `cbor:"6,keyasint,omitempty"`
	Job       bool      `cbor:"7,keyasint,omitempty"`
	Addresses []Address `cbor:"8,keyasint,omitempty"`

	Generic []GenericResource `cbor:"9,keyasint,omitempty"` // what it was given of the node's, by kind
}

// AssignedNetwork is a network that a node must have.
type AssignedNetwork struct {
	ID       NetworkID `cbor:"1,keyasint,omitempty"`
	VNI      uint32    `cbor:"2,keyasint,omitempty"`
	Subnet   string    `cbor:"3,keyasint,omitempty"`
	Gateway  string    `cbor:"4,keyasint,omitempty"`
	Internal bool      `cbor:"5,keyasint,omitempty"`
	MTU      int       `cbor:"6,keyasint,omitempty"`
}

// AssignedService is a service that a node's containers can reach, or whose
// ports the node publishes.
type AssignedService struct {
	ID       ServiceID    `cbor:"1,keyasint,omitempty"`
	Mode     EndpointMode `cbor:"2,keyasint,omitempty"`
	VIPs     []Address    `cbor:"3,keyasint,omitempty"`
	Ports    []Port       `cbor:"4,keyasint,omitempty"` // in mode ingress
	Backends []Backend    `cbor:"5,keyasint,omitempty"` // healthy tasks that are not going away, by task
	Aliases  []Alias      `cbor:"6,keyasint,omitempty"` // further names, by network and name
}

// Alias is a further name of a service on one network.
type Alias struct {
	Network NetworkID `cbor:"1,keyasint,omitempty"`
	Name    string    `cbor:"2,keyasint,omitempty"`
}

// Backend is a task that takes a service's connections.
type Backend struct {
	Task      TaskID    `cbor:"1,keyasint,omitempty"`
	Slot      int       `cbor:"2,keyasint,omitempty"`
	Node      NodeID    `cbor:"3,keyasint,omitempty"`
	Addresses []Address `cbor:"4,keyasint,omitempty"`
	Hostname  string    `cbor:"5,keyasint,omitempty"`
}
