package dispatcher

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

const helloTimeout = 5 * time.Second

var (
	errReplaced = errors.New("the node has opened a newer session")
	errSilent   = errors.New("the node gave no sign of life")
)

// session is one agent's. Its fields are the dispatcher's mutex's to guard.
type session struct {
	id   string
	node swarm.NodeID
	end  context.CancelCauseFunc
	wake chan struct{}

	held    wire.Held // Index and Hash of what was sent last; the assignment is in parts
	parts   map[swarm.StackName]swarm.Assignment
	volumes []swarm.VolumeID
	on      map[swarm.NetworkID]bool
	applied uint64

	first  bool // the agent holds the right assignment: say so
	full   bool // send all
	dirty  map[swarm.StackName]bool
	stale  bool // volumes may have changed
	opened []wire.Open
}

type agentStream = wire.Stream[wire.FromManager, wire.FromAgent]

// Session serves one agent until the stream, or a newer session of the same
// node, ends it.
func (d *Dispatcher) Session(stream agentStream) error {
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)

	hello, err := d.hello(ctx, stream)
	if err != nil {
		return err
	}
	if err := d.register(ctx, hello); err != nil {
		return err
	}
	s := &session{
		id: rand.Text(), node: hello.Node, end: end, wake: make(chan struct{}, 1),
		parts: make(map[swarm.StackName]swarm.Assignment), dirty: make(map[swarm.StackName]bool),
	}
	if err := stream.Send(&wire.FromManager{Welcome: &wire.Welcome{Session: s.id, Heartbeat: d.config.Heartbeat}}); err != nil {
		return err
	}

	d.join(s, hello)
	defer d.leave(s)
	d.log.Info("session began", "node", s.node, "index", hello.Index)
	heard := make(chan error, 1)
	go func() { heard <- d.hear(ctx, s, stream) }() // ends with the stream
	told := make(chan error, 1)
	go func() { told <- d.tell(ctx, s, stream) }() // likewise
	select {
	case err = <-heard:
	case err = <-told:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	d.log.Info("session ended", "node", s.node, "reason", err)
	return err
}

// hello waits for the agent's first message.
func (d *Dispatcher) hello(ctx context.Context, stream agentStream) (wire.Hello, error) {
	type received struct {
		m   *wire.FromAgent
		err error
	}
	first := make(chan received, 1)
	go func() { // ends with the stream
		m, err := stream.Recv()
		first <- received{m, err}
	}()
	select {
	case <-time.After(helloTimeout):
		return wire.Hello{}, errors.New("the agent said no hello")
	case <-ctx.Done():
		return wire.Hello{}, ctx.Err()
	case r := <-first:
		if r.err != nil {
			return wire.Hello{}, r.err
		}
		if r.m.Hello == nil || r.m.Hello.Node == "" {
			return wire.Hello{}, errors.New("the agent's first message is no hello with a node's id")
		}
		return *r.m.Hello, nil
	}
}

// register writes the node into the state if that does not know it so.
func (d *Dispatcher) register(ctx context.Context, hello wire.Hello) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.ready:
	}
	view := d.config.Store.View()
	if hello.Index > view.Index() {
		return fmt.Errorf("the node has seen index %d, this manager knows %d: connect it to a manager that is not behind, or move the agent's folder away if this state was restored from a backup", hello.Index, view.Index())
	}
	node, known := view.Node(hello.Node)
	if known && node.State == swarm.NodeReady && reflect.DeepEqual(node.Description, hello.Description) {
		return nil
	}
	if !known {
		node = swarm.Node{ID: hello.Node, Availability: swarm.NodeActive, Role: d.config.Role}
	}
	node.State, node.Description = swarm.NodeReady, hello.Description
	return d.putNode(ctx, node)
}

func (d *Dispatcher) putNode(ctx context.Context, node swarm.Node) error {
	if _, err := d.config.Store.Propose(ctx, store.Command{At: time.Now(), PutNode: &node}); err != nil {
		return fmt.Errorf("register node %s: %w", node.ID, err)
	}
	return nil
}

// join makes s the node's session, and ends the one before.
func (d *Dispatcher) join(s *session, hello wire.Hello) {
	volumes := volumesToRemove(d.config.Store.View(), s.node)
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.sessions[s.node]; old != nil {
		old.end(errReplaced)
	}
	d.sessions[s.node] = s
	d.hearFrom(s.node)
	close(d.joined)
	d.joined = make(chan struct{})

	s.cut(d.sheets)
	s.volumes = volumes
	sum := wire.Sum(s.assignment())
	if hello.Index > 0 && hello.Hash == sum {
		s.held, s.first = wire.Held{Index: hello.Index, Hash: sum}, true // nothing but the index is news
	} else {
		s.full = true
	}
	s.poke()
}

// leave ends s; a newer session of the node stays.
func (d *Dispatcher) leave(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions[s.node] == s {
		delete(d.sessions, s.node)
	}
}

// nodeOf returns the node of a session that lives.
func (d *Dispatcher) nodeOf(id string) (swarm.NodeID, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sessions {
		if s.id == id && id != "" {
			return s.node, true
		}
	}
	return "", false
}

func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// mark notes that a stack's sheet is new, if that concerns the node.
func (s *session) mark(stack swarm.StackName, sheet sheet) {
	if _, had := s.parts[stack]; !had && reflect.ValueOf(sheet.part(s.node, s.on)).IsZero() {
		return
	}
	s.dirty[stack] = true
	s.poke()
}

func (s *session) markVolumes(everything bool, nodes []swarm.NodeID) {
	if everything || slices.Contains(nodes, s.node) {
		s.stale = true
		s.poke()
	}
}

// tell sends deltas and stream requests as they come up.
func (d *Dispatcher) tell(ctx context.Context, s *session, stream agentStream) error {
	for {
		for _, m := range d.news(s) {
			if err := stream.Send(&m); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		}
	}
}

// news returns what to send now.
func (d *Dispatcher) news(s *session) []wire.FromManager {
	var volumes []swarm.VolumeID
	view := d.config.Store.View() // not older than what is marked
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.stale {
		volumes = volumesToRemove(view, s.node)
	}

	var messages []wire.FromManager
	if delta, some := d.delta(s, volumes); some {
		messages = append(messages, wire.FromManager{Delta: &delta})
	}
	for i := range s.opened {
		messages = append(messages, wire.FromManager{Open: &s.opened[i]})
	}
	s.opened = nil
	d.sentUpTo(s)
	return messages
}

// delta takes the session from what was sent to what is. The caller holds mu.
func (d *Dispatcher) delta(s *session, volumes []swarm.VolumeID) (wire.Delta, bool) {
	defer s.clean()
	if s.full {
		s.cut(d.sheets)
		if s.stale {
			s.volumes = volumes
		}
		delta := wire.Everything(d.index, s.assignment())
		s.held = wire.Held{Index: d.index, Hash: delta.Hash}
		return delta, true
	}

	old, new := s.change(d.sheets)
	if s.stale {
		old.Volumes, new.Volumes = s.volumes, volumes
		s.volumes = volumes
	}
	changes, shift := wire.Diff(old, new)
	if changes.Empty() && !s.first {
		return wire.Delta{}, false
	}
	delta := wire.Delta{Index: d.index, Base: s.held.Index, Changes: changes, Hash: s.held.Hash + shift}
	s.held = wire.Held{Index: d.index, Hash: delta.Hash}
	return delta, true
}

// change returns the parts of dirty stacks as they were sent and as they are
// now, and remembers the latter. Where the node comes onto other networks,
// every stack may look different.
func (s *session) change(sheets map[swarm.StackName]sheet) (old, new swarm.Assignment) {
	dirty := s.dirty
	if s.moved(sheets) {
		s.on = networksOn(s.node, maps.Values(sheets))
		dirty = make(map[swarm.StackName]bool)
		for stack := range s.parts {
			dirty[stack] = true
		}
		for stack := range sheets {
			dirty[stack] = true
		}
	}
	for stack := range dirty {
		part := sheets[stack].part(s.node, s.on)
		add(&old, s.parts[stack])
		add(&new, part)
		s.remember(stack, part)
	}
	sortAssignment(&old)
	sortAssignment(&new)
	return old, new
}

// moved reports whether the dirty stacks' tasks on the node changed networks.
func (s *session) moved(sheets map[swarm.StackName]sheet) bool {
	for stack := range s.dirty {
		if !maps.Equal(networksOf(s.parts[stack].Tasks), networksOf(sheets[stack].tasks[s.node])) {
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

// cut makes the node's parts from all sheets.
func (s *session) cut(sheets map[swarm.StackName]sheet) {
	s.on = networksOn(s.node, maps.Values(sheets))
	clear(s.parts)
	for stack, sheet := range sheets {
		s.remember(stack, sheet.part(s.node, s.on))
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
	s.full, s.first, s.stale = false, false, false
	clear(s.dirty)
}
