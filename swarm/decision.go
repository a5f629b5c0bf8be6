package swarm

import "time"

// Decision is what the reconciler wants to happen to one stack now. The leader
// gives its new tasks a node and addresses and proposes it as one log entry,
// so it happens wholly or not at all.
type Decision struct {
	Stack      StackName    `cbor:"1,keyasint,omitempty"`
	Version    uint64       `cbor:"2,keyasint,omitempty"` // StackRecord.Version that it was taken on; a later one voids it
	Rollout    *Rollout     `cbor:"3,keyasint,omitempty"` // as it is from now on; nil leaves it
	Healthy    *Rendered    `cbor:"4,keyasint,omitempty"` // the stack has converged on it
	Ended      *Ended       `cbor:"5,keyasint,omitempty"` // goes to the front of History
	Quarantine *Quarantined `cbor:"6,keyasint,omitempty"`
	Create     []Task       `cbor:"7,keyasint,omitempty"`  // by seat
	Desire     []Desire     `cbor:"8,keyasint,omitempty"`  // by task
	Forget     []TaskID     `cbor:"9,keyasint,omitempty"`  // ended tasks beyond the history; their containers and logs go
	Gone       bool         `cbor:"10,keyasint,omitempty"` // nothing of a removed stack is left: its record goes
	Events     []Event      `cbor:"11,keyasint,omitempty"`
	Rebalanced bool         `cbor:"12,keyasint,omitempty"` // no replica has a better node any more: StackRecord.Rebalance ends
	Settle     *Stack       `cbor:"-"`                     // where only some rollback groups went back: what runs now. The leader stores it and puts its digest into Healthy.Content before it proposes
	AskAt      time.Time    `cbor:"-"`                     // when time alone may change the answer; zero means never
}

// Desire asks a node something new of a task.
type Desire struct {
	Task      TaskID    `cbor:"1,keyasint,omitempty"`
	Desired   Desired   `cbor:"2,keyasint,omitempty"`
	NotBefore time.Time `cbor:"3,keyasint,omitzero"`
	Excused   string    `cbor:"4,keyasint,omitempty"`
	Node      NodeID    `cbor:"5,keyasint,omitempty"` // a TaskNew that has found its node
	Addresses []Address `cbor:"6,keyasint,omitempty"` // likewise
	Message   string    `cbor:"7,keyasint,omitempty"` // why a TaskNew has none
	At        time.Time `cbor:"8,keyasint,omitzero"`  // when it was asked: becomes the task's DesiredAt, and its Touched where this first asks it to run
	Claims    *Claims   `cbor:"9,keyasint,omitempty"` // of a TaskNew that has found its node
}

// Empty reports whether proposing the decision would change nothing.
func (d Decision) Empty() bool {
	return d.Rollout == nil && d.Healthy == nil && d.Ended == nil && d.Quarantine == nil &&
		len(d.Create) == 0 && len(d.Desire) == 0 && len(d.Forget) == 0 && !d.Gone && len(d.Events) == 0 && !d.Rebalanced
}
