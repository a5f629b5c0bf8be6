package dispatcher

import (
	"github.com/gitswarm/gitswarm/swarm"
)

// drain is a task on its way out of the load balancers. It is out once every
// node that it waits for acts as the state of index wants; a node that is down
// is not waited for.
type drain struct {
	stack  swarm.StackName
	index  uint64
	waits  map[swarm.NodeID]bool
	stated bool // that the task is out
}

// noteDrains begins to wait for the tasks of a stack that drain since index,
// and forgets those that do not any more.
func (t *term) noteDrains(index uint64, stack swarm.StackName, draining []swarm.TaskID) {
	if t == nil || len(draining) == 0 && !t.draining[stack] {
		return
	}
	still := make(map[swarm.TaskID]bool, len(draining))
	for _, task := range draining {
		still[task] = true
	}
	for task, drain := range t.drains {
		if drain.stack == stack && !still[task] {
			delete(t.drains, task)
		}
	}

	delete(t.draining, stack)
	for _, task := range draining {
		t.draining[stack] = true
		if t.drains[task] != nil {
			continue
		}
		d := &drain{stack: stack, index: index, waits: make(map[swarm.NodeID]bool)}
		for node, p := range t.roll.nodes {
			if !p.down {
				d.waits[node] = true
			}
		}
		t.drains[task] = d
	}
}

// progressed notes that a session came nearer to what is. The caller holds mu.
func (d *Dispatcher) progressed(s *session) {
	if len(d.book.draining) == 0 {
		return
	}
	if d.term == nil {
		d.tellSoon()
		return
	}
	for task, drain := range d.term.drains {
		if drain.waits[s.node] && d.isOut(s.node, drain.index) {
			delete(drain.waits, s.node)
			d.settle(task, drain)
		}
	}
}

// settleDrains looks at every node that is waited for. The caller holds mu.
func (d *Dispatcher) settleDrains() {
	if d.term == nil {
		return
	}
	for task, drain := range d.term.drains {
		for node := range drain.waits {
			if d.isOut(node, drain.index) {
				delete(drain.waits, node)
			}
		}
		d.settle(task, drain)
	}
}

// settle reports a task that no node is waited for any more.
func (d *Dispatcher) settle(task swarm.TaskID, drain *drain) {
	if len(drain.waits) == 0 && !drain.stated {
		drain.stated = true
		d.reports.drain(task)
	}
}

// isOut reports whether a node is as the state of index wants it, or need not
// be waited for.
func (d *Dispatcher) isOut(node swarm.NodeID, index uint64) bool {
	p := d.term.roll.nodes[node]
	if p == nil || p.down {
		return true
	}
	if s := d.sessions[node]; s != nil && p.at == d.config.Local {
		return s.reach(d.view.Index()) >= index
	}
	return d.term.roll.reached(node) >= index
}
