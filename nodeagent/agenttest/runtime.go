// Package agenttest is a runtime and a network for tests of the agent and of
// whole clusters in one process. They hold no container and touch no kernel:
// they behave as the test says, in the time of the bubble that they run in, and
// print what they were asked.
package agenttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

// Behaviour is what becomes of a container.
type Behaviour struct {
	Pull      time.Duration // how long its image takes
	PullError error
	Create    error
	Start     error
	Exits     bool          // by itself
	After     time.Duration // its start
	Code      int
	OOM       bool
	Term      time.Duration                              // how long it takes to end when asked to
	Probe     func(n int) (code int, output string)      // the n-th probe, from 1; nil passes
	Exec      func(runtime.ExecStream) error             // nil echoes
	Logs      func(emit func(swarm.LogLine) error) error // nil says one line
}

// Runtime is a fake that prints itself. It outlives agents, as containers do.
type Runtime struct {
	Behave func(runtime.Container) Behaviour // optional; called in Create
	Images func(image string) Behaviour      // optional; called in Pull

	mu         sync.Mutex
	told       []string
	containers map[swarm.TaskID]*container
	exits      chan runtime.Exit
	volumes    map[swarm.VolumeID]bool
	pulling    int
	most       int
}

type container struct {
	runtime.Container
	behaviour Behaviour
	state     runtime.State
	started   time.Time
	exit      *runtime.Exit
	probes    int
	over      chan struct{}
}

// NewRuntime returns a node without containers.
func NewRuntime() *Runtime {
	return &Runtime{
		containers: make(map[swarm.TaskID]*container),
		exits:      make(chan runtime.Exit, 10_000),
		volumes:    make(map[swarm.VolumeID]bool),
	}
}

// Told returns what was asked since the last Told, one line each, in order.
func (r *Runtime) Told() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	told := r.told
	r.told = nil
	return told
}

// Running returns the containers that run, by id.
func (r *Runtime) Running() []swarm.TaskID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []swarm.TaskID
	for id, c := range r.containers {
		if c.state == runtime.StateRunning {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// MostPulls is how many images were ever pulled at once.
func (r *Runtime) MostPulls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most
}

func (r *Runtime) tell(format string, args ...any) {
	r.told = append(r.told, fmt.Sprintf(format, args...))
}

// Pull takes as long as Images says.
func (r *Runtime) Pull(ctx context.Context, image string, _ swarm.Digest, progress func(int)) error {
	var b Behaviour
	if r.Images != nil {
		b = r.Images(image)
	}
	r.mu.Lock()
	r.tell("pull %s", image)
	r.pulling++
	r.most = max(r.most, r.pulling)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pulling--
	}()

	if b.Pull > 0 {
		for percent := 0; percent < 100; percent += 20 {
			progress(percent)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(b.Pull / 5):
			}
		}
	}
	return b.PullError
}

// Create makes a container that has not started.
func (r *Runtime) Create(_ context.Context, c runtime.Container) error {
	var b Behaviour
	if r.Behave != nil {
		b = r.Behave(c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	files := make([]string, 0, len(c.Spec.Files))
	for _, file := range c.Spec.Files {
		files = append(files, fmt.Sprintf(" %s=%s", file.Target, c.Files[file.Content]))
	}
	r.tell("create %s in %q%s", c.ID, c.NetNS, strings.Join(files, ""))
	if b.Create != nil {
		return b.Create
	}
	if r.containers[c.ID] == nil {
		r.containers[c.ID] = &container{Container: c, behaviour: b, state: runtime.StateCreated, over: make(chan struct{})}
	}
	return nil
}

// Start lets it run, until it ends as it behaves.
func (r *Runtime) Start(_ context.Context, id swarm.TaskID) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell("start %s", id)
	c := r.containers[id]
	if c == nil {
		return 0, errors.New("no such container")
	}
	if c.behaviour.Start != nil {
		return 0, c.behaviour.Start
	}
	c.state, c.started = runtime.StateRunning, time.Now()
	if b := c.behaviour; b.Exits {
		time.AfterFunc(b.After, func() { r.End(id, runtime.Exit{Code: b.Code, OOM: b.OOM}) })
	}
	return 1, nil
}

// End ends a container that runs, as if by itself.
func (r *Runtime) End(id swarm.TaskID, exit runtime.Exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil || c.state != runtime.StateRunning {
		return
	}
	exit.ID, exit.At = id, time.Now()
	c.state, c.exit = runtime.StateExited, &exit
	close(c.over)
	r.exits <- exit
}

// Stop ends it after Behaviour.Term or the grace, whichever is shorter.
func (r *Runtime) Stop(ctx context.Context, id swarm.TaskID, signal string, grace time.Duration) error {
	r.mu.Lock()
	r.tell("stop %s %s %s", id, signal, grace)
	c := r.containers[id]
	r.mu.Unlock()
	if c == nil {
		return errors.New("no such container")
	}
	code := 143
	if c.behaviour.Term > grace {
		code = 137
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.over:
	case <-time.After(min(c.behaviour.Term, grace)):
		r.End(id, runtime.Exit{Code: code})
	}
	return nil
}

// Remove forgets it.
func (r *Runtime) Remove(_ context.Context, id swarm.TaskID) error {
	r.End(id, runtime.Exit{Code: 137})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell("remove %s", id)
	delete(r.containers, id)
	return nil
}

// List returns what is there.
func (r *Runtime) List(context.Context) ([]runtime.Observed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []runtime.Observed
	for id, c := range r.containers {
		all = append(all, runtime.Observed{
			ID: id, State: c.state, Started: c.started, Exit: c.exit,
			SpecDigest: c.SpecDigest, Service: c.Service, Slot: c.Slot,
		})
	}
	slices.SortFunc(all, func(a, b runtime.Observed) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, nil
}

// Exits gives each end once.
func (r *Runtime) Exits() <-chan runtime.Exit { return r.exits }

// Probe answers as the container behaves.
func (r *Runtime) Probe(_ context.Context, id swarm.TaskID, _ []string, _ time.Duration) (int, []byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil || c.state != runtime.StateRunning {
		return 0, nil, errors.New("container does not run")
	}
	c.probes++
	if c.behaviour.Probe == nil {
		return 0, nil, nil
	}
	code, output := c.behaviour.Probe(c.probes)
	return code, []byte(output), nil
}

// RemoveVolume prints itself.
func (r *Runtime) RemoveVolume(_ context.Context, id swarm.VolumeID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell("remove volume %s", id)
	return nil
}

// Sweep removes containers that are not kept.
func (r *Runtime) Sweep(ctx context.Context, keep func(swarm.TaskID) bool) error {
	all, err := r.List(ctx)
	for _, c := range all {
		if !keep(c.ID) {
			err = errors.Join(err, r.Remove(ctx, c.ID))
		}
	}
	return err
}

// PruneImages prints itself.
func (r *Runtime) PruneImages(_ context.Context, keep time.Duration) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell("prune images older than %s", keep)
	return nil, nil
}

// Logs says what the container says.
func (r *Runtime) Logs(_ context.Context, id swarm.TaskID, _ swarm.LogQuery, emit func(swarm.LogLine) error) error {
	r.mu.Lock()
	c := r.containers[id]
	r.mu.Unlock()
	if c == nil {
		return nil
	}
	if c.behaviour.Logs != nil {
		return c.behaviour.Logs(func(line swarm.LogLine) error {
			line.Task = id
			return emit(line)
		})
	}
	return emit(swarm.LogLine{Task: id, At: c.started, Text: []byte("hello")})
}

// Exec echoes what it hears, until it hears the end.
func (r *Runtime) Exec(_ context.Context, request swarm.ExecRequest, stream runtime.ExecStream) error {
	r.mu.Lock()
	c := r.containers[request.Task]
	r.mu.Unlock()
	if c == nil || c.state != runtime.StateRunning {
		return errors.New("container does not run")
	}
	if c.behaviour.Exec != nil {
		return c.behaviour.Exec(stream)
	}
	for {
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		if frame.EOF {
			code := 3
			return stream.Send(swarm.ExecFrame{Exit: &code})
		}
		if err := stream.Send(swarm.ExecFrame{Stdout: frame.Stdin}); err != nil {
			return err
		}
	}
}

// Usage is a megabyte each.
func (r *Runtime) Usage(_ context.Context, ids []swarm.TaskID) ([]swarm.Usage, error) {
	var usage []swarm.Usage
	for _, id := range ids {
		usage = append(usage, swarm.Usage{Task: id, Memory: 1 << 20})
	}
	return usage, nil
}
