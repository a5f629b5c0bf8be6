package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/moby/sys/signal"
	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/nodeagent/runtime/shim"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	undoTimeout  = 30 * time.Second
	waitAgain    = 200 * time.Millisecond
	exitKilled   = 128 + int(syscall.SIGKILL)
	adoptAtOnce  = 16
	startedFile  = "started"
	toldFile     = "told"
	volumesFile  = "mounted"
	shortTimeout = 10 * time.Second
)

// Exit is the end of a container.
type Exit struct {
	ID   swarm.TaskID
	Code int // 128 plus the signal that killed it
	At   time.Time
	OOM  bool // the kernel killed one of its processes for lack of memory
	Lost bool // it ended with the node or with its shim; Code is made up
}

// State is where a container is.
type State string

// The states of a container.
const (
	StateBroken  State = "broken"  // its creation was interrupted: Create or Remove it
	StateCreated State = "created" // it waits for Start
	StateRunning State = "running"
	StateExited  State = "exited"
)

// Observed is a container as it is.
type Observed struct {
	ID         swarm.TaskID
	State      State
	Pid        int       // in StateCreated and StateRunning
	Started    time.Time // zero if it never was
	Exit       *Exit     // in StateExited
	SpecDigest swarm.Digest
	Service    swarm.ServiceID
	Slot       int
}

// over reports whether the container has ended.
func (l *life) over() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// silence makes the end of l no news.
func (r *Runtime) silence(l *life) {
	r.mu.Lock()
	l.silent = true
	r.mu.Unlock()
}

// begin seats l and, if it has not ended, waits for its end.
func (r *Runtime) begin(t *task, l *life) {
	r.mu.Lock()
	t.life = l
	r.mu.Unlock()
	if l.exit != nil {
		close(l.ended)
		return
	}
	r.work.Go(func() {
		if exit, ok := r.await(t, l); ok {
			r.finish(t, l, exit)
		}
	})
}

// await waits for the container's end. ok is false when the daemon ends first.
func (r *Runtime) await(t *task, l *life) (_ Exit, ok bool) {
	for r.ctx.Err() == nil {
		status, err := l.task.Wait(r.ctx)
		if err == nil {
			s := <-status
			if err = s.Error(); err == nil {
				return Exit{ID: t.id, Code: int(s.ExitCode()), At: s.ExitTime()}, true
			}
		}
		if r.ctx.Err() != nil {
			break
		}

		// The shim is gone, or the daemon could not be asked just now.
		if _, err := l.task.Status(r.ctx); errdefs.IsNotFound(err) {
			return Exit{ID: t.id, Code: exitKilled, At: time.Now(), Lost: true}, true
		}
		select {
		case <-r.ctx.Done():
		case <-time.After(waitAgain):
		}
	}
	return Exit{}, false
}

// finish records an end, lets the shim go, and tells. The shim may have
// recorded it already, and then knows more.
func (r *Runtime) finish(t *task, l *life, exit Exit) {
	if seen, ok := shim.ReadExit(r.dir(t.cid)); ok {
		exit = asExit(t.id, seen)
	} else {
		exit.OOM = !exit.Lost && shim.OOMKilled(r.cgroup(t.cid))
		r.recordExit(t, exit)
	}
	ctx, cancel := context.WithTimeout(r.ctx, undoTimeout)
	defer cancel()
	l.starting.Lock()
	_, err := l.task.Delete(ctx)
	l.starting.Unlock()
	if err != nil && !errdefs.IsNotFound(err) && r.ctx.Err() == nil {
		r.log.Warn("shim was not ended", "task", t.id, "err", err)
	}

	r.mu.Lock()
	l.exit = &exit
	silent := l.silent
	r.mu.Unlock()
	close(l.ended)
	if !silent {
		r.tellOnce(t, exit)
	}
}

// Stop asks the container to end, by the named signal or, if that is empty, by
// the one that its spec or image names; when grace is over it kills all that
// is in it. Stop returns when the container has ended. One that has not
// started is killed at once.
func (r *Runtime) Stop(ctx context.Context, id swarm.TaskID, name string, grace time.Duration) error {
	ctx = r.namespaced(ctx)
	l, err := r.alive(id)
	if err != nil {
		return err
	}
	if l.over() {
		return nil
	}

	if !r.startedAt(containerID(id)).IsZero() && grace > 0 {
		if err := l.signal(ctx, name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("stop %s: %w", id, err)
		}
		over, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		select {
		case <-l.ended:
			return nil
		case <-over.Done():
		}
	}

	if err := l.kill(ctx); err != nil {
		return fmt.Errorf("stop %s: %w", id, err)
	}
	return nil
}

// signal sends the container's first process the named signal.
func (l *life) signal(ctx context.Context, name string) error {
	if name == "" {
		labels, err := l.container.Labels(ctx)
		if err != nil {
			return err
		}
		name = labels[signalLabel]
	}
	number := syscall.SIGTERM
	if name != "" {
		parsed, err := signal.ParseSignal(name)
		if err != nil {
			return contentError("read signal: %w", err)
		}
		number = parsed
	}
	return l.task.Kill(ctx, number)
}

// List gives all containers that are there, by task.
func (r *Runtime) List(ctx context.Context) ([]Observed, error) {
	ctx = r.namespaced(ctx)
	records, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	running, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", errgrpc.ToNative(err))
	}
	processes := make(map[string]*tasktypes.Process, len(running.Tasks))
	for _, p := range running.Tasks {
		processes[p.ID] = p
	}

	var all []Observed
	for _, record := range records {
		if record.Labels[taskLabel] != "" {
			all = append(all, r.observe(record, processes[record.ID]))
		}
	}
	slices.SortFunc(all, func(a, b Observed) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// observe joins what containerd and the records say.
func (r *Runtime) observe(record containers.Container, process *tasktypes.Process) Observed {
	o := Observed{
		ID: swarm.TaskID(record.Labels[taskLabel]), State: StateBroken, Started: r.startedAt(record.ID),
		SpecDigest: swarm.Digest(record.Labels[specLabel]), Service: swarm.ServiceID(record.Labels[serviceLabel]),
	}
	o.Slot, _ = strconv.Atoi(record.Labels[slotLabel]) // written by labels
	switch exit, ok := r.readExit(o.ID, record.ID); {
	case ok:
		o.State, o.Exit = StateExited, &exit
	case process == nil:
	case process.Status == tasktypes.Status_STOPPED:
		o.State = StateExited
		o.Exit = &Exit{ID: o.ID, Code: int(process.ExitStatus), At: process.ExitedAt.AsTime()}
	case o.Started.IsZero(), process.Status == tasktypes.Status_CREATED: // a killed daemon recorded a start that it never asked for
		o.State, o.Pid = StateCreated, int(process.Pid)
	default:
		o.State, o.Pid = StateRunning, int(process.Pid)
	}
	return o
}

// adopt seats the containers that an earlier daemon left.
func (r *Runtime) adopt(ctx context.Context) error {
	found, err := r.client.Containers(ctx)
	if err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(adoptAtOnce)
	for _, container := range found {
		all.Go(func() error { return r.adoptOne(ctx, container) })
	}
	return all.Wait()
}

func (r *Runtime) adoptOne(ctx context.Context, container client.Container) error {
	info, err := container.Info(ctx, client.WithoutRefreshedMetadata)
	if err != nil {
		return err
	}
	id := swarm.TaskID(info.Labels[taskLabel])
	if id == "" || containerID(id) != container.ID() {
		return nil // not ours
	}
	t, unlock := r.lock(id)
	defer unlock()

	l := &life{container: container, ended: make(chan struct{})}
	l.task, err = container.Task(ctx, nil)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("find task of %s: %w", id, err)
	}
	if err == nil {
		r.begin(t, l)
		return nil
	}

	exit, ok := r.readExit(id, t.cid)
	if !ok && r.startedAt(t.cid).IsZero() {
		return nil // broken, or created before the node was started anew: to be created again
	}
	if !ok { // it ended with the node
		exit = Exit{ID: id, Code: exitKilled, At: time.Now(), Lost: true}
		r.recordExit(t, exit)
	}
	l.exit = &exit
	r.begin(t, l)
	if !r.told(t.cid) {
		r.work.Go(func() { r.tellOnce(t, exit) })
	}
	return nil
}

// startedAt is when Start was asked to start the container, or zero.
func (r *Runtime) startedAt(cid string) time.Time {
	data, err := os.ReadFile(filepath.Join(r.dir(cid), startedFile))
	if err != nil {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, string(data))
	if err != nil { // torn by a power cut
		return time.Unix(0, 0)
	}
	return at
}

func (r *Runtime) writeStarted(cid string, at time.Time) error {
	return writeRecord(filepath.Join(r.dir(cid), startedFile), []byte(at.UTC().Format(time.RFC3339Nano)))
}

func (r *Runtime) readExit(id swarm.TaskID, cid string) (Exit, bool) {
	exit, ok := shim.ReadExit(r.dir(cid))
	return asExit(id, exit), ok
}

func asExit(id swarm.TaskID, e shim.Exit) Exit {
	return Exit{ID: id, Code: e.Code, At: e.At, OOM: e.OOM, Lost: e.Lost}
}

// recordExit makes sure that a later daemon finds the end.
func (r *Runtime) recordExit(t *task, exit Exit) {
	err := shim.WriteExit(r.dir(t.cid), shim.Exit{Code: exit.Code, At: exit.At, OOM: exit.OOM, Lost: exit.Lost})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Warn("exit was not recorded", "task", t.id, "err", err)
	}
}

// told reports whether an end has been handed to Exits, and tellOnce remembers
// that it was.
func (r *Runtime) told(cid string) bool {
	_, err := os.Stat(filepath.Join(r.dir(cid), toldFile))
	return err == nil
}

func (r *Runtime) tellOnce(t *task, exit Exit) {
	select {
	case r.exits <- exit:
	case <-r.ctx.Done():
		return
	}
	if err := writeRecord(filepath.Join(r.dir(t.cid), toldFile), nil); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Warn("exit was not marked as told", "task", t.id, "err", err)
	}
}

// writeRecord writes a small file wholly or not at all, but for a power cut.
func writeRecord(path string, data []byte) error {
	fresh := path + ".new"
	if err := os.WriteFile(fresh, data, 0o600); err != nil {
		return fmt.Errorf("write task record: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("write task record: %w", err)
	}
	return nil
}
