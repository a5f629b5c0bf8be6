package dispatcher

import (
	"context"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// missed is how many heartbeats a node may miss before it is down.
const missed = 3

// presence is when a node was last heard, and what the state says of it.
type presence struct {
	heard time.Time
	down  bool
}

// see notes what the state says of a node. It reports whether the node went
// down or came back. The caller holds mu.
func (d *Dispatcher) see(view *store.View, id swarm.NodeID) bool {
	node, known := view.Node(id)
	if !known {
		delete(d.presence, id)
		d.waitNoMore(id)
		return true
	}
	down := node.State == swarm.NodeDown
	p := d.presence[id]
	if p == nil { // twice the patience: its agent has yet to find this manager
		p = &presence{heard: time.Now().Add(missed * d.config.Heartbeat)}
		d.presence[id] = p
	}
	changed := p.down != down
	p.down = down
	if down {
		d.waitNoMore(id)
	}
	return changed
}

// hearFrom notes a sign of life. The caller holds mu.
func (d *Dispatcher) hearFrom(node swarm.NodeID) {
	if p := d.presence[node]; p == nil {
		d.presence[node] = &presence{heard: time.Now()}
	} else if now := time.Now(); now.After(p.heard) {
		p.heard = now
	}
}

// watch looks after the nodes twice in a heartbeat: those that fell silent
// are down, those that came back are ready.
func (d *Dispatcher) watch(ctx context.Context) error {
	pace := d.config.Heartbeat / 2
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}

		now := time.Now()
		if paused := now.Sub(last) - pace; paused > pace {
			d.forgive(paused)
		}
		last = now
		for node, state := range d.misjudged(now) {
			if err := d.judge(ctx, node, state); err != nil && ctx.Err() == nil {
				d.log.Error("node's state was not written; it is tried again", "node", node, "error", err)
			}
		}
	}
}

// forgive gives every node the time for which this process itself stood still.
func (d *Dispatcher) forgive(paused time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.presence {
		p.heard = p.heard.Add(paused)
	}
}

// misjudged returns the nodes whose state is not what they show.
func (d *Dispatcher) misjudged(now time.Time) map[swarm.NodeID]swarm.NodeState {
	d.mu.Lock()
	defer d.mu.Unlock()
	wrong := make(map[swarm.NodeID]swarm.NodeState)
	for node, p := range d.presence {
		silent := now.Sub(p.heard) > missed*d.config.Heartbeat
		switch {
		case silent && !p.down:
			wrong[node] = swarm.NodeDown
			if s := d.sessions[node]; s != nil {
				s.end(errSilent)
			}
		case !silent && p.down && d.sessions[node] != nil:
			wrong[node] = swarm.NodeReady
		}
	}
	return wrong
}

func (d *Dispatcher) judge(ctx context.Context, id swarm.NodeID, state swarm.NodeState) error {
	node, known := d.config.Store.View().Node(id)
	if !known || node.State == state {
		return nil
	}
	node.State = state
	d.log.Info("node changed", "node", id, "state", state)
	return d.putNode(ctx, node)
}
