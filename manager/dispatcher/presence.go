package dispatcher

import (
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

// roll is what the leader has heard of the nodes, and through whom. It reads no
// clock: whoever calls says what time it is.
type roll struct {
	heartbeat time.Duration
	nodes     map[swarm.NodeID]*presence
	managers  map[swarm.NodeID]*messenger // the other managers that were heard
}

// presence is when a node was last heard, and what the state says of it.
type presence struct {
	heard time.Time
	until time.Time // it is not down before: it has not been heard yet, and may not know of this manager
	down  bool
	at    swarm.NodeID // the manager that has its session, or none
}

// messenger is another manager, by its last Beat.
type messenger struct {
	heard  time.Time
	index  uint64
	behind map[swarm.NodeID]uint64
}

// newRoll begins with all nodes that the state knows. They have yet to find
// their managers, and these the leader: nobody is down for a while.
func newRoll(heartbeat time.Duration, nodes []swarm.Node, now time.Time) *roll {
	r := &roll{heartbeat: heartbeat, nodes: make(map[swarm.NodeID]*presence), managers: make(map[swarm.NodeID]*messenger)}
	for _, node := range nodes {
		r.see(node, now)
	}
	return r
}

// Where a cluster begins again after all its managers were away, agents ask them
// ever more rarely, those first that are not there.
const (
	justBegun = 10 * time.Second // a manager that leads so soon after its start begins again
	returning = 20 * time.Second // for nodes to find it
)

// await lets nodes that were not heard yet take their time.
func (r *roll) await(until time.Time) {
	for _, p := range r.nodes {
		p.until = until
	}
}

// patience is how long a node may say nothing until it is down: three
// heartbeats, and what its last word may need on its way through another
// manager. With 800 ms that is 2.7 s: a daemon that stood still for two seconds
// is not down, a machine that is gone is so within three.
func patience(heartbeat time.Duration) time.Duration { return heartbeat * 27 / 8 }

// patienceWithManagers is how long another manager may say nothing until its
// agents are taken to look for a new one.
func patienceWithManagers(heartbeat time.Duration) time.Duration { return heartbeat * 5 / 4 }

// see notes what the state says of a node. One that comes back is called ready
// by the manager that it speaks to, before that manager's word of it is here.
func (r *roll) see(node swarm.Node, now time.Time) {
	down := node.State == swarm.NodeDown
	if p := r.nodes[node.ID]; p != nil {
		if p.down && !down && now.After(p.heard) {
			p.heard = now
		}
		p.down = down
		return
	}
	r.nodes[node.ID] = &presence{heard: now.Add(patience(r.heartbeat)), down: down} // it has yet to come
}

// hear notes a sign of life that a node gave a manager.
func (r *roll) hear(node, manager swarm.NodeID, now time.Time) {
	r.hold(node, manager)
	p := r.nodes[node]
	if p == nil {
		return
	}
	p.until = time.Time{}
	if now.After(p.heard) {
		p.heard = now
	}
}

// hold notes that a manager has a node's session. A node that the state does
// not know is not noted: a late word of one that was removed would leave
// somebody behind for whom every drain waits.
func (r *roll) hold(node, manager swarm.NodeID) {
	if p := r.nodes[node]; p != nil {
		p.at = manager
	}
}

// leave notes that a manager has a node's session no more.
func (r *roll) leave(node, manager swarm.NodeID) {
	if p := r.nodes[node]; p != nil && p.at == manager {
		p.at = ""
	}
}

// take notes what another manager tells of its sessions. It reports whether the
// manager was known; one that was not has to tell of all its sessions.
func (r *roll) take(beat wire.Beat, now time.Time) bool {
	m := r.managers[beat.Manager]
	known := m != nil || beat.Full
	if m == nil {
		m = &messenger{}
		r.managers[beat.Manager] = m
	}
	m.heard, m.index = now, beat.Index
	m.behind = make(map[swarm.NodeID]uint64, len(beat.Behind))
	for _, reach := range beat.Behind {
		m.behind[reach.Node] = reach.Index
	}

	if beat.Full {
		r.release(beat.Manager)
	}
	for _, node := range beat.Ended {
		r.leave(node, beat.Manager)
	}
	for _, node := range beat.Sessions {
		r.hold(node, beat.Manager)
	}
	for _, node := range beat.Heard { // after Sessions: where two claim a node, it is with the one it speaks to
		r.hear(node, beat.Manager, now)
	}
	return known
}

func (r *roll) release(manager swarm.NodeID) {
	for _, p := range r.nodes {
		if p.at == manager {
			p.at = ""
		}
	}
}

// lost forgets the managers that fell silent, and returns them. Their agents
// have from now on as much time as if they had just spoken; but not the agent
// of the same machine, which is as silent as its manager.
func (r *roll) lost(now time.Time) []swarm.NodeID {
	var lost []swarm.NodeID
	for id, m := range r.managers {
		if now.Sub(m.heard) <= patienceWithManagers(r.heartbeat) {
			continue
		}
		lost = append(lost, id)
		delete(r.managers, id)
		for node, p := range r.nodes {
			if p.at != id {
				continue
			}
			p.at = ""
			if node != id && now.After(p.heard) {
				p.heard = now
			}
		}
	}
	return lost
}

// excuse lets a node be silent until then: it said that it begins anew.
func (r *roll) excuse(node swarm.NodeID, until time.Time) {
	if p := r.nodes[node]; p != nil && until.After(p.heard) {
		p.heard = until
	}
}

// forgive gives every node and manager the time for which the judge stood
// still, until now.
func (r *roll) forgive(paused time.Duration, now time.Time) {
	for _, p := range r.nodes {
		p.heard = forgiven(p.heard, paused, now)
	}
	for _, m := range r.managers {
		m.heard = forgiven(m.heard, paused, now)
	}
}

// forgiven is when somebody counts as heard after a pause. Who was heard since
// it ended has had no part in it.
func forgiven(heard time.Time, paused time.Duration, now time.Time) time.Time {
	switch later := heard.Add(paused); {
	case heard.After(now): // has more time than that
		return heard
	case later.After(now):
		return now
	default:
		return later
	}
}

// misjudged returns the nodes whose state is not what they show.
func (r *roll) misjudged(now time.Time) map[swarm.NodeID]swarm.NodeState {
	var wrong map[swarm.NodeID]swarm.NodeState
	for node, p := range r.nodes {
		silent := now.Sub(p.heard) > patience(r.heartbeat) && now.After(p.until)
		if silent == p.down || !silent && p.at == "" {
			continue
		}
		if wrong == nil {
			wrong = make(map[swarm.NodeID]swarm.NodeState)
		}
		wrong[node] = swarm.NodeReady
		if silent {
			wrong[node] = swarm.NodeDown
		}
	}
	return wrong
}

// reached is the index up to which a node at another manager has come; 0 if
// that is not known.
func (r *roll) reached(node swarm.NodeID) uint64 {
	p := r.nodes[node]
	if p == nil {
		return 0
	}
	m := r.managers[p.at]
	if m == nil {
		return 0
	}
	if index, behind := m.behind[node]; behind {
		return index
	}
	return m.index
}
