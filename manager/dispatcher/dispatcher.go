// Package dispatcher carries each node its assignment and brings back what the
// node says of its tasks. It keeps the agents' sessions, notices nodes that
// fall silent, tells when a draining task has left every load balancer, hands
// out blobs to the nodes whose tasks name them, and reaches through to logs,
// processes and usage. It decides nothing: it places no task, stops none, and
// writes only what agents report.
package dispatcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// Store is the cluster's state and log.
type Store interface {
	View() *store.View
	Propose(context.Context, store.Command) (index uint64, err error)
	Subscribe() *store.Subscription
}

// Blobs reads content by its digest.
type Blobs interface {
	Get(context.Context, swarm.Digest) ([]byte, error)
}

// Config is what a Dispatcher needs.
type Config struct {
	Store     Store         // required
	Blobs     Blobs         // required
	Log       *slog.Logger  // optional
	Heartbeat time.Duration // optional: how often agents give a sign of life; 1 s unless set
	Role      string        // optional: of nodes that are new; "manager" unless set
}

// Dispatcher serves agents.
type Dispatcher struct {
	config Config
	log    *slog.Logger

	mu       sync.Mutex
	ready    chan struct{} // closed once sheets are there
	index    uint64        // of the view that sheets were made from
	sheets   map[swarm.StackName]sheet
	specs    map[swarm.Digest]Facts
	sessions map[swarm.NodeID]*session
	joined   chan struct{} // closed, and made anew, whenever a session begins
	presence map[swarm.NodeID]*presence
	drains   map[swarm.TaskID]drain
	reports  reports
	awaited  map[string]*attached // streams that agents were asked for, by id
}

// New returns a dispatcher that serves nobody yet.
func New(config Config) *Dispatcher {
	config.Heartbeat = cmp.Or(config.Heartbeat, time.Second)
	config.Role = cmp.Or(config.Role, "manager")
	return &Dispatcher{
		config:   config,
		log:      cmp.Or(config.Log, slog.New(slog.DiscardHandler)),
		ready:    make(chan struct{}),
		sheets:   make(map[swarm.StackName]sheet),
		specs:    make(map[swarm.Digest]Facts),
		sessions: make(map[swarm.NodeID]*session),
		joined:   make(chan struct{}),
		presence: make(map[swarm.NodeID]*presence),
		drains:   make(map[swarm.TaskID]drain),
		reports:  newReports(),
		awaited:  make(map[string]*attached),
	}
}

// Serve serves agents on listener until ctx ends, which is not an error. It is
// called once.
func (d *Dispatcher) Serve(ctx context.Context, listener net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.follow(ctx) })
	group.Go(func() error { return d.watch(ctx) })
	group.Go(func() error { return d.proposeReports(ctx) })
	group.Go(func() error { return wire.Serve(ctx, listener, wire.Services{Agents: d}) })
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
		touched, more := changes.Take()
		if !touched.Empty() {
			d.refresh(ctx, d.config.Store.View(), touched)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

// refresh makes the sheets of what was touched anew and marks them for the
// sessions that they concern.
func (d *Dispatcher) refresh(ctx context.Context, view *store.View, touched store.Touched) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index = view.Index()

	stacks, nodes := d.touched(view, touched)
	for _, node := range nodes {
		if d.see(view, node) {
			for _, task := range view.TasksOn(node) {
				stacks[task.Service.Stack()] = true
			}
		}
	}

	facts := func(spec swarm.Digest) Facts { return d.facts(ctx, spec) }
	for stack := range stacks {
		d.redraw(stack, newSheet(view, stack, facts))
	}
	for _, s := range d.sessions {
		s.markVolumes(touched.Everything, nodes)
	}
	select {
	case <-d.ready:
	default:
		close(d.ready)
	}
}

// touched lists what to look at anew. The caller holds mu.
func (d *Dispatcher) touched(view *store.View, touched store.Touched) (map[swarm.StackName]bool, []swarm.NodeID) {
	stacks, nodes := make(map[swarm.StackName]bool), touched.Nodes
	for _, stack := range touched.Stacks {
		stacks[stack] = true
	}
	if !touched.Everything {
		return stacks, nodes
	}

	clear(d.specs)
	for stack := range d.sheets {
		stacks[stack] = true
	}
	for _, record := range view.Stacks() {
		stacks[record.Name] = true
	}
	for _, node := range view.Nodes() {
		nodes = append(nodes, node.ID)
	}
	return stacks, nodes
}

// redraw replaces a stack's sheet. The caller holds mu.
func (d *Dispatcher) redraw(stack swarm.StackName, s sheet) {
	if len(s.tasks) == 0 && len(s.services) == 0 && len(s.networks) == 0 {
		delete(d.sheets, stack)
	} else {
		d.sheets[stack] = s
	}
	for _, session := range d.sessions {
		session.mark(stack, s)
	}
	d.noteDrains(stack, s)
}

// factsKept bounds the specs that are remembered.
const factsKept = 20_000

// facts reads a spec's blob, once. A spec that cannot be read has none: its
// tasks' agents report why. The caller holds mu.
func (d *Dispatcher) facts(ctx context.Context, digest swarm.Digest) Facts {
	if facts, known := d.specs[digest]; known {
		return facts
	}
	var spec swarm.TaskSpec
	data, err := d.config.Blobs.Get(ctx, digest)
	if err == nil {
		err = codec.Decode(data, &spec)
	}
	if err != nil {
		if ctx.Err() == nil {
			d.log.Error("spec was not read", "digest", digest, "error", err)
		}
		return Facts{}
	}

	facts := Facts{Hostname: spec.Hostname, Networks: spec.Networks}
	for _, file := range spec.Files {
		facts.Files = append(facts.Files, file.Content)
	}
	if len(d.specs) >= factsKept {
		clear(d.specs)
	}
	d.specs[digest] = facts
	return facts
}

// Blob gives a session the content of a digest that a task of its node names.
func (d *Dispatcher) Blob(ctx context.Context, request wire.BlobRequest) ([]byte, error) {
	node, live := d.nodeOf(request.Session)
	if !live {
		return nil, errors.New("the session is over: open another")
	}
	if !d.names(ctx, node, request.Digest) {
		return nil, fmt.Errorf("no task of node %s names it", node)
	}
	return d.config.Blobs.Get(ctx, request.Digest)
}

// names reports whether a task on the node names the digest.
func (d *Dispatcher) names(ctx context.Context, node swarm.NodeID, digest swarm.Digest) bool {
	tasks := d.config.Store.View().TasksOn(node)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, task := range tasks {
		if task.Spec == digest {
			return true
		}
		for _, file := range d.facts(ctx, task.Spec).Files {
			if file == digest {
				return true
			}
		}
	}
	return false
}
