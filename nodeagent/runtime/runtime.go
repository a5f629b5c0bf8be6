// Package runtime runs a node's containers: it embeds containerd, or uses the
// host's own, pulls images, makes containers from swarm.TaskSpecs, keeps their
// logs, volumes and exit codes, and finds all of it again after a restart. It
// decides nothing: it starts, stops and removes what it is told to, restarts
// nothing, and makes no network namespace.
package runtime

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gitswarm/gitswarm/nodeagent/runtime/shim"
	"github.com/gitswarm/gitswarm/nodeagent/runtime/tasklog"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	snapshotter    = "overlayfs"
	connectTimeout = 10 * time.Second
	exitBuffer     = 256
)

// Config says where a Runtime keeps what.
type Config struct {
	Dir       string // required: what outlives a reboot
	RunDir    string // required: what does not; at most 40 bytes
	Namespace string // required: of containerd, and a part of cgroup paths; one for each daemon of a machine

	Log             *slog.Logger    // optional
	Socket          string          // optional: of the host's own containerd; empty means the embedded one
	CredentialsFile string          // optional: docker-style config.json with registry credentials
	Shim            string          // optional: a binary whose main begins with Main; empty means gitswarm-shim beside this executable, or else this executable
	TaskLog         tasklog.Options // optional: bounds of each task's log
}

// Runtime is a node's containers. Its methods may be called from any
// goroutine; those on one task wait for one another.
type Runtime struct {
	config   Config
	log      *slog.Logger
	client   *client.Client
	embedded *embedded // nil with a containerd of the host
	shim     string    // kept copy of the shim's binary
	static   bool      // which runs in any image
	seccomp  bool

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup
	exits  chan Exit

	mu      sync.Mutex
	images  map[string]*image
	pulls   map[string]*pull
	tasks   map[swarm.TaskID]*task
	volumes map[string]*sync.Mutex // by path: copying into an empty one
}

// Main must be the first call of main in every binary that opens a Runtime: in
// a process that is a shim or a container's init it never returns.
func Main() { shim.Main() }

// Open starts containerd in this process, or connects to Config.Socket, and
// adopts the containers that it left running. A process can embed containerd
// once at a time.
func Open(ctx context.Context, config Config) (_ *Runtime, err error) {
	r, err := prepare(config)
	if err != nil {
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancel(namespaces.WithNamespace(context.Background(), config.Namespace))
	defer func() {
		if err != nil {
			r.Close()
		}
	}()

	address := config.Socket
	if address == "" {
		bridge(r.ctx, r.log)
		if r.embedded, err = embed(r.ctx, config.Dir, config.RunDir); err != nil {
			return nil, err
		}
		address = r.embedded.address
	}
	if r.client, err = connect(address, config.Namespace); err != nil {
		return nil, err
	}
	if err := r.adopt(r.namespaced(ctx)); err != nil {
		return nil, fmt.Errorf("adopt containers: %w", err)
	}
	return r, nil
}

// prepare makes what needs no containerd.
func prepare(config Config) (*Runtime, error) {
	if config.Dir == "" || config.RunDir == "" || config.Namespace == "" {
		return nil, errors.New("open runtime: Dir, RunDir and Namespace are required")
	}
	r := &Runtime{
		config: config, log: config.Log, exits: make(chan Exit, exitBuffer),
		images: make(map[string]*image), pulls: make(map[string]*pull),
		tasks: make(map[swarm.TaskID]*task), volumes: make(map[string]*sync.Mutex),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{config.Dir, filepath.Join(config.Dir, "tasks"), filepath.Join(config.Dir, "volumes"),
		config.RunDir, filepath.Join(config.RunDir, "tasks")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("create data directory: %w", err)
		}
	}

	if err := ownTempMounts(filepath.Join(config.RunDir, "mnt")); err != nil {
		return nil, err
	}
	var err error
	if r.shim, err = keepBuild(filepath.Join(config.Dir, "bin"), config.Shim); err != nil {
		return nil, err
	}
	if r.static, err = static(r.shim); err != nil {
		return nil, err
	}
	r.seccomp, err = seccompAvailable()
	return r, err
}

// ownTempMounts makes containerd mount for a moment below dir, and unmounts
// what a daemon that was killed left there.
func ownTempMounts(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create mount directory: %w", err)
	}
	if err := mount.SetTempMountLocation(dir); err != nil {
		return fmt.Errorf("set mount directory: %w", err)
	}
	if _, err := mount.CleanupTempMounts(0); err != nil {
		return fmt.Errorf("unmount what an earlier daemon left: %w", err)
	}
	return nil
}

// seccompAvailable asks runc, which must be there.
func seccompAvailable() (bool, error) {
	out, err := exec.Command("runc", "--version").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return false, fmt.Errorf("find runc: %w: install it (apt install runc)", err)
	}
	if err != nil {
		return false, fmt.Errorf("ask runc for its version: %w", err)
	}
	return strings.Contains(string(out), "libseccomp"), nil
}

func connect(address, namespace string) (*client.Client, error) {
	params := grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}
	params.Backoff.BaseDelay = 50 * time.Millisecond
	c, err := client.New(address, client.WithDefaultNamespace(namespace), client.WithTimeout(connectTimeout), client.WithExtraDialOpts([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(params),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize)),
	}))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", address, err)
	}
	return c, nil
}

// Exits gives the end of each container once: those of this daemon's life, and
// those that came while there was none, right after Open. It is never closed.
// What a daemon took from it and forgot by dying is still in List.
func (r *Runtime) Exits() <-chan Exit { return r.exits }

// Close leaves the containers running and stops the rest.
func (r *Runtime) Close() error {
	r.cancel()
	r.work.Wait()
	var err error
	if r.client != nil {
		err = r.client.Close()
	}
	if r.embedded != nil {
		r.embedded.server.Stop()
	}
	if err != nil {
		return fmt.Errorf("close runtime: %w", err)
	}
	return nil
}

func (r *Runtime) namespaced(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, r.config.Namespace)
}

// runcRoot is where runc keeps its state, apart from other daemons'.
func (r *Runtime) runcRoot() string { return filepath.Join(r.config.RunDir, "runc") }

// cgroup is the path of a container's control group.
func (r *Runtime) cgroup(id string) string {
	return "/gitswarm/" + r.config.Namespace + "/" + id
}

// dir is what a container has on the disk: its log, its records, its anonymous
// volumes.
func (r *Runtime) dir(id string) string { return filepath.Join(r.config.Dir, "tasks", id) }

// runDir is what a container has until the next reboot: its files, /etc,
// subpaths.
func (r *Runtime) runDir(id string) string { return filepath.Join(r.config.RunDir, "tasks", id) }

func (r *Runtime) logDir(id string) string { return shim.LogDir(r.dir(id)) }

// unified reports whether control groups are version 2 alone.
func unified() bool { return cgroups.Mode() == cgroups.Unified }

// chance is a name that no one has yet.
func chance() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
