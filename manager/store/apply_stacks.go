package store

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// acceptStacks writes what a commit gave. An empty Source stands for content
// that an operator applied by hand.
func (ch *change) acceptStacks(a AcceptStacks) error {
	if a.Source != "" {
		if err := ch.sawSource(a.Source, a.Status); err != nil {
			return fmt.Errorf("accept stacks: %w", err)
		}
	}
	for _, s := range a.Stacks {
		if s.Name == "" {
			return errors.New("accept stacks: a stack has no name")
		}
		if err := ch.acceptStack(a.Source, s); err != nil {
			return fmt.Errorf("accept stacks: %w", err)
		}
	}
	return nil
}

// acceptStack writes one stack of a commit. A stack that has not been accepted
// under its new name yet takes over the record of its former one.
func (ch *change) acceptStack(source swarm.SourceID, s AcceptStack) error {
	record, known := get[swarm.StackRecord](ch.txn, tableStacks, string(s.Name))
	if s.Version != 0 && s.Version != record.Version {
		return fmt.Errorf("stack %q: version %d, not %d: %w", s.Name, record.Version, s.Version, ErrStale)
	}
	if s.Was != "" && s.Problem == nil && record.Accepted.Content == "" {
		if former, there := ch.rename(s.Was, s.Name); there {
			record, known = former, true
		}
	}
	if !known {
		if s.Removed {
			return nil
		}
		record = swarm.StackRecord{Name: s.Name, Source: source, Path: s.Path}
	}

	record.Warnings = s.Warnings
	if source != "" {
		record.Source = source
	}
	switch {
	case s.Problem != nil:
		ch.refuse(&record, s)
	case s.Removed:
		record.Head, record.Problem, record.Removing = s.Head, nil, true
	default:
		record.Path = s.Path
		ch.accept(&record, s.Head)
		record.Scale = without(record.Scale, s.Rescale)
	}
	ch.record(record)
	return nil
}

// refuse keeps the commit as Head, with the reason why it is not accepted.
func (ch *change) refuse(record *swarm.StackRecord, s AcceptStack) {
	problem := *s.Problem
	old := record.Problem
	same := old != nil && old.Kind == problem.Kind && old.Plan == problem.Plan
	if problem.Since.IsZero() {
		problem.Since = ch.now
		if same {
			problem.Since = old.Since
		}
	}
	if !same || record.Head.Revision != s.Head.Revision {
		ch.event(swarm.Event{
			Kind: "source", Stack: s.Name, Revision: s.Head.Revision,
			Text: s.Head.Revision.Short() + " is not rolled out (" + string(problem.Kind) + "): " + problem.Text,
		})
	}
	record.Head, record.Problem = s.Head, &problem
}

// accept makes head what the rollout goes to. A stack that comes back has its
// volumes again.
func (ch *change) accept(record *swarm.StackRecord, head swarm.Rendered) {
	record.Head, record.Accepted = head, head
	record.Problem, record.Removing = nil, false
	for _, v := range list[swarm.KeptVolume](ch.txn, tableVolumes, byIDPrefix, string(record.Name)+"/") {
		if !v.Orphan.IsZero() && v.Dropped.IsZero() {
			v.Orphan = time.Time{}
			put(ch.txn, tableVolumes, v)
		}
	}
}

// rename moves a stack's record, tasks, endpoints, networks and volumes to
// another name, and returns the record. Task ids stay: containers bear them.
func (ch *change) rename(from, to swarm.StackName) (swarm.StackRecord, bool) {
	record, ok := get[swarm.StackRecord](ch.txn, tableStacks, string(from))
	if !ok {
		return record, false
	}
	remove(ch.txn, tableStacks, record)
	ch.marks.stack(from)
	record.Name = to

	for _, t := range list[swarm.Task](ch.txn, tableTasks, byStack, string(from)) {
		t.Service = swarm.NewServiceID(to, t.Service.Name())
		t.Addresses = moved(t.Addresses, from, to)
		put(ch.txn, tableTasks, t)
		ch.marks.node(t.Node)
	}
	prefix := string(from) + "/"
	for _, e := range list[swarm.Endpoint](ch.txn, tableEndpoints, byIDPrefix, prefix) {
		remove(ch.txn, tableEndpoints, e)
		e.Service = swarm.NewServiceID(to, e.Service.Name())
		e.VIPs = moved(e.VIPs, from, to)
		put(ch.txn, tableEndpoints, e)
	}
	for _, n := range list[swarm.AllocatedNetwork](ch.txn, tableNetworks, byIDPrefix, prefix) {
		remove(ch.txn, tableNetworks, n)
		n.ID = swarm.NetworkID(movedID(string(n.ID), from, to))
		put(ch.txn, tableNetworks, n)
	}
	for _, v := range list[swarm.KeptVolume](ch.txn, tableVolumes, byIDPrefix, prefix) {
		remove(ch.txn, tableVolumes, v)
		v.ID = swarm.VolumeID(movedID(string(v.ID), from, to))
		put(ch.txn, tableVolumes, v)
	}
	return record, true
}

// moved returns the addresses with the stack's networks under its new name.
func moved(addresses []swarm.Address, from, to swarm.StackName) []swarm.Address {
	var out []swarm.Address
	for _, a := range addresses {
		a.Network = swarm.NetworkID(movedID(string(a.Network), from, to))
		out = append(out, a)
	}
	return out
}

// movedID replaces the stack's name at the front of an id, if it is there.
func movedID(id string, from, to swarm.StackName) string {
	if name, ok := strings.CutPrefix(id, string(from)+"/"); ok {
		return string(to) + "/" + name
	}
	return id
}

// without returns the map without those keys, and leaves the map as it is.
func without(m map[string]int, names []string) map[string]int {
	if len(m) == 0 || len(names) == 0 {
		return m
	}
	next := maps.Clone(m)
	for _, name := range names {
		delete(next, name)
	}
	if len(next) == 0 {
		return nil
	}
	return next
}
