// Package nodeagent makes one node run what its assignment says: assignment
// in, status out. It keeps a session with a manager, fetches what tasks need,
// converges containers and network, probes health, and serves logs, processes
// and usage to the manager that asks. It decides nothing about the cluster,
// starts no task that it was not given, never starts one twice, and acts on no
// assignment that did not come from a manager. Without a manager it goes on by
// the last assignment.
package nodeagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

// Config is what an Agent needs.
type Config struct {
	Node     swarm.NodeID                                                // required
	Dir      string                                                      // required: keeps the assignment, specs and statuses over restarts
	Runtime  Runtime                                                     // required
	Network  Network                                                     // required
	Dial     func(ctx context.Context, address string) (net.Conn, error) // required: connects to a manager
	Managers []string                                                    // optional: addresses to begin with; those that managers tell are kept in Dir
	Own      func() string                                               // optional: the address of this machine's own manager, tried first; "" while there is none
	Describe func() swarm.NodeDescription                                // required: called every 10 s
	Papers   func() (role, issuer string)                                // optional: what the node's certificate says
	Renew    func(context.Context) error                                 // optional: gets the node a new certificate
	RenewAt  func() time.Time                                            // optional: when Renew is called though no manager asks for it
	Upgrade  Upgrade                                                     // optional: looks at another build of the daemon, and installs it
	Restart  func()                                                      // required with Upgrade: begins the daemon anew, as the build that was installed
	Log      *slog.Logger                                                // optional
	Parallel int                                                         // optional: images pulled, and containers started, at once; 8 unless set
	Upstream []string                                                    // optional: resolvers for containers; the host's unless set
	Rebooted bool                                                        // optional: the machine has restarted since the agent last ran: what it was to run is started again
}

// Agent makes one node converge. Only Run acts.
type Agent struct {
	config Config
	log    *slog.Logger
	keep   *keeper
	outbox *outbox
	link   *link
	passes *passes
	saves  *saves
	starts slots
	pulls  slots
	flight singleflight.Group // blobs on their way, by digest
	tidy   chan struct{}      // volumes or kept blobs may have to go
	renew  chan struct{}      // a manager asks for a new certificate

	managers managers

	life    context.Context // of Run: workers live as long
	working sync.WaitGroup

	mu      sync.Mutex
	held    wire.Held
	heard   bool // a manager has spoken since Run began
	workers map[swarm.TaskID]*worker
}

// New returns an agent at rest.
func New(config Config) *Agent {
	parallel := cmp.Or(config.Parallel, 8)
	return &Agent{
		config:   config,
		log:      cmp.Or(config.Log, slog.New(slog.DiscardHandler)),
		keep:     &keeper{dir: config.Dir},
		outbox:   newOutbox(),
		link:     newLink(),
		passes:   newPasses(),
		saves:    &saves{dirty: make(chan struct{}, 1)},
		starts:   newSlots(parallel),
		pulls:    newSlots(parallel),
		tidy:     make(chan struct{}, 1),
		renew:    make(chan struct{}, 1),
		managers: managers{path: filepath.Join(config.Dir, "managers")},
		workers:  make(map[swarm.TaskID]*worker),
	}
}

// Run adopts what runs on the node and makes it follow its assignment, until
// ctx ends, which is not an error. Containers go on without it.
func (a *Agent) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	a.life = ctx
	if err := a.adopt(ctx); err != nil {
		return err
	}

	group.Go(func() error { return a.followExits(ctx) })
	group.Go(func() error { return a.keepNetwork(ctx) })
	group.Go(func() error { return a.keepAssignment(ctx) })
	group.Go(func() error { return a.keepTidy(ctx) })
	group.Go(func() error { return a.keepSession(ctx) })
	group.Go(func() error { return a.keepPapers(ctx) })
	group.Go(func() error { return a.goOnAlone(ctx) })
	a.begin()

	err := group.Wait()
	a.working.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("run agent: %w", err)
	}
	return nil
}

// begin starts the workers of what was adopted, and puts the network in order
// as the last assignment wants it.
func (a *Agent) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		a.working.Go(func() { w.run(a.life) })
	}
	if a.held.Index > 0 {
		a.passes.ask()
	}
}

// take makes the assignment what the delta says and wakes the workers that it
// concerns. Errors: wire.ErrOld, wire.ErrMisfit.
func (a *Agent) take(delta wire.Delta) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	next, err := wire.Apply(a.held, delta)
	if err != nil {
		return err
	}
	first := !a.heard
	a.held, a.heard = next, true

	if delta.Full || first {
		a.assignAll()
	} else {
		a.assign(delta.Changes)
	}
	a.passes.ask()
	a.saves.ask()
	if first || len(next.Assignment.Volumes) > 0 {
		poke(a.tidy)
	}
	return nil
}

// assignAll tells every worker what is wanted of it.
func (a *Agent) assignAll() {
	named := make(map[swarm.TaskID]bool, len(a.held.Assignment.Tasks))
	for i := range a.held.Assignment.Tasks {
		task := &a.held.Assignment.Tasks[i]
		named[task.ID] = true
		a.give(task)
	}
	for id, w := range a.workers {
		if !named[id] {
			w.release(a.held.Index)
		}
	}
}

// assign tells the workers that the changes concern.
func (a *Agent) assign(changes wire.Changes) {
	for i := range changes.Tasks {
		a.give(&changes.Tasks[i])
	}
	for _, id := range changes.GoneTasks {
		if w := a.workers[id]; w != nil {
			w.release(a.held.Index)
		}
	}
}

// give hands a task to its worker, which begins with it.
func (a *Agent) give(task *swarm.AssignedTask) {
	w := a.workers[task.ID]
	if w == nil {
		w = newWorker(a, task.ID)
		a.workers[task.ID] = w
		a.working.Go(func() { w.run(a.life) })
	}
	w.assign(*task, networksOf(a.held.Assignment, task.Addresses))
}

// networksOf returns the networks that the addresses are on.
func networksOf(assignment swarm.Assignment, addresses []swarm.Address) []swarm.AssignedNetwork {
	var networks []swarm.AssignedNetwork
	for _, network := range assignment.Networks {
		for _, address := range addresses {
			if address.Network == network.ID {
				networks = append(networks, network)
				break
			}
		}
	}
	return networks
}

// forget ends a worker. It reports whether the task is gone: one that was
// assigned again in the meantime is not.
func (a *Agent) forget(w *worker) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.want != nil {
		return false
	}
	if err := a.keep.dropTask(w.id); err != nil {
		a.log.Error("kept task was not dropped", "task", w.id, "error", err)
	}
	delete(a.workers, w.id)
	a.outbox.drop(w.id)
	poke(a.tidy)
	return true
}

// everyone returns the workers that there are.
func (a *Agent) everyone() []*worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	workers := make([]*worker, 0, len(a.workers))
	for _, w := range a.workers {
		workers = append(workers, w)
	}
	return workers
}

// followExits tells workers that their containers have ended.
func (a *Agent) followExits(ctx context.Context) error {
	exits := a.config.Runtime.Exits()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case exit := <-exits:
			a.mu.Lock()
			w := a.workers[exit.ID]
			a.mu.Unlock()
			if w != nil {
				w.ended(exit)
			}
		}
	}
}

// poke wakes whoever waits on a channel of capacity 1.
func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
