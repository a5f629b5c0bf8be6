package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	gather      = 5 * time.Millisecond   // what comes within is told together
	beatTimeout = 700 * time.Millisecond // for the leader's answer; then it is asked for anew, as another may lead
)

// unsent is what the leader has yet to hear of the sessions here.
type unsent struct {
	leader swarm.NodeID // that was told of all sessions; none if it has to be again
	heard  map[swarm.NodeID]bool
	moves  map[swarm.NodeID]bool // nodes whose session began or ended
}

func (u *unsent) moved(node swarm.NodeID) {
	if u.moves == nil {
		u.moves = make(map[swarm.NodeID]bool)
	}
	u.moves[node] = true
}

// forget makes the next message tell of everything.
func (u *unsent) forget() {
	u.leader, u.moves = "", nil
	clear(u.heard)
}

// tellSoon makes the leader hear at once, not only at the next beat.
func (d *Dispatcher) tellSoon() {
	select {
	case d.urgent <- struct{}{}:
	default:
	}
}

// tellLeader tells the leader of the sessions here, while another manager
// leads.
func (d *Dispatcher) tellLeader(ctx context.Context) error {
	if d.config.Peers == nil {
		return nil
	}
	for {
		moment := d.heartbeat() / 8
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(moment):
		case <-d.urgent:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(gather):
			}
		}

		leader, known := d.config.Store.Leader()
		if known && leader.Node != d.config.Local {
			d.beat(ctx, leader.Node, leader.Address)
		}
	}
}

// beat tells the leader once. What it did not take is told again.
func (d *Dispatcher) beat(ctx context.Context, leader swarm.NodeID, address string) {
	message, ready := d.nextBeat(leader)
	if !ready {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	reply, err := d.config.Peers.Beat(ctx, address, message)
	if err == nil && !reply.Refused && !reply.Full {
		return
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	d.unsent.leader = ""
	if d.term == nil {
		for _, node := range message.Heard {
			d.unsent.heard[node] = true
		}
	}
	if err == nil && reply.Full {
		d.tellSoon()
	}
}

// nextBeat collects what the leader has to hear. It is not ready while this
// manager knows no state.
func (d *Dispatcher) nextBeat(leader swarm.NodeID) (beat wire.Beat, ready bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.view == nil || d.term != nil {
		return beat, false
	}
	beat = wire.Beat{Manager: d.config.Local, Index: d.view.Index(), Full: d.unsent.leader != leader}
	if beat.Full {
		beat.Sessions = slices.Sorted(maps.Keys(d.sessions))
	}
	for node := range d.unsent.moves {
		switch {
		case d.sessions[node] == nil:
			beat.Ended = append(beat.Ended, node)
		case !beat.Full:
			beat.Sessions = append(beat.Sessions, node)
		}
	}
	beat.Heard = slices.Sorted(maps.Keys(d.unsent.heard))
	for node, s := range d.sessions {
		if index := s.reach(beat.Index); index < beat.Index {
			beat.Behind = append(beat.Behind, wire.Reach{Node: node, Index: index})
		}
	}
	d.unsent.leader, d.unsent.moves = leader, nil
	clear(d.unsent.heard)
	return beat, true
}

// Beat takes what another manager tells of its agents. The leader alone wants
// to know.
func (d *Dispatcher) Beat(ctx context.Context, beat wire.Beat) (wire.BeatReply, error) {
	caller, err := wire.Caller(ctx)
	if err != nil && !errors.Is(err, wire.ErrPlain) {
		return wire.BeatReply{}, err
	}
	if err == nil && caller.Node != beat.Manager {
		return wire.BeatReply{}, fmt.Errorf("manager %q speaks as %q: its certificate is another's", caller.Node, beat.Manager)
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	if d.term == nil {
		return wire.BeatReply{Refused: true}, nil
	}
	known := d.term.roll.take(beat, time.Now())
	if len(beat.Sessions) > 0 {
		d.arrived()
	}
	if len(d.term.drains) > 0 {
		d.settleDrains()
	}
	return wire.BeatReply{Full: !known}, nil
}
