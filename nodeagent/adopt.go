package nodeagent

import (
	"context"
	"fmt"
	"time"

	"github.com/gitswarm/gitswarm/nodeagent/converge"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

// adopt finds what an earlier run of the agent left: its assignment, the tasks
// it knew, the containers that are there. Nothing is stopped or started yet.
func (a *Agent) adopt(ctx context.Context) error {
	if err := a.keep.open(); err != nil {
		return err
	}
	if err := a.managers.open(a.config.Managers); err != nil {
		a.log.Error("kept managers were not read; those that were given are asked", "error", err)
	}
	held, err := a.keep.assignment()
	if err != nil {
		a.log.Error("kept assignment was not read; a manager will send it again", "error", err)
	}
	a.held = held
	a.saves.saved = held.Index

	kept, err := a.keep.tasks()
	if err != nil {
		a.log.Error("kept tasks were not all read", "error", err)
	}
	for _, k := range kept {
		a.adopted(k.Task.ID).restore(k)
	}
	found, err := a.config.Runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, f := range found {
		a.adopted(f.ID).find(f)
	}
	for i := range held.Assignment.Tasks {
		task := held.Assignment.Tasks[i]
		w := a.adopted(task.ID)
		w.assign(task, networksOf(held.Assignment, task.Addresses))
		if a.config.Rebooted {
			w.revive()
		}
	}
	return nil
}

// revive lets a task that ended with its machine begin again, once a manager
// has said that it still should, or none can be asked.
func (w *worker) revive() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if seen, again := w.seen.Revived(w.want); again {
		w.seen, w.known = seen, false
		w.agent.log.Info("task starts again after its machine did", "task", w.id)
	}
}

// aloneAfter is how long tasks that ended with the machine wait for a manager's
// word: they may run elsewhere by now.
const aloneAfter = 5 * time.Second

// goOnAlone begins with the last assignment where no manager has spoken.
func (a *Agent) goOnAlone(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(aloneAfter):
	}
	for _, w := range a.everyone() {
		w.mu.Lock()
		if w.seen.Again && !w.known {
			w.known = true
			w.stir()
		}
		w.mu.Unlock()
	}
	return nil
}

func (a *Agent) adopted(id swarm.TaskID) *worker {
	w := a.workers[id]
	if w == nil {
		w = newWorker(a, id)
		a.workers[id] = w
	}
	return w
}

// restore makes a worker know what an earlier one knew.
func (w *worker) restore(k kept) {
	w.task, w.networks = k.Task, k.Networks
	w.seen.Last, w.keptState = k.Status, k.Status.State
	w.seen.Health.Passed = k.Status.State == swarm.TaskHealthy
	w.agent.outbox.report(w.id, k.Status)
	w.learn(w.agent.keep)
}

// find makes a worker know its container. One that was never started may be
// half made: it is made again.
func (w *worker) find(f runtime.Observed) {
	w.seen.Traces = true
	if w.task.ID == "" {
		w.task = swarm.AssignedTask{ID: f.ID, Service: f.Service, Slot: f.Slot, Spec: f.SpecDigest}
		w.learn(w.agent.keep)
	}
	switch {
	case f.Exit != nil:
		w.seen.Container, w.seen.Started = converge.Exited, f.Started
		w.seen.Ended, w.seen.Exit, w.seen.OOM, w.seen.Lost = f.Exit.At, f.Exit.Code, f.Exit.OOM, f.Exit.Lost
	case f.State == runtime.StateRunning:
		w.seen.Container, w.seen.Started = converge.Running, f.Started
	}
}
