package dispatcher

import (
	"context"
	"maps"
	"reflect"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

// tell sends deltas and requests as they come up, and something at least once
// in a heartbeat.
func (d *Dispatcher) tell(ctx context.Context, s *session, stream agentStream) error {
	quiet := time.NewTimer(d.heartbeat())
	defer quiet.Stop()
	for {
		for _, m := range d.news(s) {
			if err := stream.Send(&m); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.wake:
		case <-quiet.C:
			if err := stream.Send(&wire.FromManager{}); err != nil {
				return err
			}
		}
		quiet.Reset(d.heartbeat())
	}
}

// news returns what to send now.
func (d *Dispatcher) news(s *session) []wire.FromManager {
	d.mu.Lock()
	defer d.mu.Unlock()
	var messages []wire.FromManager
	if delta, some := d.delta(s); some {
		messages = append(messages, wire.FromManager{Delta: &delta})
	}
	for i := range s.opened {
		messages = append(messages, wire.FromManager{Open: &s.opened[i]})
	}
	if s.renew || s.managers != nil {
		messages = append(messages, wire.FromManager{Renew: s.renew, Managers: s.managers})
	}
	s.opened, s.renew, s.managers = nil, false, nil
	return messages
}

// delta takes the session from what was sent to what is. The caller holds mu.
func (d *Dispatcher) delta(s *session) (wire.Delta, bool) {
	if !s.full && !s.first && !s.stale && len(s.dirty) == 0 {
		return wire.Delta{}, false
	}
	defer s.clean()
	index := d.view.Index()
	if s.full {
		s.cut(&d.book)
		s.volumes = volumesToRemove(d.view, s.node)
		delta := wire.Everything(index, s.assignment())
		s.held = wire.Held{Index: index, Hash: delta.Hash}
		return delta, true
	}

	old, new := s.change(&d.book)
	if s.stale {
		volumes := volumesToRemove(d.view, s.node)
		old.Volumes, new.Volumes = s.volumes, volumes
		s.volumes = volumes
	}
	changes, shift := wire.Diff(old, new)
	if changes.Empty() && !s.first {
		d.progressed(s)
		return wire.Delta{}, false
	}
	delta := wire.Delta{Index: index, Base: s.held.Index, Changes: changes, Hash: s.held.Hash + shift}
	s.held = wire.Held{Index: index, Hash: delta.Hash}
	return delta, true
}

// mark notes that a stack's sheet is new.
func (s *session) mark(stack swarm.StackName) {
	if s.dirty == nil {
		s.dirty = make(map[swarm.StackName]bool)
	}
	s.dirty[stack] = true
	s.poke()
}

// change returns the parts of dirty stacks as they were sent and as they are
// now, and remembers the latter. Where the node comes onto other networks,
// every stack around these may look different.
func (s *session) change(b *book) (old, new swarm.Assignment) {
	dirty := s.dirty
	if s.moved(b) {
		s.on = b.networksOn(s.node)
		dirty = b.stacksFor(s.node, s.on)
		for stack := range s.parts {
			dirty[stack] = true
		}
	}
	for stack := range dirty {
		part := b.sheets[stack].part(s.node, s.on)
		add(&old, s.parts[stack])
		add(&new, part)
		s.remember(stack, part)
	}
	sortAssignment(&old)
	sortAssignment(&new)
	return old, new
}

// moved reports whether the dirty stacks' tasks on the node changed networks.
func (s *session) moved(b *book) bool {
	for stack := range s.dirty {
		if !maps.Equal(networksOf(s.parts[stack].Tasks), networksOf(b.sheets[stack].tasks[s.node])) {
			return true
		}
	}
	return false
}

func (s *session) remember(stack swarm.StackName, part swarm.Assignment) {
	if reflect.ValueOf(part).IsZero() {
		delete(s.parts, stack)
	} else {
		s.parts[stack] = part
	}
}

// cut makes the node's parts from the sheets that concern it.
func (s *session) cut(b *book) {
	s.on = b.networksOn(s.node)
	s.parts = make(map[swarm.StackName]swarm.Assignment)
	for stack := range b.stacksFor(s.node, s.on) {
		s.remember(stack, b.sheets[stack].part(s.node, s.on))
	}
}

// assignment puts the parts together.
func (s *session) assignment() swarm.Assignment {
	a := swarm.Assignment{Volumes: s.volumes}
	for _, part := range s.parts {
		add(&a, part)
	}
	sortAssignment(&a)
	return a
}

// clean notes that all was sent.
func (s *session) clean() {
	s.full, s.first, s.stale, s.dirty = false, false, false, nil
}

// reach is the index up to which the agent's node is as it should be, where
// index is that of the book.
func (s *session) reach(index uint64) uint64 {
	if s.full || s.first || len(s.dirty) > 0 || s.applied < s.held.Index {
		return s.applied
	}
	return index
}
