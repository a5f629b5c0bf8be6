package swarm

import (
	"fmt"
	"time"
)

// A TaskState only ever grows: a task that failed is replaced, never revived.
// Gaps leave room for states of later releases.
type TaskState int

// The life of a task, in order.
const (
	TaskNew       TaskState = 0   // wanted, not yet placed on a node
	TaskAssigned  TaskState = 10  // placed; the node has not answered yet
	TaskPreparing TaskState = 20  // image, volumes and addresses on their way
	TaskPrepared  TaskState = 30  // could start at once
	TaskStarting  TaskState = 40  // the container runs; its health check has not passed yet
	TaskHealthy   TaskState = 50  // the container runs; its health check passes, or it has none
	TaskComplete  TaskState = 60  // ended by itself with exit code 0
	TaskStopped   TaskState = 70  // ended because it was asked to
	TaskFailed    TaskState = 80  // ended by itself, or turned unhealthy
	TaskRejected  TaskState = 90  // could not be prepared or started on this node
	TaskLost      TaskState = 100 // its node is gone for good
)

var taskStateNames = map[TaskState]string{
	TaskNew: "new", TaskAssigned: "assigned", TaskPreparing: "preparing", TaskPrepared: "prepared",
	TaskStarting: "starting", TaskHealthy: "healthy", TaskComplete: "complete", TaskStopped: "stopped",
	TaskFailed: "failed", TaskRejected: "rejected", TaskLost: "lost",
}

// Live reports whether the task holds, or will hold, a container.
func (s TaskState) Live() bool { return s < TaskComplete }

// Running reports whether the task's container runs.
func (s TaskState) Running() bool { return s == TaskStarting || s == TaskHealthy }

// String is the state in the words of `gitswarm ps`.
func (s TaskState) String() string {
	if name, ok := taskStateNames[s]; ok {
		return name
	}
	return fmt.Sprintf("state %d", int(s))
}

// MarshalText is String, so that JSON shows the word.
func (s TaskState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *TaskState) UnmarshalText(text []byte) error {
	for state, name := range taskStateNames {
		if name == string(text) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("task state %q is unknown", text)
}

// Desired is what a node is asked to do with a task. It only ever grows.
type Desired int

// What a node may be asked, in order.
const (
	DesiredPrepare Desired = 10 // fetch all it needs, start nothing
	DesiredRun     Desired = 20 // run it; a job's task ends by itself
	DesiredDrain   Desired = 30 // keep it running, out of every load balancer
	DesiredStop    Desired = 40 // stop it, keep its log
	DesiredRemove  Desired = 50 // stop it and remove every trace
)

var desiredNames = map[Desired]string{
	DesiredPrepare: "prepare", DesiredRun: "run", DesiredDrain: "drain", DesiredStop: "stop", DesiredRemove: "remove",
}

// String is the word of `gitswarm ps`.
func (d Desired) String() string {
	if name, ok := desiredNames[d]; ok {
		return name
	}
	return fmt.Sprintf("desired %d", int(d))
}

// MarshalText is String, so that JSON shows the word.
func (d Desired) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Desired) UnmarshalText(text []byte) error {
	for desired, name := range desiredNames {
		if name == string(text) {
			*d = desired
			return nil
		}
	}
	return fmt.Errorf("desired state %q is unknown", text)
}

// Task is one container of one Service, for one life. It never moves to
// another node. The reconciler writes Desired and NotBefore, the scheduler
// Node, the allocator Addresses, the task's agent Status.
type Task struct {
	ID         TaskID     `cbor:"1,keyasint,omitempty"`
	Service    ServiceID  `cbor:"2,keyasint,omitempty"`
	Slot       int        `cbor:"3,keyasint,omitempty"` // its seat among the replicas, from 1; 0 where the node is the seat
	Node       NodeID     `cbor:"4,keyasint,omitempty"`
	Spec       Digest     `cbor:"5,keyasint,omitempty"`  // blob: TaskSpec
	Generation uint64     `cbor:"6,keyasint,omitempty"`  // of the service's `restart`s, see StackRecord
	Revision   Revision   `cbor:"7,keyasint,omitempty"`  // the commit that brought Spec
	Rollout    uint64     `cbor:"8,keyasint,omitempty"`  // the rollout that created it, or 0: a restart outside of one
	Replaces   TaskID     `cbor:"9,keyasint,omitempty"`  // the task whose seat it takes
	Job        bool       `cbor:"10,keyasint,omitempty"` // it is meant to end
	Desired    Desired    `cbor:"11,keyasint,omitempty"`
	NotBefore  time.Time  `cbor:"12,keyasint,omitzero"` // when it may run at the earliest (restart delay)
	Created    time.Time  `cbor:"13,keyasint,omitzero"`
	Touched    time.Time  `cbor:"14,keyasint,omitzero"` // when it was first asked to run; the rollout's deadline counts from here
	Addresses  []Address  `cbor:"15,keyasint,omitempty"`
	Status     TaskStatus `cbor:"16,keyasint,omitempty"`
	Excused    string     `cbor:"17,keyasint,omitempty"` // why its end never counts as a failure: "node lost", "stopped by operator"
	DesiredAt  time.Time  `cbor:"18,keyasint,omitzero"`  // when Desired was last raised
	Claims     *Claims    `cbor:"19,keyasint,omitempty"` // what it holds of Node; nil only of a task that an older build placed
}

// Claims is what a task holds of its node until it has ended, whatever becomes
// of the content that asked for it.
type Claims struct {
	Resources Resources `cbor:"1,keyasint,omitempty"` // reserved; each of Generic names the pieces it was given, where the node's have names
	Ports     []Port    `cbor:"2,keyasint,omitempty"` // of the host
}

// Seat returns what a task and its successor share.
func (t Task) Seat() Seat {
	seat := Seat{Service: t.Service, Slot: t.Slot}
	if t.Slot == 0 {
		seat.Node = t.Node
	}
	return seat
}

// Seat is a slot of a replicated service, or the node of a global one.
type Seat struct {
	Service ServiceID
	Slot    int
	Node    NodeID // set where Slot is 0
}

// Address is a task's place on a network.
type Address struct {
	Network NetworkID `cbor:"1,keyasint,omitempty"`
	IP      string    `cbor:"2,keyasint,omitempty"`
}

// TaskStatus is what the task's node last said of it. Times are the manager's.
type TaskStatus struct {
	State   TaskState `cbor:"1,keyasint,omitempty"`
	Since   time.Time `cbor:"2,keyasint,omitzero"`   // when State was entered
	Started time.Time `cbor:"3,keyasint,omitzero"`   // when TaskStarting was entered
	Healthy time.Time `cbor:"4,keyasint,omitzero"`   // when TaskHealthy was entered
	Exit    *int      `cbor:"5,keyasint,omitempty"`  // the container's exit code, once it ended
	Message string    `cbor:"6,keyasint,omitempty"`  // "exited 1 after 2s", "pulling 61%"
	Cause   Cause     `cbor:"7,keyasint,omitempty"`  // who is to blame for TaskFailed or TaskRejected
	Pulled  int       `cbor:"8,keyasint,omitempty"`  // percent, while the image is pulled
	OOM     bool      `cbor:"9,keyasint,omitempty"`  // the kernel ended it for lack of memory
	Drained bool      `cbor:"10,keyasint,omitempty"` // DesiredDrain has reached every load balancer
}

// Cause says who is to blame for a failure. What the content caused is
// quarantined; what the environment caused is tried again when it changes.
type Cause string

// The causes of failure.
const (
	CauseContent     Cause = "content"
	CauseEnvironment Cause = "environment"
)
