package dispatcher

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// outOfContact is how long a follower may not hear of the leader until it gives
// up its agents: what it would tell them may be old.
const outOfContact = time.Second

// contact is whether this manager knows what the cluster wants now.
type contact struct {
	at   time.Time
	lost bool
	back chan struct{} // closed when it is there again
}

func newContact() contact { return contact{lost: true, back: make(chan struct{})} }

// term is what a leader keeps while it leads.
type term struct {
	roll     *roll
	drains   map[swarm.TaskID]*drain
	draining map[swarm.StackName]bool
	wrong    map[swarm.NodeID]swarm.NodeState // states to write
	news     chan struct{}                    // there are some
	over     chan struct{}
}

// see notes what the state says of a node.
func (t *term) see(node swarm.Node, known bool) {
	if t == nil {
		return
	}
	if known {
		t.roll.see(node, time.Now())
	} else {
		delete(t.roll.nodes, node.ID)
	}
}

// watch looks after leadership, contact and silence several times in a
// heartbeat.
func (d *Dispatcher) watch(ctx context.Context) error {
	last := time.Now()
	for {
		d.glance(time.Now())
		pace := d.heartbeat() / 8
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pace):
		}
		now := time.Now()
		if paused := now.Sub(last) - pace; paused > 4*pace {
			d.forgive(paused, now)
		}
		last = now
	}
}

func (d *Dispatcher) heartbeat() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.common.heartbeat
}

// forgive gives everybody the time for which this process itself stood still.
func (d *Dispatcher) forgive(paused time.Duration, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.contact.at = forgiven(d.contact.at, paused, now)
	for _, s := range d.sessions {
		s.heard = forgiven(s.heard, paused, now)
	}
	if d.term != nil {
		d.term.roll.forgive(paused, now)
	}
}

// glance takes stock once.
func (d *Dispatcher) glance(now time.Time) {
	leader, known := d.config.Store.Leader()
	leads := known && leader.Node == d.config.Local
	lastContact := d.config.Store.LastContact()
	view, members := d.config.Store.View(), d.config.Store.Members()

	d.mu.Lock()
	defer d.mu.Unlock()
	d.learn(view, members)
	d.lead(leads, view, now)
	d.keepContact(leads, lastContact, now)
	d.endSilent(now)
	if d.term == nil {
		return
	}
	for _, manager := range d.term.roll.lost(now) {
		d.log.Warn("manager fell silent; its agents may find another", "node", manager)
	}
	d.term.wrong = d.term.roll.misjudged(now) // in place of what was found and is not written yet
	if len(d.term.wrong) > 0 {
		select {
		case d.term.news <- struct{}{}:
		default:
		}
	}
}

// lead begins or ends this manager's term. The caller holds mu.
func (d *Dispatcher) lead(leads bool, view *store.View, now time.Time) {
	switch {
	case leads == (d.term != nil):
		return
	case !leads:
		close(d.term.over)
		d.term = nil
		d.unsent.forget()
		return
	}

	d.term = &term{
		roll: newRoll(d.common.heartbeat, view.Nodes(), now), drains: make(map[swarm.TaskID]*drain),
		draining: make(map[swarm.StackName]bool), news: make(chan struct{}, 1), over: make(chan struct{}),
	}
	if now.Sub(d.began) < justBegun {
		d.term.roll.await(now.Add(returning))
	}
	for node := range d.sessions {
		d.term.roll.hear(node, d.config.Local, now)
	}
	if d.view == nil {
		return
	}
	for stack := range d.book.draining {
		d.term.noteDrains(d.view.Index(), stack, d.book.sheets[stack].draining)
	}
	d.settleDrains()
}

// keepContact gives the agents up when the leader was not heard of for too
// long. The caller holds mu.
func (d *Dispatcher) keepContact(leads bool, heard, now time.Time) {
	if leads {
		heard = now
	}
	if heard.After(d.contact.at) {
		d.contact.at = heard
	}
	lost := now.Sub(d.contact.at) > outOfContact
	switch {
	case lost && !d.contact.lost:
		d.contact.back = make(chan struct{})
		d.log.Warn("leader was not heard of; agents were sent away", "sessions", len(d.sessions))
		for _, s := range d.sessions {
			s.end(errCutOff)
		}
	case !lost && d.contact.lost:
		close(d.contact.back)
	}
	d.contact.lost = lost
}

// awaitContact waits a little for this manager to hear of the leader.
func (d *Dispatcher) awaitContact(ctx context.Context) error {
	d.mu.Lock()
	lost, back := d.contact.lost, d.contact.back
	d.mu.Unlock()
	if !lost {
		return nil
	}
	late := time.NewTimer(contactTimeout)
	defer late.Stop()
	select {
	case <-back:
		return nil
	case <-late.C:
		return errCutOff
	case <-ctx.Done():
		return ctx.Err()
	}
}

// endSilent ends the sessions of agents that say nothing. The caller holds mu.
func (d *Dispatcher) endSilent(now time.Time) {
	for _, s := range d.sessions {
		if now.Sub(s.heard) > patience(d.common.heartbeat) {
			s.end(errSilent)
		}
	}
}

// learn notes what all agents are told, and tells what is new. The caller holds
// mu.
func (d *Dispatcher) learn(view *store.View, members []store.Member) {
	var addresses []string
	for _, member := range members {
		if member.Address != "" {
			addresses = append(addresses, member.Address)
		}
	}
	slices.Sort(addresses)
	if !slices.Equal(addresses, d.common.managers) {
		d.common.managers = addresses
		for _, s := range d.sessions {
			s.managers = addresses
			s.poke()
		}
	}

	cluster, known := view.Cluster()
	if !known || cluster.Version == d.common.version {
		return
	}
	d.common.version, d.common.cluster = cluster.Version, cluster.ID
	if d.config.Heartbeat == 0 && cluster.Settings.Heartbeat > 0 {
		d.common.heartbeat = max(cluster.Settings.Heartbeat, leastHeartbeat)
		if d.term != nil {
			d.term.roll.heartbeat = d.common.heartbeat
		}
	}
	d.common.issuer = identity.IssuerOf(cluster.Authority)
	for _, s := range d.sessions {
		if node, known := view.Node(s.node); known {
			s.judgePapers(node, d.common.issuer)
		}
	}
}

// statesAtOnce bounds the nodes' states that are on their way into the log.
const statesAtOnce = 64

// proposeStates writes what the leader found out about nodes. It gives up when
// the term ends: a judgement must not reach the log through the next leader.
func (d *Dispatcher) proposeStates(ctx context.Context) error {
	for {
		d.mu.Lock()
		t := d.term
		d.mu.Unlock()
		if t == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(d.heartbeat() / 8):
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.over:
		case <-t.news:
			d.judge(ctx, t)
		}
	}
}

// judge writes the states that are wrong.
func (d *Dispatcher) judge(ctx context.Context, t *term) {
	ctx, cancel := context.WithTimeout(ctx, outOfContact)
	defer cancel()
	go func() {
		select {
		case <-t.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	d.mu.Lock()
	wrong := t.wrong
	t.wrong = nil
	d.mu.Unlock()

	view := d.config.Store.View()
	var group errgroup.Group
	group.SetLimit(statesAtOnce)
	for id, state := range wrong {
		node, known := view.Node(id)
		if !known || node.State == state {
			continue
		}
		node.State = state
		group.Go(func() error {
			d.log.Info("node changed", "node", id, "state", state)
			if err := d.putNode(ctx, node); err != nil && ctx.Err() == nil {
				d.log.Error("node's state was not written; it is tried again", "node", id, "error", err)
			}
			return nil
		})
	}
	_ = group.Wait() // its functions return none
}
