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

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	undoTimeout  = 30 * time.Second
	waitAgain    = 200 * time.Millisecond
	exitKilled   = 128 + int(syscall.SIGKILL)
	adoptAtOnce  = 16
	startedFile  = "started"
	exitFile     = "exit"
	volumesFile  = "volumes"
	shortTimeout = 10 * time.Second
)

// Exit is the end of a container.
type Exit struct {
	ID   swarm.TaskID `cbor:"1,keyasint,omitempty"`
	Code int          `cbor:"2,keyasint,omitempty"` // 128 plus the signal that killed it
	At   time.Time    `cbor:"3,keyasint,omitzero"`
	OOM  bool         `cbor:"4,keyasint,omitempty"` // the kernel killed one of its processes for lack of memory
	Lost bool         `cbor:"5,keyasint,omitempty"` // it ended with the node or with its shim; Code is made up
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

// finish records an end, lets the shim go, and tells.
func (r *Runtime) finish(t *task, l *life, exit Exit) {
	exit.OOM = !exit.Lost && r.oomKilled(t.cid)
	if err := r.writeExit(t.cid, exit); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Warn("exit was not recorded", "task", t.id, "err", err)
	}
	ctx, cancel := context.WithTimeout(r.ctx, undoTimeout)
	defer cancel()
	if _, err := l.task.Delete(ctx); err != nil && !errdefs.IsNotFound(err) && r.ctx.Err() == nil {
		r.log.Warn("shim was not ended", "task", t.id, "err", err)
	}

	r.mu.Lock()
	l.exit = &exit
	silent := l.silent
	r.mu.Unlock()
	close(l.ended)
	if !silent {
		r.tell(exit)
	}
}

func (r *Runtime) tell(exit Exit) {
	select {
	case r.exits <- exit:
	case <-r.ctx.Done():
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

	for {
		err := l.task.Kill(ctx, syscall.SIGKILL, client.WithKillAll)
		select {
		case <-l.ended:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("stop %s: %w", id, errors.Join(ctx.Err(), err))
		case <-time.After(shortTimeout): // a process in the kernel dies when the kernel lets it
		}
	}
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
	switch exit, ok := r.readExit(record.ID); {
	case ok:
		o.State, o.Exit = StateExited, &exit
	case process == nil:
	case process.Status == tasktypes.Status_STOPPED:
		o.State = StateExited
		o.Exit = &Exit{ID: o.ID, Code: int(process.ExitStatus), At: process.ExitedAt.AsTime()}
	case o.Started.IsZero():
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
	if exit, ok := r.readExit(t.cid); ok {
		l.exit = &exit
		r.begin(t, l)
		return nil
	}
	l.task, err = container.Task(ctx, nil)
	switch {
	case err == nil:
		r.begin(t, l)
	case !errdefs.IsNotFound(err):
		return fmt.Errorf("find task of %s: %w", id, err)
	case !r.startedAt(t.cid).IsZero(): // it ended with the node
		l.exit = &Exit{ID: id, Code: exitKilled, At: time.Now(), Lost: true}
		if err := r.writeExit(t.cid, *l.exit); err != nil {
			return err
		}
		r.begin(t, l)
		r.work.Go(func() { r.tell(*l.exit) })
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

func (r *Runtime) readExit(cid string) (exit Exit, ok bool) {
	data, err := os.ReadFile(filepath.Join(r.dir(cid), exitFile))
	if err != nil || codec.Decode(data, &exit) != nil {
		return Exit{}, false
	}
	return exit, true
}

func (r *Runtime) writeExit(cid string, exit Exit) error {
	data, err := codec.Encode(exit)
	if err != nil {
		return err
	}
	return writeRecord(filepath.Join(r.dir(cid), exitFile), data)
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
