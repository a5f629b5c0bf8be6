package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// maxPassed is how many managers a request for a stream may come through: one
// that leads, and the one that has the session.
const maxPassed = 2

// find returns the address of the manager to ask for a stream of the node; none
// means this one. A node that is not down has a moment to connect: after a
// manager went, its agents have yet to find another.
func (d *Dispatcher) find(ctx context.Context, node swarm.NodeID, passed int) (address string, err error) {
	late := time.NewTimer(attachTimeout)
	defer late.Stop()
	for {
		address, expected, changed := d.whereabouts(node)
		if address != "" && passed == maxPassed {
			return "", fmt.Errorf("node %q moves from manager to manager: try again", node)
		}
		if !expected {
			return address, nil
		}
		select {
		case <-changed:
		case <-d.beginning():
		case <-late.C:
			return "", fmt.Errorf("node %q is not connected to any manager", node)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// whereabouts says which manager to ask for a node: the one with its session,
// if this one leads, or the leader. It is expected if none has it now, though
// the node is there; changed is closed when to ask again.
func (d *Dispatcher) whereabouts(node swarm.NodeID) (address string, expected bool, changed <-chan struct{}) {
	leader, led := d.config.Store.Leader()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.sessions[node] != nil:
		return "", false, nil
	case d.term == nil && led && leader.Node != d.config.Local && d.config.Peers != nil:
		return leader.Address, false, nil
	case d.view == nil:
		return "", true, d.changed
	case d.term != nil:
		if p := d.term.roll.nodes[node]; p != nil && p.at != "" && p.at != d.config.Local {
			return addressOf(d.config.Store.Members(), p.at), false, nil
		}
	}
	_, known := d.view.Node(node)
	return "", known && !d.down[node], d.changed
}

func addressOf(members []store.Member, node swarm.NodeID) string {
	for _, member := range members {
		if member.Node == node {
			return member.Address
		}
	}
	return ""
}

// beginning is closed once this manager knows which nodes there are; nil from
// then on.
func (d *Dispatcher) beginning() <-chan struct{} {
	select {
	case <-d.ready:
		return nil
	default:
		return d.ready
	}
}

// relayed opens a stream of a node through the manager at address.
func (d *Dispatcher) relayed(ctx context.Context, address string, node swarm.NodeID, request wire.Open, passed int) (*attached, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // its owner closes it
	stream, err := d.config.Peers.Relay(ctx, address)
	if err == nil {
		err = stream.Send(&wire.RelayFrame{Node: node, Open: &request, Passed: passed + 1})
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("reach node %q through the manager at %s: %w", node, address, err)
	}
	a := newAttached(node)
	a.stream = far{stream}
	go func() { // ends when the owner is done with it
		<-a.over
		cancel()
	}()
	return a, nil
}

// far is a node's stream at another manager.
type far struct{ wire.Relayed }

// Send gives the node a frame.
func (f far) Send(frame *wire.DownFrame) error {
	return f.Relayed.Send(&wire.RelayFrame{Down: frame})
}

// Relay joins another manager to a stream of a node: one whose session is here,
// or, if this manager leads, wherever that is.
func (d *Dispatcher) Relay(stream wire.Stream[wire.UpFrame, wire.RelayFrame]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.Open == nil || first.Node == "" || first.Passed > maxPassed {
		return errors.New("the first frame asks for no stream of a node")
	}
	a, err := d.open(stream.Context(), first.Node, *first.Open, first.Passed)
	if err != nil {
		return err
	}
	defer a.close()

	go func() { // ends with the stream
		defer a.close()
		for {
			frame, err := stream.Recv()
			if err != nil {
				return
			}
			if frame.Down != nil && a.stream.Send(frame.Down) != nil {
				return
			}
		}
	}()
	for {
		up, err := a.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		up.Stream = ""
		if err := stream.Send(up); err != nil {
			return err
		}
	}
}
