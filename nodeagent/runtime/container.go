package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/signal"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gitswarm/gitswarm/nodeagent/runtime/shim"
	"github.com/gitswarm/gitswarm/swarm"
)

// Labels of containerd's records. An image's labels never get there
// (CVE-2026-53488).
const (
	taskLabel    = "gitswarm.task"
	specLabel    = "gitswarm.spec"
	serviceLabel = "gitswarm.service"
	slotLabel    = "gitswarm.slot"
	signalLabel  = "gitswarm.stop-signal" // number
)

// Container is what Create makes: a task with all that its spec leaves open.
type Container struct {
	ID         swarm.TaskID
	Spec       swarm.TaskSpec
	SpecDigest swarm.Digest
	Service    swarm.ServiceID
	Slot       int
	NetNS      string                  // path of the network namespace; empty means a new one without any interface
	Files      map[swarm.Digest][]byte // content of Spec.Files
	ResolvConf []byte                  // /etc/resolv.conf; nil means the node's
	Hosts      []byte                  // /etc/hosts; nil means localhost and Spec.ExtraHosts
	Env        []string                // "K=V", over Spec.Env
}

// task is the seat of a container that is there, was, or is being made.
type task struct {
	op   sync.Mutex // held by Create, Start and Remove
	id   swarm.TaskID
	cid  string
	life *life // nil while there is no container; guarded by Runtime.mu
}

// life is one container, from its creation to its end.
type life struct {
	container client.Container
	task      client.Task   // nil if it ended before this daemon began
	exit      *Exit         // nil until it ended; guarded by Runtime.mu
	ended     chan struct{} // closed when exit is set
	silent    bool          // its end is no news; guarded by Runtime.mu
	starting  sync.Mutex    // held while containerd starts it, which must not meet its deletion
}

// containerID is containerd's name for a task: readable, unique by the hash,
// within containerd's alphabet and 76 bytes.
func containerID(id swarm.TaskID) string {
	readable := strings.Join(strings.FieldsFunc(string(id), func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9')
	}), "-")
	if len(readable) > 50 {
		readable = strings.Trim(readable[len(readable)-50:], "-")
	}
	sum := sha256.Sum256([]byte(id))
	return strings.TrimLeft(readable+"-", "-") + hex.EncodeToString(sum[:6])
}

// lock finds or makes the task's seat and holds it: no other Create, Start or
// Remove of the task runs until unlock.
func (r *Runtime) lock(id swarm.TaskID) (_ *task, unlock func()) {
	for {
		r.mu.Lock()
		t := r.tasks[id]
		if t == nil {
			t = &task{id: id, cid: containerID(id)}
			r.tasks[id] = t
		}
		r.mu.Unlock()

		t.op.Lock()
		r.mu.Lock()
		current := r.tasks[id] == t
		r.mu.Unlock()
		if current {
			return t, t.op.Unlock
		}
		t.op.Unlock() // removed while it was waited for
	}
}

// alive finds the task's container.
func (r *Runtime) alive(id swarm.TaskID) (*life, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tasks[id]; t != nil && t.life != nil {
		return t.life, nil
	}
	return nil, environmentError("task %s has no container: %w", id, errdefs.ErrNotFound)
}

// Create makes the container and all it needs, so that Start has little left
// to do. The image must have been pulled. A container that is there already is
// left alone; what an interrupted Create left is made anew. On an error
// nothing stays.
func (r *Runtime) Create(ctx context.Context, c Container) error {
	ctx = r.namespaced(ctx)
	t, unlock := r.lock(c.ID)
	defer unlock()
	if _, err := r.alive(c.ID); err == nil {
		return nil
	}
	if err := r.create(ctx, t, c); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		return errors.Join(err, r.clear(undo, t))
	}
	return nil
}

func (r *Runtime) create(ctx context.Context, t *task, c Container) error {
	if err := r.clear(ctx, t); err != nil { // what an earlier daemon began
		return err
	}
	b, im, err := r.plan(ctx, t, c)
	if err != nil {
		return err
	}
	spec, err := b.spec(ctx)
	if err != nil {
		return err
	}

	container, err := r.record(ctx, b, im, spec)
	if err != nil {
		return err
	}
	created, err := container.NewTask(ctx, r.output(b))
	if err != nil {
		return judgeRunc("create", err)
	}

	r.begin(t, &life{container: container, task: created, ended: make(chan struct{})})
	return nil
}

// plan prepares all that the spec refers to.
func (r *Runtime) plan(ctx context.Context, t *task, c Container) (*blueprint, *image, error) {
	name, err := imageName(c.Spec.Image, c.Spec.Manifest)
	if err != nil {
		return nil, nil, err
	}
	im, err := r.image(ctx, name)
	if err != nil {
		return nil, nil, err
	}

	if c.Spec.Init && !r.static {
		return nil, nil, environmentError("run an init process: the shim's binary is not static: build it with CGO_ENABLED=0")
	}
	b := &blueprint{Container: c, id: t.cid, image: im.config, shim: r.shim, cgroup: r.cgroup(t.cid), seccomp: r.seccomp}
	user := c.Spec.User
	if user == "" {
		user = im.config.User
	}
	if b.user, err = im.accounts.user(user); err != nil {
		return nil, nil, err
	}
	for _, dir := range []string{r.dir(t.cid), r.logDir(t.cid), r.runDir(t.cid)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, environmentError("create task directory: %w", err)
		}
	}
	b.mounts, err = r.prepareMounts(ctx, b, im)
	return b, im, err
}

// record writes containerd's record of the container, with a snapshot.
func (r *Runtime) record(ctx context.Context, b *blueprint, im *image, spec *specs.Spec) (client.Container, error) {
	snapshot := func(ctx context.Context, c *client.Client, record *containers.Container) error {
		record.Snapshotter, record.SnapshotKey, record.Image = snapshotter, b.id, im.name
		_, err := c.SnapshotService(snapshotter).Prepare(ctx, b.id, im.top)
		return err
	}
	container, err := r.client.NewContainer(ctx, b.id,
		client.NewContainerOpts(snapshot),
		client.WithSpec(spec),
		client.WithRuntime(r.shim, &options.Options{Root: r.runcRoot()}),
		client.WithContainerLabels(b.labels()))
	if errdefs.IsNotFound(err) { // the image went since it was looked at
		r.mu.Lock()
		delete(r.images, im.name)
		r.mu.Unlock()
	}
	if err != nil {
		return nil, judgeRunc("record", err)
	}
	return container, nil
}

func (b *blueprint) labels() map[string]string {
	labels := map[string]string{
		taskLabel:    string(b.ID),
		specLabel:    string(b.SpecDigest),
		serviceLabel: string(b.Service),
		slotLabel:    strconv.Itoa(b.Slot),
	}
	name := b.Spec.StopSignal
	if name == "" {
		name = b.image.StopSignal
	}
	if number, err := signal.ParseSignal(name); err == nil {
		labels[signalLabel] = strconv.Itoa(int(number))
	}
	return labels
}

// output sends what the container writes to its log.
func (r *Runtime) output(b *blueprint) cio.Creator {
	u := shim.Sink{Dir: r.dir(b.id), Log: r.config.TaskLog, Stdin: b.Spec.StdinOpen, Cgroup: b.cgroup}.URL()
	if b.Spec.TTY {
		return cio.TerminalLogURI(u)
	}
	return cio.LogURI(u)
}

// Start lets a created container run. Of a container that was started before
// it only gives the pid, 0 if it has ended.
func (r *Runtime) Start(ctx context.Context, id swarm.TaskID) (pid int, err error) {
	ctx = r.namespaced(ctx)
	t, unlock := r.lock(id)
	defer unlock()
	l, err := r.alive(id)
	if err != nil || l.over() {
		return 0, err
	}

	if !r.startedAt(t.cid).IsZero() {
		status, err := l.task.Status(ctx)
		if err != nil {
			return 0, environmentError("start: %w", err)
		}
		if status.Status != client.Created { // else the daemon was killed before it asked the shim
			return int(l.task.Pid()), nil
		}
	} else if err := r.writeStarted(t.cid, time.Now()); err != nil {
		return 0, err
	}
	l.starting.Lock()
	err = l.task.Start(ctx)
	l.starting.Unlock()
	if err != nil {
		if status, unsure := l.task.Status(ctx); unsure == nil && status.Status == client.Running {
			return int(l.task.Pid()), nil // the shim was still at it, for the daemon that was killed
		}
		r.silence(l)
		return 0, judgeRunc("start", err)
	}
	return int(l.task.Pid()), nil
}

// Remove ends the container if it runs and takes every trace of it away: log,
// files, anonymous volumes, records. A task without a container is no error.
func (r *Runtime) Remove(ctx context.Context, id swarm.TaskID) error {
	ctx = r.namespaced(ctx)
	t, unlock := r.lock(id)
	defer unlock()
	if err := r.clear(ctx, t); err != nil {
		return fmt.Errorf("remove container of %s: %w", id, err)
	}
	r.mu.Lock()
	delete(r.tasks, id)
	r.mu.Unlock()
	return nil
}

// clear takes away what there may be of t's container. It needs t.op.
func (r *Runtime) clear(ctx context.Context, t *task) error {
	if l, err := r.alive(t.id); err == nil {
		r.silence(l)
		if err := l.kill(ctx); err != nil {
			return err
		}
	}
	container, err := r.client.LoadContainer(ctx, t.cid)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("find container: %w", err)
	}
	if err == nil {
		if err := deleteTask(ctx, container); err != nil {
			return err
		}
		if err := container.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("delete container: %w", err)
		}
	}
	err = r.client.SnapshotService(snapshotter).Remove(ctx, t.cid)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete snapshot: %w", err)
	}

	r.mu.Lock()
	t.life = nil
	r.mu.Unlock()
	return r.clearDirs(t.cid)
}

// kill ends all that is in the container and returns when finish is done with
// it.
func (l *life) kill(ctx context.Context) error {
	for {
		if l.over() {
			return nil
		}
		err := l.task.Kill(ctx, syscall.SIGKILL, client.WithKillAll)
		select {
		case <-l.ended:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("kill container: %w", errors.Join(ctx.Err(), err))
		case <-time.After(shortTimeout): // a process in the kernel dies when the kernel lets it
		}
	}
}

// deleteTask kills and deletes what no one waits for.
func deleteTask(ctx context.Context, container client.Container) error {
	running, err := container.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find running container: %w", err)
	}
	_ = running.Kill(ctx, syscall.SIGKILL, client.WithKillAll) // Delete says whether it worked
	_, err = running.Delete(ctx, client.WithProcessKill)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("end running container: %w", err)
	}
	return nil
}

// clearDirs removes a container's directories and what is mounted there.
func (r *Runtime) clearDirs(cid string) error {
	if err := unmountTask(r.runDir(cid)); err != nil {
		return err
	}
	for _, dir := range []string{r.runDir(cid), r.dir(cid)} {
		if err := os.RemoveAll(filepath.Clean(dir)); err != nil {
			return fmt.Errorf("remove task directory: %w", err)
		}
	}
	return nil
}
