package swarm

import "time"

// Stack is one Compose project, rendered: merged, interpolated, defaulted,
// with images pinned and file contents named by digest. It holds nothing of
// where it came from, so equal content has an equal digest whatever commit
// brought it.
type Stack struct {
	Name     StackName `cbor:"1,keyasint,omitempty"`
	Services []Service `cbor:"2,keyasint,omitempty"` // by name
	Networks []Network `cbor:"3,keyasint,omitempty"` // by name; those that services use
	Volumes  []Volume  `cbor:"4,keyasint,omitempty"` // by name
	Was      StackName `cbor:"5,keyasint,omitempty"` // the stack's former name (x-gitswarm: {was: OLD})
}

// Service returns the service of that name.
func (s *Stack) Service(name string) (Service, bool) {
	if s == nil {
		return Service{}, false
	}
	for _, service := range s.Services {
		if service.Name == name {
			return service, true
		}
	}
	return Service{}, false
}

// Rendered says which Stack a commit gave: where it came from, and the digest
// of its content. The Stack itself is the blob of that digest.
type Rendered struct {
	Revision  Revision  `cbor:"1,keyasint,omitempty"`
	Content   Digest    `cbor:"2,keyasint,omitempty"` // blob: Stack
	Author    string    `cbor:"3,keyasint,omitempty"`
	Subject   string    `cbor:"4,keyasint,omitempty"` // first line of the commit message
	Committed time.Time `cbor:"5,keyasint,omitzero"`
}

// Mode says how many tasks a service has, and whether they end.
type Mode string

// The modes of Compose's deploy.mode.
const (
	Replicated    Mode = "replicated" // Replicas slots, numbered from 1
	Global        Mode = "global"     // one task on each node that fits
	ReplicatedJob Mode = "replicated-job"
	GlobalJob     Mode = "global-job"
)

// Job reports whether tasks of this mode are meant to end.
func (m Mode) Job() bool { return m == ReplicatedJob || m == GlobalJob }

// PerNode reports whether this mode has one task for each node.
func (m Mode) PerNode() bool { return m == Global || m == GlobalJob }

// EndpointMode says what a service's name resolves to.
type EndpointMode string

// The endpoint modes of Compose.
const (
	VIP   EndpointMode = "vip"
	DNSRR EndpointMode = "dnsrr"
)

// Service is one entry of a Stack: what to run and how many copies. What
// changes the container is in Task; a change of anything else replaces no
// task.
type Service struct {
	Name          string            `cbor:"1,keyasint,omitempty"`
	Task          TaskSpec          `cbor:"2,keyasint,omitempty"`
	Spec          Digest            `cbor:"3,keyasint,omitempty"` // of Task, which is also a blob
	Mode          Mode              `cbor:"4,keyasint,omitempty"`
	Replicas      int               `cbor:"5,keyasint,omitempty"`
	Labels        map[string]string `cbor:"6,keyasint,omitempty"` // deploy.labels
	Endpoint      EndpointMode      `cbor:"7,keyasint,omitempty"`
	Ports         []Port            `cbor:"8,keyasint,omitempty"` // published in mode ingress
	Reservations  Resources         `cbor:"9,keyasint,omitempty"` // scheduling only
	Restart       RestartPolicy     `cbor:"10,keyasint,omitempty"`
	Update        RolloutPolicy     `cbor:"11,keyasint,omitempty"`
	Rollback      RolloutPolicy     `cbor:"12,keyasint,omitempty"`
	DependsOn     []Dependency      `cbor:"13,keyasint,omitempty"` // by service name
	Constraints   []string          `cbor:"14,keyasint,omitempty"` // "node.role==worker"
	Deadline      time.Duration     `cbor:"15,keyasint,omitempty"` // x-gitswarm.progress_deadline: a new task must be healthy within it
	RollbackGroup string            `cbor:"16,keyasint,omitempty"` // x-gitswarm.rollback_group
	Reversible    bool              `cbor:"17,keyasint,omitempty"` // x-gitswarm.reversible: a completed job does not stop a rollback
	Line          int               `cbor:"18,keyasint,omitempty"` // where the compose file declares it, for messages; not hashed into Spec
	Image         ImageFacts        `cbor:"19,keyasint,omitempty"` // what Task.Image was resolved to; kept while that string is unchanged
	Spread        []string          `cbor:"20,keyasint,omitempty"` // placement preferences in their order: "node.labels.zone"
	MaxPerNode    int               `cbor:"21,keyasint,omitempty"` // replicas on one node; 0 means unlimited
	Rebalance     bool              `cbor:"22,keyasint,omitempty"` // x-gitswarm.rebalance: auto
}

// ImageFacts is what a registry told of an image.
type ImageFacts struct {
	Manifest   Digest       `cbor:"1,keyasint,omitempty"`
	Platforms  []string     `cbor:"2,keyasint,omitempty"` // "linux/amd64", sorted
	Health     *Healthcheck `cbor:"3,keyasint,omitempty"`
	StopSignal string       `cbor:"4,keyasint,omitempty"`
}

// Port is a published port.
type Port struct {
	Target    uint16   `cbor:"1,keyasint,omitempty"` // in the container
	Published uint16   `cbor:"2,keyasint,omitempty"` // on the host; 0 asks for one of 30000–32767
	Protocol  Protocol `cbor:"3,keyasint,omitempty"`
	Host      bool     `cbor:"4,keyasint,omitempty"` // mode host: only where a task runs
	Address   string   `cbor:"5,keyasint,omitempty"` // host address to listen on; empty means every one
}

// Protocol is a transport protocol as Compose writes it.
type Protocol string

// The protocols of published ports.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	SCTP Protocol = "sctp"
)

// Condition is when a dependency counts as met.
type Condition string

// The conditions of Compose's depends_on.
const (
	ServiceStarted   Condition = "service_started"
	ServiceHealthy   Condition = "service_healthy"
	ServiceCompleted Condition = "service_completed_successfully"
)

// Dependency is one entry of depends_on.
type Dependency struct {
	Service   string    `cbor:"1,keyasint,omitempty"`
	Condition Condition `cbor:"2,keyasint,omitempty"`
	Optional  bool      `cbor:"3,keyasint,omitempty"` // required: false
	Restart   bool      `cbor:"4,keyasint,omitempty"`
}

// RestartCondition says after which exits a task gets a successor.
type RestartCondition string

// The restart conditions of Compose.
const (
	RestartAny       RestartCondition = "any"
	RestartOnFailure RestartCondition = "on-failure"
	RestartNone      RestartCondition = "none"
)

// RestartPolicy says what follows an exit outside of a rollout.
type RestartPolicy struct {
	Condition   RestartCondition `cbor:"1,keyasint,omitempty"`
	Delay       time.Duration    `cbor:"2,keyasint,omitempty"`
	MaxAttempts int              `cbor:"3,keyasint,omitempty"` // per slot; 0 means unlimited
	Window      time.Duration    `cbor:"4,keyasint,omitempty"` // how far back attempts count; 0 means for ever
}

// FailureAction says what follows the failure of a rollout.
type FailureAction string

// The failure actions of Compose.
const (
	FailurePause    FailureAction = "pause"
	FailureContinue FailureAction = "continue"
	FailureRollback FailureAction = "rollback"
)

// Order says which of the old and the new task gives way.
type Order string

// The orders of Compose.
const (
	StopFirst  Order = "stop-first"
	StartFirst Order = "start-first"
)

// RolloutPolicy is Compose's update_config or rollback_config.
type RolloutPolicy struct {
	Parallelism     int           `cbor:"1,keyasint,omitempty"` // 0 means all at once
	Delay           time.Duration `cbor:"2,keyasint,omitempty"`
	OnFailure       FailureAction `cbor:"3,keyasint,omitempty"`
	Monitor         time.Duration `cbor:"4,keyasint,omitempty"` // how long a new task must stay healthy
	MaxFailureRatio float64       `cbor:"5,keyasint,omitempty"` // 0 <= ratio <= 1
	Order           Order         `cbor:"6,keyasint,omitempty"`
}

// Network is a network that a stack declares.
type Network struct {
	Name       string            `cbor:"1,keyasint,omitempty"`
	Internal   bool              `cbor:"2,keyasint,omitempty"`
	Attachable bool              `cbor:"3,keyasint,omitempty"`
	Subnet     string            `cbor:"4,keyasint,omitempty"` // CIDR; empty asks the allocator
	Gateway    string            `cbor:"5,keyasint,omitempty"`
	MTU        int               `cbor:"6,keyasint,omitempty"`
	Labels     map[string]string `cbor:"7,keyasint,omitempty"`
	External   bool              `cbor:"8,keyasint,omitempty"` // belongs to the cluster, not to this stack
}

// Volume is a named volume that a stack declares.
type Volume struct {
	Name     string            `cbor:"1,keyasint,omitempty"`
	Labels   map[string]string `cbor:"2,keyasint,omitempty"`
	External bool              `cbor:"3,keyasint,omitempty"`
}
