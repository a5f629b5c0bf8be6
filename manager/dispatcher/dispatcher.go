// Package dispatcher carries each node its assignment and brings back what the
// node says of its tasks. It works at every manager: a follower streams
// assignments from its own state, forwards statuses to the log and signs of
// life to the leader, and gives up its agents when it hears of the leader no
// more; the leader notices nodes that fall silent, and tells when a draining
// task has left every load balancer. It hands out blobs to the nodes whose
// tasks name them, and reaches through to logs, processes and usage, whichever
// manager has the node's session. It decides nothing: it places no task, stops
// none, and writes only what agents report.
package dispatcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// Store is the cluster's state and log, as this manager has it.
type Store interface {
	View() *store.View
	Propose(context.Context, store.Command) (index uint64, err error)
	Subscribe() *store.Subscription
	Confirm(context.Context) error
	Leader() (store.Member, bool)
	Members() []store.Member
	LastContact() time.Time
}

// Blobs reads content by its digest.
type Blobs interface {
	Get(context.Context, swarm.Digest) ([]byte, error)
}

// Peers reaches the dispatchers of other managers.
type Peers interface {
	Beat(ctx context.Context, address string, beat wire.Beat) (wire.BeatReply, error)
	Relay(ctx context.Context, address string) (wire.Relayed, error)
}

// Config is what a Dispatcher needs.
type Config struct {
	Local     swarm.NodeID            // required: this manager's node
	Store     Store                   // required
	Blobs     Blobs                   // required
	Peers     Peers                   // optional: nil where this manager is alone
	Log       *slog.Logger            // optional
	Heartbeat time.Duration           // optional: instead of what the cluster's settings say
	Role      string                  // optional: of a node that is new and shows no certificate; "manager" unless set
	Plain     func(swarm.NodeID) bool // optional: nodes that may come without a certificate, by a socket or pipe; Local alone unless set
}

// defaultHeartbeat and leastHeartbeat are ClusterSettings.Heartbeat's.
const (
	defaultHeartbeat = 800 * time.Millisecond
	leastHeartbeat   = 100 * time.Millisecond
)

// Dispatcher serves agents, and other managers' dispatchers.
type Dispatcher struct {
	config Config
	log    *slog.Logger
	specs  specs
	urgent chan struct{} // the leader should hear at once

	mu       sync.Mutex
	began    time.Time // Run
	common   common
	ready    chan struct{} // closed once sheets are there
	view     *store.View   // that sheets were made from, as a whole
	book     book
	down     map[swarm.NodeID]bool
	sessions map[swarm.NodeID]*session
	byID     map[string]*session
	changed  chan struct{} // closed, and made anew, whenever a session begins here or elsewhere
	contact  contact
	unsent   unsent // what the leader has yet to hear
	term     *term  // nil while another leads
	reports  reports
	awaited  map[string]*attached // streams that agents were asked for, by id
}

// common is what all agents are told.
type common struct {
	cluster   string
	heartbeat time.Duration
	managers  []string // host:port, sorted
	issuer    string   // of certificates that are good
	version   uint64   // of the cluster row that this is from
}

// New returns a dispatcher that serves nobody yet.
func New(config Config) *Dispatcher {
	config.Role = cmp.Or(config.Role, swarm.RoleManager)
	if config.Plain == nil {
		config.Plain = func(node swarm.NodeID) bool { return node == config.Local }
	}
	return &Dispatcher{
		config:   config,
		log:      cmp.Or(config.Log, slog.New(slog.DiscardHandler)),
		urgent:   make(chan struct{}, 1),
		common:   common{heartbeat: cmp.Or(config.Heartbeat, defaultHeartbeat)},
		ready:    make(chan struct{}),
		book:     newBook(),
		down:     make(map[swarm.NodeID]bool),
		sessions: make(map[swarm.NodeID]*session),
		byID:     make(map[string]*session),
		changed:  make(chan struct{}),
		contact:  newContact(),
		unsent:   unsent{heard: make(map[swarm.NodeID]bool)},
		reports:  newReports(),
		awaited:  make(map[string]*attached),
	}
}

// Run keeps sessions, of whatever listeners, up to date until ctx ends, which
// is not an error. It is called once.
func (d *Dispatcher) Run(ctx context.Context) error {
	d.mu.Lock()
	d.began = time.Now()
	d.mu.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.follow(ctx) })
	group.Go(func() error { return d.watch(ctx) })
	group.Go(func() error { return d.proposeReports(ctx) })
	group.Go(func() error { return d.proposeStates(ctx) })
	group.Go(func() error { return d.tellLeader(ctx) })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("dispatch: %w", err)
	}
	return nil
}

// follow keeps the sheets as the state is, and tells the sessions.
func (d *Dispatcher) follow(ctx context.Context) error {
	changes := d.config.Store.Subscribe()
	defer changes.Close()
	for {
		touched, view, more := d.collect(changes)
		if !touched.Empty() {
			d.refresh(ctx, view, touched)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

// collect returns what was touched and a view with just that in it, neither more
// nor less: an index that is told to an agent, or acknowledged by one, has to
// mean all that the log has up to there.
func (d *Dispatcher) collect(changes *store.Subscription) (touched store.Touched, view *store.View, more <-chan struct{}) {
	for {
		var next store.Touched
		next, more = changes.Take()
		touched = store.Touched{
			Everything: touched.Everything || next.Everything, Index: next.Index, Changed: next.Changed,
			Stacks: append(touched.Stacks, next.Stacks...), Nodes: append(touched.Nodes, next.Nodes...),
		}
		if view = d.config.Store.View(); view.Index() == touched.Index {
			return touched, view, more
		}
		runtime.Gosched() // the log is about to tell what it has just applied
	}
}

// refresh makes the sheets of what was touched anew and marks them for the
// sessions that they concern. Nothing else writes the book, so it is read here
// without the lock.
func (d *Dispatcher) refresh(ctx context.Context, view *store.View, touched store.Touched) {
	stacks, nodes := d.touched(view, touched)
	facts := func(spec swarm.Digest) Facts { return d.facts(ctx, spec) }
	drawn := make(map[swarm.StackName]sheet, len(stacks))
	for stack := range stacks {
		drawn[stack] = newSheet(view, stack, facts)
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	d.view = view
	for _, node := range nodes {
		d.see(view, node)
	}
	for stack, s := range drawn {
		d.mark(stack, d.book.replace(stack, s))
		d.term.noteDrains(touched.Changed, stack, s.draining)
	}
	for _, node := range nodes {
		if s := d.sessions[node]; s != nil {
			s.stale = true
			s.poke()
		}
	}
	d.settleDrains()
	if len(d.book.draining) > 0 {
		d.tellSoon()
	}
	select {
	case <-d.ready:
	default:
		close(d.ready)
	}
}

// touched lists what to look at anew: with a node that goes down or comes back,
// the stacks that have tasks on it.
func (d *Dispatcher) touched(view *store.View, touched store.Touched) (map[swarm.StackName]bool, []swarm.NodeID) {
	stacks, nodes := make(map[swarm.StackName]bool), touched.Nodes
	for _, stack := range touched.Stacks {
		stacks[stack] = true
	}
	if touched.Everything {
		for stack := range d.book.sheets {
			stacks[stack] = true
		}
		for _, record := range view.Stacks() {
			stacks[record.Name] = true
		}
		for _, node := range view.Nodes() {
			nodes = append(nodes, node.ID)
		}
	}

	for _, id := range nodes {
		node, _ := view.Node(id)
		if d.down[id] != (node.State == swarm.NodeDown) {
			for _, task := range view.TasksOn(id) {
				stacks[task.Service.Stack()] = true
			}
		}
	}
	return stacks, nodes
}

// see notes what the state says of a node. The caller holds mu.
func (d *Dispatcher) see(view *store.View, id swarm.NodeID) {
	node, known := view.Node(id)
	s := d.sessions[id]
	switch {
	case !known:
		delete(d.down, id)
		if _, since := d.config.Store.View().Node(id); s != nil && !since { // it did not join after this view
			s.end(wire.ErrRemoved)
		}
	case node.State == swarm.NodeDown:
		d.down[id] = true
	default:
		delete(d.down, id)
	}
	if known && s != nil {
		s.judgePapers(node, d.common.issuer)
	}
	d.term.see(node, known)
}

// mark notes that a stack's sheet is new for the sessions that it concerns. The
// caller holds mu.
func (d *Dispatcher) mark(stack swarm.StackName, whom concern) {
	if whom.everyone {
		for _, s := range d.sessions {
			s.mark(stack)
		}
		return
	}
	for node := range whom.nodes {
		if s := d.sessions[node]; s != nil {
			s.mark(stack)
		}
	}
}
