package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/nodeagent/converge"
	"github.com/gitswarm/gitswarm/nodeagent/network"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	leaveTimeout = 2 * time.Second  // for the load balancers to let go of a task
	atomTimeout  = 30 * time.Second // for what the end of the agent does not interrupt
	retryAfter   = time.Second      // between two tries to stop or remove
)

// act does one verb and notes what came of it. A verb of the task's way up
// that fails is the end of the task; one of its way down is tried again.
func (w *worker) act(ctx context.Context, verb converge.Verb) {
	verbCtx, halt := context.WithCancel(ctx)
	defer halt()
	w.mu.Lock()
	if converge.Step(w.want, w.seen) != verb {
		w.mu.Unlock()
		return
	}
	w.acting, w.halt = verb, halt
	w.mu.Unlock()

	err := w.do(verbCtx, verb)

	w.mu.Lock()
	w.acting, w.halt = "", nil
	halted := verbCtx.Err() != nil
	if err != nil && !halted && verb != converge.Stop && verb != converge.Remove {
		w.seen.Refused = &converge.Refusal{Message: err.Error(), Cause: runtime.CauseOf(err)}
	}
	w.mu.Unlock()

	if err != nil && !halted && (verb == converge.Stop || verb == converge.Remove) {
		w.agent.log.Error("task did not "+string(verb)+"; it is tried again", "task", w.id, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
}

func (w *worker) do(ctx context.Context, verb converge.Verb) error {
	switch verb {
	case converge.Fetch:
		return w.fetch(ctx)
	case converge.Attach:
		return w.attach(ctx)
	case converge.Create:
		return w.create(ctx)
	case converge.Start:
		return w.start(ctx)
	case converge.Leave:
		return w.leave(ctx)
	case converge.Stop:
		return w.stop(ctx)
	case converge.Remove:
		return w.remove(ctx)
	}
	panic("nodeagent: nothing does the verb " + string(verb))
}

// fetch gets the task's spec and, unless its container runs already, files and
// image.
func (w *worker) fetch(ctx context.Context) error {
	w.mu.Lock()
	digest, running := w.task.Spec, w.seen.Container == converge.Running
	w.mu.Unlock()
	data, err := w.agent.blob(ctx, digest, true)
	if err != nil {
		return fmt.Errorf("fetch spec: %w", err)
	}
	var spec swarm.TaskSpec
	if err := codec.Decode(data, &spec); err != nil {
		return fmt.Errorf("read spec %s: %w", digest, err)
	}
	if running {
		w.fetched(&spec, nil)
		return nil
	}

	files := make(map[swarm.Digest][]byte, len(spec.Files))
	for _, file := range spec.Files {
		if files[file.Content], err = w.agent.blob(ctx, file.Content, file.Kind != swarm.FileSecret); err != nil {
			return fmt.Errorf("fetch %s %q: %w", file.Kind, file.Name, err)
		}
	}
	if err := w.pull(ctx, spec); err != nil {
		return err
	}
	w.fetched(&spec, files)
	return nil
}

func (w *worker) pull(ctx context.Context, spec swarm.TaskSpec) error {
	release, err := w.agent.pulls.take(ctx, string(spec.Manifest))
	if err != nil {
		return err
	}
	defer release()
	return w.agent.config.Runtime.Pull(ctx, spec.Image, spec.Manifest, w.pulled)
}

// pulled reports progress, at most twice a second.
func (w *worker) pulled(percent int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if percent == w.seen.Pulled || now.Sub(w.pulledAt) < 500*time.Millisecond {
		return
	}
	w.seen.Pulled, w.pulledAt = percent, now
	status := converge.Status(w.want, w.seen)
	w.seen.Last = status
	w.agent.outbox.report(w.id, status)
}

func (w *worker) fetched(spec *swarm.TaskSpec, files map[swarm.Digest][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spec, w.files = spec, files
	w.seen.Fetched, w.seen.Check = true, spec.Health
}

// learn reads the task's spec if it is on disk: of a task that is adopted.
func (w *worker) learn(keep *keeper) {
	data, ok := keep.blob(w.task.Spec)
	var spec swarm.TaskSpec
	if ok && codec.Decode(data, &spec) == nil {
		w.spec, w.seen.Check = &spec, spec.Health
	}
}

// attach waits until the task has its place on the network.
func (w *worker) attach(ctx context.Context) error {
	passed := w.agent.passes.wait(ctx, w.agent.passes.ask())

	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.endpoint.Err != nil:
		return fmt.Errorf("attach to networks: %w", w.endpoint.Err)
	case w.endpoint.NetNS == "" && !w.spec.HostNet:
		if passed == nil {
			passed = errors.New("it got no network namespace")
		}
		return fmt.Errorf("attach to networks: %w", passed)
	}
	w.seen.Attached = true
	return nil
}

// place tells the worker what the network has made for it.
func (w *worker) place(state network.EndpointState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endpoint = state
}

func (w *worker) create(ctx context.Context) error {
	release, err := w.agent.starts.take(ctx, "")
	if err != nil {
		return err
	}
	defer release()

	w.mu.Lock()
	again := w.seen.Again
	w.seen.Traces = true
	c := runtime.Container{
		ID: w.id, Spec: *w.spec, SpecDigest: w.task.Spec, Service: w.task.Service, Slot: w.task.Slot, Files: w.files,
		NetNS: w.endpoint.NetNS, ResolvConf: w.endpoint.ResolvConf, Hosts: w.endpoint.Hosts, Env: given(w.task.Generic),
	}
	w.mu.Unlock()

	ctx, cancel := whole(ctx)
	defer cancel()
	if again { // a container that ended with its machine is not started once more
		if err := w.agent.config.Runtime.Remove(ctx, w.id); err != nil {
			return err
		}
	}
	if err := w.agent.config.Runtime.Create(ctx, c); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.Container, w.files = converge.Created, nil
	return nil
}

func (w *worker) start(ctx context.Context) error {
	release, err := w.agent.starts.take(ctx, "")
	if err != nil {
		return err
	}
	defer release()

	ctx, cancel := whole(ctx)
	defer cancel()
	if _, err := w.agent.config.Runtime.Start(ctx, w.id); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.Started, w.seen.Again = time.Now(), false
	if w.seen.Container == converge.Exited { // it was that quick
		w.seen.Started = w.seen.Ended
	} else {
		w.seen.Container = converge.Running
	}
	return nil
}

// whole gives a context for what must not be left half done.
func whole(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), atomTimeout)
}

// leave waits until no load balancer of this node names the task.
func (w *worker) leave(ctx context.Context) error {
	if w.agent.passes.names(w.id) {
		ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
		defer cancel()
		_ = w.agent.passes.wait(ctx, w.agent.passes.ask()) // a network in trouble keeps nobody running
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.Left = true
	return nil
}

func (w *worker) stop(ctx context.Context) error {
	w.stopProbing()
	w.mu.Lock()
	spec := w.spec
	w.mu.Unlock()
	if spec == nil {
		spec = &swarm.TaskSpec{StopGrace: 10 * time.Second} // adopted, its spec is lost
	}
	if err := w.agent.config.Runtime.Stop(ctx, w.id, spec.StopSignal, spec.StopGrace); err != nil {
		return fmt.Errorf("stop container: %w", err)
	}
	return w.awaitExit(ctx)
}

// awaitExit waits for the word of the container's end, with its code, and
// looks for itself if that does not come.
func (w *worker) awaitExit(ctx context.Context) error {
	deadline := time.After(retryAfter)
	for {
		w.mu.Lock()
		over := w.seen.Container != converge.Running
		w.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		case <-deadline:
			return w.lookForExit(ctx)
		}
	}
}

func (w *worker) lookForExit(ctx context.Context) error {
	found, err := w.agent.config.Runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("look for its exit: %w", err)
	}
	exit := runtime.Exit{ID: w.id, At: time.Now(), Lost: true} // nothing is left of it
	for _, f := range found {
		switch {
		case f.ID != w.id:
		case f.State == runtime.StateRunning:
			return errors.New("it was stopped, but runs")
		case f.Exit != nil:
			exit = *f.Exit
		}
	}
	w.ended(exit)
	return nil
}

func (w *worker) remove(ctx context.Context) error {
	ctx, cancel := whole(ctx)
	defer cancel()
	if err := w.agent.config.Runtime.Remove(ctx, w.id); err != nil {
		return fmt.Errorf("remove container: %w", err)
	}
	w.mu.Lock()
	w.seen.Container, w.seen.Traces = converge.Absent, false
	w.mu.Unlock()
	w.agent.passes.ask() // its endpoint goes
	return nil
}
