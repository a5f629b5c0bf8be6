package swarm

import (
	"fmt"
	"strings"
)

// Verb is what a Step does.
type Verb string

// The verbs of a Plan.
const (
	Start   Verb = "start"   // a slot that is empty
	Replace Verb = "replace" // a task whose spec differs
	Stop    Verb = "stop"    // a slot that is no longer wanted
	Remove  Verb = "remove"  // a service or a whole stack
	Adjust  Verb = "adjust"  // what replaces no task: labels, policies, published ports
)

// Step is one change a Plan asks for.
type Step struct {
	Verb    Verb      `cbor:"1,keyasint,omitempty"`
	Stack   StackName `cbor:"2,keyasint,omitempty"`
	Service string    `cbor:"3,keyasint,omitempty"` // empty for Remove of a stack
	Slot    int       `cbor:"4,keyasint,omitempty"`
	Node    NodeID    `cbor:"5,keyasint,omitempty"`
	Task    TaskID    `cbor:"6,keyasint,omitempty"` // the task that goes; empty for Start
	Why     string    `cbor:"7,keyasint,omitempty"`
}

// Plan is the difference between what is wanted and what is there. The empty
// plan means the two agree.
type Plan struct {
	Steps []Step `cbor:"1,keyasint,omitempty"`
}

// String prints one step a line, as `gitswarm plan` does.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%s %s: %s\n", s.Verb, s.Target(), s.Why)
	}
	return b.String()
}

// Target names what a step changes: "shop/web.2", "shop/web", "shop".
func (s Step) Target() string {
	switch {
	case s.Service == "":
		return string(s.Stack)
	case s.Slot == 0 && s.Node != "":
		return string(s.Stack) + "/" + s.Service + "@" + string(s.Node)
	default:
		return string(s.Stack) + "/" + SlotName(s.Service, s.Slot)
	}
}

// Answer is what policy says.
type Answer string

// The answers of policy.
const (
	Allow Answer = "allow"
	Ask   Answer = "ask" // wait for `gitswarm approve`
	Deny  Answer = "deny"
)

// Verdict is policy's answer on a Stack or a Plan.
type Verdict struct {
	Answer     Answer    `cbor:"1,keyasint,omitempty"`
	Violations []Finding `cbor:"2,keyasint,omitempty"` // in file order; each names rule, service, file, line and remedy
	Why        string    `cbor:"3,keyasint,omitempty"` // for Ask: what must be approved
}
