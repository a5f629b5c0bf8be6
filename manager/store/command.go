package store

import (
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Command is one entry of the raft log: exactly one of its pointers is set.
// Apply writes the values it carries and decides nothing.
type Command struct {
	At time.Time `cbor:"1,keyasint,omitzero"`  // the cluster's time becomes max(last, At)
	By string    `cbor:"2,keyasint,omitempty"` // the person who asked, or empty for the cluster itself

	PutSource    *swarm.Source      `cbor:"10,keyasint,omitempty"` // operator
	RemoveSource *swarm.SourceID    `cbor:"11,keyasint,omitempty"` // operator
	SawSource    *SawSource         `cbor:"12,keyasint,omitempty"` // gitsync
	AcceptStacks *AcceptStacks      `cbor:"13,keyasint,omitempty"` // gitsync
	Decide       *Decide            `cbor:"14,keyasint,omitempty"` // reconciler, allocator, scheduler
	ReportStatus *ReportStatus      `cbor:"15,keyasint,omitempty"` // agents
	PutNode      *swarm.Node        `cbor:"16,keyasint,omitempty"` // By set: an operator's Availability, Role, Labels, as far as they are set (none: no labels); else the dispatcher's State, Description, or with no State the Issuer
	Operate      *Operate           `cbor:"17,keyasint,omitempty"` // operator
	PutGrants    *PutGrants         `cbor:"18,keyasint,omitempty"` // operator
	DropVolumes  []swarm.KeptVolume `cbor:"19,keyasint,omitempty"` // operator, or time; once more, with Dropped, when the node has removed them
	Lead         *Lead              `cbor:"20,keyasint,omitempty"` // a new leader begins
	PutCluster   *swarm.Cluster     `cbor:"21,keyasint,omitempty"` // operator; its Version is the one it was made from
	RemoveNode   *swarm.NodeID      `cbor:"22,keyasint,omitempty"` // operator; the node's certificate is worth nothing from then on
	PutToken     *swarm.UserToken   `cbor:"23,keyasint,omitempty"` // operator
	DropToken    *string            `cbor:"24,keyasint,omitempty"` // operator, or time
}

// SawSource records that a source answered, or why it did not.
type SawSource struct {
	Source swarm.SourceID     `cbor:"1,keyasint,omitempty"`
	Status swarm.SourceStatus `cbor:"2,keyasint,omitempty"`
}

// AcceptStacks is what one commit of a source gave, stack by stack. Stacks
// that the commit did not touch are not in it.
type AcceptStacks struct {
	Source swarm.SourceID     `cbor:"1,keyasint,omitempty"`
	Status swarm.SourceStatus `cbor:"2,keyasint,omitempty"`
	Stacks []AcceptStack      `cbor:"3,keyasint,omitempty"` // by name
}

// AcceptStack is one stack of a commit. With a Problem, Head is kept and
// nothing else changes; without one, Head becomes Accepted (or, if the commit
// removed the stack, its removal begins).
type AcceptStack struct {
	Name     swarm.StackName `cbor:"1,keyasint,omitempty"`
	Was      swarm.StackName `cbor:"2,keyasint,omitempty"` // its record and tasks move from that name
	Path     string          `cbor:"3,keyasint,omitempty"`
	Head     swarm.Rendered  `cbor:"4,keyasint,omitempty"` // Content is empty if it was refused or removed
	Problem  *swarm.Problem  `cbor:"5,keyasint,omitempty"`
	Warnings []swarm.Finding `cbor:"6,keyasint,omitempty"`
	Removed  bool            `cbor:"7,keyasint,omitempty"`
	Rescale  []string        `cbor:"8,keyasint,omitempty"` // services that changed: an operator's scale of them ends
	Version  uint64          `cbor:"9,keyasint,omitempty"` // StackRecord.Version that it was judged on; a later one voids the command; 0 asks for none
}

// Decide is a Decision with what the allocator and the scheduler added.
type Decide struct {
	Decision      swarm.Decision           `cbor:"1,keyasint,omitempty"`
	Networks      []swarm.AllocatedNetwork `cbor:"2,keyasint,omitempty"` // new or changed
	DropNetworks  []swarm.NetworkID        `cbor:"3,keyasint,omitempty"`
	Endpoints     []swarm.Endpoint         `cbor:"4,keyasint,omitempty"` // new or changed
	DropEndpoints []swarm.ServiceID        `cbor:"5,keyasint,omitempty"`
	Volumes       []swarm.KeptVolume       `cbor:"6,keyasint,omitempty"` // new or changed
}

// ReportStatus is what agents said of their tasks.
type ReportStatus struct {
	Tasks []TaskReport `cbor:"1,keyasint,omitempty"`
}

// TaskReport is what an agent said of one task.
type TaskReport struct {
	Task   swarm.TaskID     `cbor:"1,keyasint,omitempty"`
	Status swarm.TaskStatus `cbor:"2,keyasint,omitempty"`
}

// Operate is an operator's word on a stack. Exactly one field beside Stack is
// set, but Approve stands alone: it speaks of every stack whose Problem names
// that plan.
type Operate struct {
	Stack    swarm.StackName `cbor:"1,keyasint,omitempty"`
	Suspend  *string         `cbor:"2,keyasint,omitempty"` // why; empty resumes
	Scale    map[string]int  `cbor:"3,keyasint,omitempty"` // replicas by service
	Restart  []string        `cbor:"4,keyasint,omitempty"` // services
	Retry    bool            `cbor:"5,keyasint,omitempty"` // forget the quarantine of Head and accept it
	Rollback *swarm.Rendered `cbor:"6,keyasint,omitempty"` // accept this again, quarantine what is accepted now
	Approve  string          `cbor:"7,keyasint,omitempty"` // plan
	Accept   *swarm.Rendered `cbor:"8,keyasint,omitempty"` // `redeploy --pull`: the same commit, resolved anew

	Rebalance bool `cbor:"9,keyasint,omitempty"` // move replicas to emptier nodes, once
}

// PutGrants replaces all grants.
type PutGrants struct {
	Grants []swarm.Grant `cbor:"1,keyasint,omitempty"`
}

// Lead opens a leader's term. Monitor windows that are open begin anew.
type Lead struct {
	Node    swarm.NodeID `cbor:"1,keyasint,omitempty"`
	Cluster string       `cbor:"2,keyasint,omitempty"` // random; the first one in the log names the cluster
}
