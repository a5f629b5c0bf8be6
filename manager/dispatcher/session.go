package dispatcher

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	helloTimeout   = 5 * time.Second
	contactTimeout = 600 * time.Millisecond // a new agent waits so long for this manager to find its leader
	catchUpTimeout = time.Second            // and so long for it to know what the agent knows
)

var (
	errReplaced = errors.New("the node has opened a newer session")
	errSilent   = errors.New("the node gave no sign of life")
	errCutOff   = errors.New("this manager is out of contact with the leader: connect to another one")
)

// session is one agent's. Its fields are the dispatcher's mutex's to guard.
type session struct {
	id     string
	node   swarm.NodeID
	papers *wire.Papers // of its certificate, as far as it is known
	end    context.CancelCauseFunc
	wake   chan struct{}
	heard  time.Time

	held    wire.Held // Index and Hash of what was sent last; the assignment is in parts
	parts   map[swarm.StackName]swarm.Assignment
	volumes []swarm.VolumeID
	on      map[swarm.NetworkID]bool
	applied uint64

	first    bool // the agent holds the right assignment: say so
	full     bool // send all
	dirty    map[swarm.StackName]bool
	stale    bool // volumes may have changed
	opened   []wire.Open
	managers []string // to tell; nil means that the agent knows
	renew    bool     // the node's certificate has to be renewed: say so
	renewing bool     // that was said
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
	s := &session{id: rand.Text(), node: hello.Node, end: end, wake: make(chan struct{}, 1)}
	if err := d.admit(ctx, s, hello); err != nil {
		d.log.Warn("session was refused", "node", hello.Node, "reason", err)
		return err
	}
	if err := stream.Send(&wire.FromManager{Welcome: d.welcome(s)}); err != nil {
		return err
	}

	d.join(s, hello)
	defer d.leave(s)
	d.log.Info("session began", "node", s.node, "index", hello.Index)
	go func() { s.end(d.hear(ctx, s, stream)) }() // ends with the stream
	err = d.tell(ctx, s, stream)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
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
	late := time.NewTimer(helloTimeout)
	defer late.Stop()
	select {
	case <-late.C:
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

// authorize refuses a caller who is not the node: a node speaks for itself
// alone. Without a certificate it is this machine's own.
func (d *Dispatcher) authorize(ctx context.Context, node swarm.NodeID) error {
	caller, err := wire.Caller(ctx)
	switch {
	case errors.Is(err, wire.ErrPlain) && d.config.Plain(node):
		return nil
	case err != nil:
		return fmt.Errorf("node %q did not prove who it is: %w", node, err)
	case caller.Node != node:
		return fmt.Errorf("node %q speaks as node %q: its certificate is another's", caller.Node, node)
	}
	return nil
}

// admit lets a node in that proved itself, if this manager can serve it, and
// writes it into the state if that does not know it so.
func (d *Dispatcher) admit(ctx context.Context, s *session, hello wire.Hello) error {
	if err := d.authorize(ctx, hello.Node); err != nil {
		return err
	}
	if err := fits(hello.Description); err != nil {
		return err
	}
	if err := d.awaitContact(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.ready:
	}

	caller, err := wire.Caller(ctx)
	certified := err == nil
	view := d.config.Store.View()
	node, known := view.Node(hello.Node)
	if hello.Index > view.Index() || certified && !known {
		if view, err = d.caughtUp(ctx); err != nil {
			return err
		}
		node, known = view.Node(hello.Node)
	}
	switch {
	case hello.Index > view.Index():
		return fmt.Errorf("the node has seen index %d, this manager knows %d: connect it to a manager that is not behind, or move the agent's folder away if this state was restored from a backup", hello.Index, view.Index())
	case certified && !known:
		return wire.ErrRemoved
	case hello.Papers != nil:
		s.papers = hello.Papers
	case certified:
		s.papers = &wire.Papers{Role: caller.Role, Issuer: caller.Issuer}
	}
	return d.register(ctx, node, known, hello)
}

// caughtUp returns a view that is not older than what the leader has now.
func (d *Dispatcher) caughtUp(ctx context.Context) (*store.View, error) {
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	if err := d.config.Store.Confirm(ctx); err != nil {
		return nil, fmt.Errorf("catch up with the leader: %w", err)
	}
	return d.config.Store.View(), nil
}

// register writes the node into the state if that does not know it so.
func (d *Dispatcher) register(ctx context.Context, node swarm.Node, known bool, hello wire.Hello) error {
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

// A manager with many agents hears each of them less often: it has to hear all
// of them.
const manySessions = 500

func (d *Dispatcher) welcome(s *session) *wire.Welcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	spacing := d.common.heartbeat / 4
	if len(d.sessions) > manySessions {
		spacing = d.common.heartbeat / 2
	}
	return &wire.Welcome{
		Session: s.id, Heartbeat: spacing, Cluster: d.common.cluster,
		Managers: d.common.managers, Silence: d.common.heartbeat * 5 / 2,
	}
}

// join makes s the node's session, and ends the one before.
func (d *Dispatcher) join(s *session, hello wire.Hello) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.sessions[s.node]; old != nil {
		delete(d.byID, old.id)
		old.end(errReplaced)
	}
	d.sessions[s.node], d.byID[s.id] = s, s
	d.noteMove(s.node)
	d.hearFrom(s)
	d.arrived()
	if node, known := d.view.Node(s.node); known {
		s.judgePapers(node, d.common.issuer)
	}

	s.cut(&d.book)
	s.volumes = volumesToRemove(d.view, s.node)
	sum := wire.Sum(s.assignment())
	if hello.Index > 0 && hello.Hash == sum {
		s.held, s.first = wire.Held{Index: hello.Index, Hash: sum}, true // nothing but the index is news
	} else {
		s.full = true
	}
	s.poke()
}

// arrived wakes those who wait for a session. The caller holds mu.
func (d *Dispatcher) arrived() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// leave ends s; a newer session of the node stays.
func (d *Dispatcher) leave(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.byID, s.id)
	if d.sessions[s.node] == s {
		delete(d.sessions, s.node)
		d.noteMove(s.node)
	}
}

// noteMove notes that a node's session began or ended here. The caller holds
// mu.
func (d *Dispatcher) noteMove(node swarm.NodeID) {
	if d.term == nil {
		d.unsent.moved(node)
		d.tellSoon()
	} else if d.sessions[node] == nil {
		d.term.roll.leave(node, d.config.Local)
	}
}

// hearFrom notes a sign of life. The caller holds mu.
func (d *Dispatcher) hearFrom(s *session) {
	s.heard = time.Now()
	if d.term != nil {
		d.term.roll.hear(s.node, d.config.Local, s.heard)
	} else {
		d.unsent.heard[s.node] = true
	}
}

// nodeOf returns the node of a session that lives.
func (d *Dispatcher) nodeOf(id string) (swarm.NodeID, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.byID[id]
	if s == nil {
		return "", false
	}
	return s.node, true
}

// judgePapers asks the agent to renew its certificate if it is of another role
// than the node's, or of another authority.
func (s *session) judgePapers(node swarm.Node, issuer string) {
	if s.papers == nil || s.renewing {
		return
	}
	if s.papers.Role != node.Role || issuer != "" && s.papers.Issuer != issuer {
		s.renew, s.renewing = true, true
		s.poke()
	}
}

func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
