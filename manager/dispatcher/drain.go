package dispatcher

import (
	"math"
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// drain is a task on its way out of the load balancers. It is out once every
// node that it waits for has applied an assignment without it; a node that is
// down is not waited for.
type drain struct {
	stack  swarm.StackName
	waits  map[swarm.NodeID]uint64 // the index that the node has to apply
	stated bool                    // that the task is out
}

// untold stands for an index that is not known yet: the node was not told.
const untold = math.MaxUint64

// noteDrains begins to wait for the tasks of a stack that drain, and forgets
// those that do not any more. The sessions are marked already. The caller
// holds mu.
func (d *Dispatcher) noteDrains(stack swarm.StackName, s sheet) {
	for task, drain := range d.drains {
		if drain.stack == stack && !slices.Contains(s.draining, task) {
			delete(d.drains, task)
		}
	}
	for _, task := range s.draining {
		if _, known := d.drains[task]; known {
			continue
		}
		waits := make(map[swarm.NodeID]uint64)
		for node, presence := range d.presence {
			session := d.sessions[node]
			if !presence.down && (session == nil || session.full || session.dirty[stack]) {
				waits[node] = untold
			}
		}
		d.drains[task] = drain{stack: stack, waits: waits}
	}
	d.settleDrains()
}

// sentUpTo notes that the session was told all there is. The caller holds mu.
func (d *Dispatcher) sentUpTo(s *session) {
	if d.sessions[s.node] != s {
		return
	}
	for _, drain := range d.drains {
		if drain.waits[s.node] == untold {
			drain.waits[s.node] = s.held.Index
		}
	}
	d.appliedUpTo(s)
}

// appliedUpTo notes how far the node has come. The caller holds mu.
func (d *Dispatcher) appliedUpTo(s *session) {
	for _, drain := range d.drains {
		if index, waits := drain.waits[s.node]; waits && index <= s.applied {
			delete(drain.waits, s.node)
		}
	}
	d.settleDrains()
}

// waitNoMore gives up waiting for a node. The caller holds mu.
func (d *Dispatcher) waitNoMore(node swarm.NodeID) {
	for _, drain := range d.drains {
		delete(drain.waits, node)
	}
	d.settleDrains()
}

// settleDrains reports the tasks that no node is waited for any more.
func (d *Dispatcher) settleDrains() {
	for task, drain := range d.drains {
		if len(drain.waits) == 0 && !drain.stated {
			drain.stated = true
			d.drains[task] = drain
			d.reports.drain(task)
		}
	}
}
