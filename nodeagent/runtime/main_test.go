package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/gitswarm/gitswarm/swarm"
)

const busybox = "/bin/busybox"

// daemonEnv makes the test binary a daemon that only adopts, see restart_test.go.
const daemonEnv = "RUNTIME_TEST_DAEMON"

func TestMain(m *testing.M) {
	Main()
	if os.Getenv(daemonEnv) != "" {
		os.Exit(daemon())
	}
	if list := os.Getenv(wipeEnv); list != "" {
		os.Exit(wipeAll(list))
	}
	wipeWhenInterrupted()
	code := m.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
		code = 1
	}
	os.Exit(code)
}

// bench is what the tests share: one embedded containerd, one registry.
type bench struct {
	once     sync.Once
	err      error
	dir, run string
	shim     string
	runtime  *Runtime
	registry *httptest.Server
	exits    *exitLog
}

var shared bench

// open gives the shared Runtime, or skips the test where none can be.
func (b *bench) open(t *testing.T) *Runtime {
	t.Helper()
	needRoot(t)
	b.once.Do(func() { b.err = b.start() })
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.runtime
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("runc is not installed")
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("busybox-static is not installed")
	}
}

func (b *bench) start() (err error) {
	if b.dir, err = os.MkdirTemp("/var/tmp", "gsrt-"); err != nil {
		return err
	}
	if b.run, err = os.MkdirTemp("/run", "gsrt-"); err != nil {
		return err
	}
	places.Store(b.run, b.dir)
	if b.shim, err = buildShim(b.dir); err != nil {
		return err
	}
	b.registry = httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	began := time.Now()
	b.runtime, err = Open(context.Background(), b.config())
	if err != nil {
		return err
	}
	fmt.Println("runtime open after", time.Since(began).Round(time.Millisecond))
	b.exits = watchExits(b.runtime)
	return nil
}

// buildShim builds the small shim as it is installed: static.
func buildShim(dir string) (string, error) {
	path := filepath.Join(dir, "gitswarm-shim")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "../../cmd/gitswarm-shim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the shim: %w: %s", err, out)
	}
	return path, nil
}

func (b *bench) config() Config {
	return Config{
		Dir: b.dir, RunDir: b.run, Namespace: filepath.Base(b.run), Shim: b.shim,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

// close ends all and complains about what is left.
func (b *bench) close() error {
	if b.runtime == nil {
		return nil
	}
	defer places.Delete(b.run)
	err := b.runtime.Sweep(context.Background(), func(swarm.TaskID) bool { return false })
	err = errors.Join(err, leftovers(b.run), b.runtime.Close())
	b.registry.Close()
	return errors.Join(err, os.RemoveAll(b.dir), os.RemoveAll(b.run))
}

// leftovers looks at the system for what belongs to a Runtime.
func leftovers(run string) error {
	var errs []error
	err := eventually(5*time.Second, func() error {
		errs = nil
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, run) {
				errs = append(errs, fmt.Errorf("mount left: %s", line))
			}
		}
		namespace := filepath.Base(run)
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/gitswarm/" + namespace)
		for _, g := range groups {
			errs = append(errs, fmt.Errorf("control group left: %s", g))
		}
		for _, pid := range shims(namespace) {
			errs = append(errs, fmt.Errorf("shim left: %s", pid))
		}
		for _, dir := range []string{"/tasks/*", "/runc/*/*", "/containerd/io.containerd.runtime.v2.task/*/*", "/exec/*"} {
			paths, _ := filepath.Glob(run + dir)
			for _, p := range paths {
				errs = append(errs, fmt.Errorf("file left: %s", p))
			}
		}
		return errors.Join(errs...)
	})
	return err
}

// shims lists the pids of a namespace's shims.
func shims(namespace string) []string {
	var pids []string
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte("\x00-namespace\x00"+namespace+"\x00")) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

func eventually(limit time.Duration, check func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// exitLog collects what Exits gives.
type exitLog struct {
	mu    sync.Mutex
	exits map[swarm.TaskID][]Exit
	fresh chan struct{}
}

func watchExits(r *Runtime) *exitLog {
	l := &exitLog{exits: make(map[swarm.TaskID][]Exit), fresh: make(chan struct{}, 1)}
	go func() {
		for e := range r.Exits() {
			l.mu.Lock()
			l.exits[e.ID] = append(l.exits[e.ID], e)
			l.mu.Unlock()
		}
	}()
	return l
}

func (l *exitLog) of(id swarm.TaskID) []Exit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.exits[id]
}

// ended waits for the task's end.
func ended(t *testing.T, id swarm.TaskID) Exit {
	t.Helper()
	err := eventually(20*time.Second, func() error {
		if len(shared.exits.of(id)) == 0 {
			return fmt.Errorf("%s has not ended", id)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return shared.exits.of(id)[0]
}

var tiny struct {
	once   sync.Once
	image  string
	digest swarm.Digest
}

// tinySpec is a container that sleeps until it is asked to end, of the image
// that most tests use.
func tinySpec(t *testing.T) swarm.TaskSpec {
	t.Helper()
	r := shared.open(t)
	tiny.once.Do(func() {
		tiny.image, tiny.digest = push(t, "tiny:v1", v1.Config{
			Env: []string{"PATH=/bin", "FROM=image"}, Cmd: []string{"/bin/sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait; done"},
			Labels: map[string]string{"containerd.io/restart.loguri": "binary:///bin/true"},
		})
		if err := r.Pull(t.Context(), tiny.image, tiny.digest, nil); err != nil {
			t.Fatal(err)
		}
	})
	return swarm.TaskSpec{Image: tiny.image, Manifest: tiny.digest}
}

// shell is a container that runs a script.
func shell(t *testing.T, script string) swarm.TaskSpec {
	t.Helper()
	spec := tinySpec(t)
	spec.Command = []string{"/bin/sh", "-c", script}
	return spec
}

// named gives the test's task an id of its own, and removes the task at the
// end.
func named(t *testing.T, service string) Container {
	t.Helper()
	r := shared.open(t)
	stack := strings.ToLower(t.Name())
	id := swarm.TaskID(stack + "/" + service + ".1." + chance()[:6])
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := r.Remove(ctx, id); err != nil {
			t.Error(err)
		}
	})
	return Container{ID: id, Service: swarm.NewServiceID(swarm.StackName(stack), service), Slot: 1, SpecDigest: "sha256:00"}
}

// started creates and starts a container of the spec.
func started(t *testing.T, spec swarm.TaskSpec) Container {
	t.Helper()
	c := named(t, "web")
	c.Spec = spec
	start(t, c)
	return c
}

func start(t *testing.T, c Container) {
	t.Helper()
	r := shared.open(t)
	if err := r.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
}

// output runs a script in a container to its end and gives what it wrote to
// stdout.
func output(t *testing.T, spec swarm.TaskSpec) string {
	t.Helper()
	c := started(t, spec)
	exit := ended(t, c.ID)
	out := logOf(t, c.ID)
	if exit.Code != 0 {
		t.Fatalf("the container exited %d: %s", exit.Code, out)
	}
	return out
}

// logOf is a task's log as text, stderr lines behind "!".
func logOf(t *testing.T, id swarm.TaskID) string {
	t.Helper()
	var out strings.Builder
	err := shared.open(t).Logs(t.Context(), id, swarm.LogQuery{Tail: -1}, func(line swarm.LogLine) error {
		if line.Stderr {
			out.WriteString("!")
		}
		fmt.Fprintf(&out, "%s\n", line.Text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// inside runs a script in a running container and gives its output.
func inside(t *testing.T, id swarm.TaskID, script string) string {
	t.Helper()
	code, out, err := shared.open(t).Probe(t.Context(), id, []string{"/bin/sh", "-c", script}, 10*time.Second)
	if err != nil || code != 0 {
		t.Fatalf("%s: exit %d: %s: %v", script, code, out, err)
	}
	return string(out)
}
