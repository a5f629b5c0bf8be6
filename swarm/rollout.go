package swarm

import "time"

// StackRecord is all that the cluster remembers of a stack. Its fields have
// one writer each: gitsync writes Head, Problem and Accepted, the reconciler
// Rollout, Healthy, History and Quarantine, operators the rest.
type StackRecord struct {
	Name       StackName         `cbor:"1,keyasint,omitempty"`
	Source     SourceID          `cbor:"2,keyasint,omitempty"`
	Path       string            `cbor:"3,keyasint,omitempty"`  // of its folder in the tree
	Head       Rendered          `cbor:"4,keyasint,omitempty"`  // the newest commit that touched it; Content is empty if it was refused
	Problem    *Problem          `cbor:"5,keyasint,omitempty"`  // why Head is not Accepted
	Accepted   Rendered          `cbor:"6,keyasint,omitempty"`  // what the rollout goes to
	Healthy    Rendered          `cbor:"7,keyasint,omitempty"`  // the last that was wholly healthy; a rollback ends here
	Rollout    Rollout           `cbor:"8,keyasint,omitempty"`  // the current one, or the last
	History    []Ended           `cbor:"9,keyasint,omitempty"`  // newest first, at most HistoryLimit
	Quarantine []Quarantined     `cbor:"10,keyasint,omitempty"` // newest first, at most HistoryLimit
	Suspended  string            `cbor:"11,keyasint,omitempty"` // why an operator suspended it, or empty
	Removing   bool              `cbor:"12,keyasint,omitempty"` // its services go; the record follows when they are gone
	Scale      map[string]int    `cbor:"13,keyasint,omitempty"` // replicas by service, until a revision changes that service
	Generation map[string]uint64 `cbor:"14,keyasint,omitempty"` // restarts asked for, by service
	Warnings   []Finding         `cbor:"15,keyasint,omitempty"` // of Head
	Version    uint64            `cbor:"16,keyasint,omitempty"` // raft index of the last change by anyone but the reconciler
	Rebalance  bool              `cbor:"17,keyasint,omitempty"` // an operator asked that replicas move to emptier nodes; the reconciler's decision ends it
}

// HistoryLimit is how many rendered revisions of a stack are kept.
const HistoryLimit = 10

// Key is what a quarantine compares: equal Key, equal containers, equal fate.
func (r Rendered) Key() Digest { return r.Content }

// Problem is why the newest commit of a stack is not being rolled out.
type Problem struct {
	Kind   ProblemKind `cbor:"1,keyasint,omitempty"`
	Text   string      `cbor:"2,keyasint,omitempty"` // for people, with the way out
	Since  time.Time   `cbor:"3,keyasint,omitzero"`
	Refuse []Finding   `cbor:"4,keyasint,omitempty"` // file and line of each refusal
	Plan   string      `cbor:"5,keyasint,omitempty"` // what `approve` takes, for ProblemApproval
}

// ProblemKind sorts problems by who can solve them.
type ProblemKind string

// The kinds of problems.
const (
	ProblemLoad       ProblemKind = "load"       // the tree does not give a stack: a commit solves it
	ProblemPolicy     ProblemKind = "policy"     // a rule refuses it: a commit or a grant solves it
	ProblemWaiting    ProblemKind = "waiting"    // image, capacity, port or external is missing: it solves itself
	ProblemApproval   ProblemKind = "approval"   // `gitswarm approve` solves it
	ProblemQuarantine ProblemKind = "quarantine" // it failed before: a commit or `gitswarm retry` solves it
)

// Finding is one thing to say about a compose file.
type Finding struct {
	Rule    string `cbor:"1,keyasint,omitempty"` // key path or policy rule: "services.web.privileged"
	Class   Class  `cbor:"2,keyasint,omitempty"`
	Service string `cbor:"3,keyasint,omitempty"`
	File    string `cbor:"4,keyasint,omitempty"` // relative to the tree
	Line    int    `cbor:"5,keyasint,omitempty"` // from 1; 0 if unknown
	Text    string `cbor:"6,keyasint,omitempty"` // what is wrong, and the remedy
}

// Class is what becomes of a compose key.
type Class string

// The classes of keys.
const (
	Honoured Class = "honoured"
	Warned   Class = "warned"
	Refused  Class = "refused"
)

// Quarantined is content that failed and is not tried again.
type Quarantined struct {
	Content  Digest    `cbor:"1,keyasint,omitempty"`
	Revision Revision  `cbor:"2,keyasint,omitempty"`
	Why      string    `cbor:"3,keyasint,omitempty"`
	At       time.Time `cbor:"4,keyasint,omitzero"`
}

// Phase is where a rollout is. Status, exit codes, commit statuses and metrics
// all show this one value.
type Phase string

// The phases of a rollout.
const (
	PhaseNone        Phase = ""
	PhaseWaiting     Phase = "waiting"      // nothing is touched until it can work
	PhaseProgressing Phase = "progressing"  // from the first touch on
	PhasePaused      Phase = "paused"       // failed with failure_action: pause; a commit, rollback or retry goes on
	PhaseRollingBack Phase = "rolling-back" // on the way to Healthy
	PhaseHealthy     Phase = "healthy"      // done: converged
	PhaseFailed      Phase = "failed"       // done: a first revision or a rollback failed; nothing more is touched
	PhaseRolledBack  Phase = "rolled-back"  // done: converged on Healthy
	PhaseSuperseded  Phase = "superseded"   // done: a newer revision took over
)

// Ended reports whether the rollout is over.
func (p Phase) Ended() bool {
	switch p {
	case PhaseNone, PhaseHealthy, PhaseFailed, PhaseRolledBack, PhaseSuperseded:
		return true
	}
	return false
}

// Rollout is a Plan carried out over time. It holds only what the tasks do not
// tell: whoever leads next reads the rest from them.
type Rollout struct {
	ID       uint64           `cbor:"1,keyasint,omitempty"` // grows by one with each rollout of the stack
	From     Rendered         `cbor:"2,keyasint,omitempty"` // Healthy when it began
	To       Rendered         `cbor:"3,keyasint,omitempty"`
	Phase    Phase            `cbor:"4,keyasint,omitempty"`
	Began    time.Time        `cbor:"5,keyasint,omitzero"`
	Touched  time.Time        `cbor:"6,keyasint,omitzero"` // when the first task was touched
	Turned   time.Time        `cbor:"7,keyasint,omitzero"` // when PhaseRollingBack was entered
	Over     time.Time        `cbor:"8,keyasint,omitzero"`
	Why      string           `cbor:"9,keyasint,omitempty"`  // what failed, or what it waits for
	Opened   time.Time        `cbor:"10,keyasint,omitzero"`  // monitor windows count from here at the earliest: a new leader sets it
	Failed   map[string]int   `cbor:"11,keyasint,omitempty"` // failures by service, of tasks already forgotten
	Groups   []string         `cbor:"12,keyasint,omitempty"` // rollback groups that are rolling back; nil means every one
	Dirty    map[string]int   `cbor:"13,keyasint,omitempty"` // slots that differed when it began, by service: the base of max_failure_ratio
	Operator string           `cbor:"14,keyasint,omitempty"` // who asked for it, if not a commit: "restart shop/web by ana"
	FailedBy string           `cbor:"15,keyasint,omitempty"` // the slot that failed it: "web.1"
	Jobs     map[string]Phase `cbor:"16,keyasint,omitempty"` // job services that have ended in this rollout
	Again    time.Time        `cbor:"17,keyasint,omitzero"`  // ended by the environment alone: tried again from here on
}

// Ended is a rollout that is over.
type Ended struct {
	ID       uint64    `cbor:"1,keyasint,omitempty"`
	To       Rendered  `cbor:"2,keyasint,omitempty"`
	Phase    Phase     `cbor:"3,keyasint,omitempty"`
	Began    time.Time `cbor:"4,keyasint,omitzero"`
	Over     time.Time `cbor:"5,keyasint,omitzero"`
	Why      string    `cbor:"6,keyasint,omitempty"`
	Operator string    `cbor:"7,keyasint,omitempty"`
}

// AllocatedNetwork is a network as the cluster has it: a stack's network with what was allocated.
type AllocatedNetwork struct {
	ID       NetworkID `cbor:"1,keyasint,omitempty"`
	VNI      uint32    `cbor:"2,keyasint,omitempty"` // 4096 <= VNI < 2^24
	Subnet   string    `cbor:"3,keyasint,omitempty"` // CIDR
	Gateway  string    `cbor:"4,keyasint,omitempty"`
	Internal bool      `cbor:"5,keyasint,omitempty"`
	MTU      int       `cbor:"6,keyasint,omitempty"`
}

// Endpoint is where a service is reached: its virtual addresses and published
// ports, kept while any revision names the service.
type Endpoint struct {
	Service ServiceID    `cbor:"1,keyasint,omitempty"`
	Mode    EndpointMode `cbor:"2,keyasint,omitempty"`
	VIPs    []Address    `cbor:"3,keyasint,omitempty"` // by network; empty for dnsrr
	Ports   []Port       `cbor:"4,keyasint,omitempty"` // in mode ingress, Published filled in
}

// KeptVolume is a named volume on a node.
type KeptVolume struct {
	ID      VolumeID  `cbor:"1,keyasint,omitempty"`
	Node    NodeID    `cbor:"2,keyasint,omitempty"`
	Created time.Time `cbor:"3,keyasint,omitzero"`
	Orphan  time.Time `cbor:"4,keyasint,omitzero"` // when its stack went; it is removed VolumeKept later
	Dropped time.Time `cbor:"5,keyasint,omitzero"` // when it was given up; its record goes once the node has removed it
}

// VolumeKept is how long a volume outlives its stack.
const VolumeKept = 7 * 24 * time.Hour

// Event is one thing that happened, for `gitswarm events`.
type Event struct {
	Index    uint64    `cbor:"1,keyasint,omitempty"`
	At       time.Time `cbor:"2,keyasint,omitzero"`
	Kind     string    `cbor:"3,keyasint,omitempty"` // "rollout", "task", "source", "node", "volume", "operator"
	Stack    StackName `cbor:"4,keyasint,omitempty"`
	Service  string    `cbor:"5,keyasint,omitempty"`
	Slot     int       `cbor:"6,keyasint,omitempty"`
	Task     TaskID    `cbor:"7,keyasint,omitempty"`
	Node     NodeID    `cbor:"8,keyasint,omitempty"`
	Revision Revision  `cbor:"9,keyasint,omitempty"`
	Text     string    `cbor:"10,keyasint,omitempty"` // past tense, for people
}
