package store

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// removedFor is how long it is remembered that a node was removed: longer than
// any certificate of it may last that was issued with the usual expiry.
const removedFor = 2 * 365 * 24 * time.Hour

// putNode writes a node. Its fields have several writers, and none undoes what
// another wrote: a person (the command's By) writes Availability, Role, or
// Labels, see ask; the dispatcher (By is empty) State and Description; whoever
// issues its certificates (By and State are empty) Issuer. A node that is new
// is written whole, but one that was removed never comes back.
func (ch *change) putNode(node swarm.Node) error {
	if node.ID == "" {
		return errors.New("put node: it has no id")
	}
	old, known := get[swarm.Node](ch.txn, tableNodes, string(node.ID))
	next := node
	switch {
	case !known && ch.wasRemoved(node.ID):
		return fmt.Errorf("node %q was removed: %w: it may join again as a new node", node.ID, ErrNotFound)
	case !known && ch.by != "":
		return fmt.Errorf("node %q: %w: `gitswarm node ls` lists the nodes", node.ID, ErrNotFound)
	case !known:
		ch.firstSeen(&next)
	case ch.by != "":
		next = old
		if err := ch.ask(&next, node); err != nil {
			return err
		}
	default:
		next = old
		observe(&next, node)
	}
	if next.State != old.State {
		next.Since = ch.now
	}
	put(ch.txn, tableNodes, next)
	ch.nodeEvents(old, next)
	ch.marks.node(node.ID)
	return nil
}

// ask writes what a person wants of a node, and nothing that is not said: two
// people who want different things at the same time both get theirs. Where
// nothing is said, the node is to have no labels. The last manager stays one,
// whatever was agreed meanwhile.
func (ch *change) ask(next *swarm.Node, asked swarm.Node) error {
	if asked.Labels != nil || asked.Availability == "" && asked.Role == "" {
		next.Labels = asked.Labels
	}
	if asked.Role == swarm.RoleWorker && next.Role == swarm.RoleManager && !ch.manages(next.ID) {
		return fmt.Errorf("make node %q a worker: it is the last manager: promote another node first", next.ID)
	}
	next.Availability, next.Role = cmp.Or(asked.Availability, next.Availability), cmp.Or(asked.Role, next.Role)
	return nil
}

// manages reports whether there is a manager other than that node.
func (ch *change) manages(other swarm.NodeID) bool {
	return slices.ContainsFunc(list[swarm.Node](ch.txn, tableNodes, byID), func(n swarm.Node) bool {
		return n.ID != other && n.Role == swarm.RoleManager
	})
}

// observe writes what is seen of a node, not asked of it.
func observe(next *swarm.Node, seen swarm.Node) {
	if !reflect.ValueOf(seen.Description).IsZero() {
		next.Description = seen.Description
	}
	if seen.State != "" {
		next.State = seen.State
	} else if seen.Issuer != "" {
		next.Issuer = seen.Issuer
	}
}

func (ch *change) wasRemoved(id swarm.NodeID) bool {
	_, was := get[removed](ch.txn, tableRemoved, string(id))
	return was
}

func (ch *change) firstSeen(node *swarm.Node) {
	if node.Joined.IsZero() {
		node.Joined = ch.now
	}
	if node.Availability == "" {
		node.Availability = swarm.NodeActive
	}
}

func (ch *change) nodeEvents(old, next swarm.Node) {
	name := nameOf(next)
	if next.State != old.State && next.State != "" {
		ch.event(swarm.Event{Kind: "node", Node: next.ID, Text: "node " + name + " became " + string(next.State)})
	}
	if next.Availability != old.Availability && old.ID != "" {
		ch.event(swarm.Event{Kind: "node", Node: next.ID, Text: "node " + name + " was made " + string(next.Availability) + ch.byWhom()})
	}
	if next.Role != old.Role && old.ID != "" && next.Role != "" {
		ch.event(swarm.Event{Kind: "node", Node: next.ID, Text: "node " + name + " was made a " + next.Role + ch.byWhom()})
	}
}

// removeNode forgets a node for good: its id never comes back, its tasks are
// lost, and volumes that it was still to remove are forgotten with it.
func (ch *change) removeNode(id swarm.NodeID) error {
	node, known := get[swarm.Node](ch.txn, tableNodes, string(id))
	if !known {
		return fmt.Errorf("remove node %q: %w: `gitswarm node ls` lists the nodes", id, ErrNotFound)
	}
	for _, t := range list[swarm.Task](ch.txn, tableTasks, byNode, string(id)) {
		if !t.Status.State.Live() {
			continue
		}
		t.Status.State, t.Status.Since, t.Status.Message = swarm.TaskLost, ch.now, ""
		t.Excused = "node removed"
		put(ch.txn, tableTasks, t)
		ch.marks.stack(t.Service.Stack())
	}
	for _, v := range list[swarm.KeptVolume](ch.txn, tableVolumes, byID) {
		if v.Node == id && !v.Dropped.IsZero() {
			remove(ch.txn, tableVolumes, v)
		}
	}
	for _, r := range list[removed](ch.txn, tableRemoved, byID) {
		if ch.now.Sub(r.At) > removedFor {
			remove(ch.txn, tableRemoved, r)
		}
	}
	remove(ch.txn, tableNodes, node)
	put(ch.txn, tableRemoved, removed{Node: id, At: ch.now})
	ch.marks.node(id)
	ch.event(swarm.Event{Kind: "node", Node: id, Text: "node " + nameOf(node) + " was removed" + ch.byWhom()})
	return nil
}

// nameOf is what people call a node.
func nameOf(node swarm.Node) string {
	if node.Description.Hostname != "" {
		return node.Description.Hostname
	}
	return string(node.ID)
}
