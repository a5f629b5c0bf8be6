package nodeagent

import (
	"context"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/nodeagent/converge"
	"github.com/gitswarm/gitswarm/nodeagent/network"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

// worker owns one task on the node, from the first word of it until nothing of
// it is left. Its own goroutine acts; others tell it what they saw.
type worker struct {
	agent  *Agent
	id     swarm.TaskID
	wake   chan struct{}
	probes sync.WaitGroup

	mu       sync.Mutex
	known    bool                    // an assignment has spoken of the task: by name, or by silence
	want     *swarm.AssignedTask     // nil: the assignment does not name it
	task     swarm.AssignedTask      // as it was last assigned
	networks []swarm.AssignedNetwork // of its addresses, as they were last assigned
	gone     uint64                  // index at which the assignment stopped naming it
	spec     *swarm.TaskSpec         // once it is fetched
	files    map[swarm.Digest][]byte // from Fetch to Create
	endpoint network.EndpointState
	seen     converge.Observed
	acting   converge.Verb
	halt     context.CancelFunc // ends the acting verb
	unprobe  context.CancelFunc // ends the probing; nil while there is none
	pulledAt time.Time          // when progress was last reported

	keptState swarm.TaskState // on disk
}

func newWorker(a *Agent, id swarm.TaskID) *worker {
	return &worker{agent: a, id: id, wake: make(chan struct{}, 1), seen: converge.Observed{Task: id}}
}

// run does what converge says, one verb at a time, until the task is forgotten
// or ctx ends.
func (w *worker) run(ctx context.Context) {
	defer w.probes.Wait()
	defer w.stopProbing()
	for {
		verb, status, say := w.decide()
		if say {
			w.report(status)
		}
		if verb == converge.Forget && w.agent.forget(w) {
			return
		}
		if verb != converge.Rest && verb != converge.Forget {
			w.act(ctx, verb)
		}
		w.keepProbing(ctx)

		if verb != converge.Rest {
			if ctx.Err() != nil {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
	}
}

// decide asks converge what to do and what to say; say is false if that was
// said already.
func (w *worker) decide() (verb converge.Verb, status swarm.TaskStatus, say bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.known {
		return converge.Rest, status, false
	}
	w.seen.Saved = w.want == nil && w.agent.saves.reached(w.gone)
	status = converge.Status(w.want, w.seen)
	say = !sameStatus(status, w.seen.Last)
	w.seen.Last = status
	return converge.Step(w.want, w.seen), status, say
}

func sameStatus(a, b swarm.TaskStatus) bool {
	if (a.Exit == nil) != (b.Exit == nil) || a.Exit != nil && *a.Exit != *b.Exit {
		return false
	}
	a.Exit, b.Exit = nil, nil
	return a == b
}

// report keeps a new state on disk and sends the status. The order matters: a
// manager never knows more than the agent will after a crash. What comes before
// the container is done again after one, and need not be kept.
func (w *worker) report(status swarm.TaskStatus) {
	w.mu.Lock()
	k := kept{Task: w.task, Networks: w.networks, Status: status}
	keep := status.State >= swarm.TaskPrepared && status.State != w.keptState
	w.keptState = status.State
	w.mu.Unlock()
	if keep {
		if err := w.agent.keep.saveTask(k); err != nil {
			w.agent.log.Error("status was not kept", "task", w.id, "error", err)
		}
	}
	w.agent.outbox.report(w.id, status)
	if !status.State.Live() {
		w.agent.log.Info("task ended", "task", w.id, "state", status.State.String(), "reason", status.Message)
		w.agent.passes.ask() // out of the load balancers, before a manager says so
	}
}

// assign tells the worker what is wanted of its task.
func (w *worker) assign(task swarm.AssignedTask, networks []swarm.AssignedNetwork) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known, w.want, w.task, w.gone = true, &task, task, 0
	if len(networks) > 0 {
		w.networks = networks
	}
	w.stir()
}

// release tells the worker that the assignment of index no longer names its
// task.
func (w *worker) release(index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known && w.want == nil {
		return
	}
	w.known, w.want, w.gone = true, nil, index
	w.stir()
}

// ended tells the worker that its container has. Word of one that is not there
// is late, and passed over.
func (w *worker) ended(exit runtime.Exit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen.Container == converge.Exited || w.seen.Container == converge.Absent {
		return
	}
	w.seen.Container = converge.Exited
	w.seen.Ended, w.seen.Exit, w.seen.OOM, w.seen.Lost = exit.At, exit.Code, exit.OOM, exit.Lost
	w.stir()
}

// stir wakes the worker and ends what it is doing if that is no longer to be
// done; a stop or a removal is always done to its end. The caller holds mu.
func (w *worker) stir() {
	final := w.acting == converge.Stop || w.acting == converge.Remove
	if w.halt != nil && !final && converge.Step(w.want, w.seen) != w.acting {
		w.halt()
	}
	poke(w.wake)
}

// keepProbing probes the container's health while it runs and has a check.
func (w *worker) keepProbing(ctx context.Context) {
	w.mu.Lock()
	probe := w.known && w.seen.Container == converge.Running && w.seen.Check != nil && !w.seen.Unhealthy()
	if !probe || w.unprobe != nil {
		w.mu.Unlock()
		if !probe {
			w.stopProbing()
		}
		return
	}
	ctx, w.unprobe = context.WithCancel(ctx)
	check, started := *w.seen.Check, w.seen.Started
	w.mu.Unlock()

	w.probes.Go(func() { w.probe(ctx, check, started) })
}

func (w *worker) stopProbing() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unprobe != nil {
		w.unprobe()
		w.unprobe = nil
	}
}

// probe runs the health check when it is due, until ctx ends.
func (w *worker) probe(ctx context.Context, check swarm.Healthcheck, started time.Time) {
	argv, timeout := converge.Command(check)
	var last time.Time
	for {
		w.mu.Lock()
		next := w.seen.Health.NextProbe(check, started, last)
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}

		result := converge.Probe{At: time.Now()}
		code, output, err := w.agent.config.Runtime.Probe(ctx, w.id, argv, timeout)
		result.Exit, result.Output = code, string(output)
		if err != nil {
			result.Exit, result.Output = -1, err.Error()
		}
		last = time.Now()

		w.mu.Lock()
		if ctx.Err() != nil || w.seen.Container != converge.Running {
			w.mu.Unlock()
			return
		}
		w.seen.Health = w.seen.Health.After(check, started, result)
		w.mu.Unlock()
		poke(w.wake)
	}
}
