// Package lab sets up what the demo and the end-to-end tests need, all of it
// real and all of it their own: a registry, images, a bare git repository and
// a gitswarm daemon with its own folders; or several hosts with a daemon each,
// whose network can be cut and whose power can be taken. It asserts nothing;
// Close leaves nothing behind.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Lab is one set-up. Its folders lie below Dir.
type Lab struct {
	Dir      string
	RunDir   string // short, as socket paths must be, and gone after a reboot
	Bin      string // the gitswarm binary
	App      string // the examples' web server, static
	Registry string // host:port

	out      io.Writer
	turn     net.Listener // held while this lab is the machine's only one; nil in a fork
	before   []string     // traces when it began
	registry *exec.Cmd
	daemon   *Daemon
	used     bool // a daemon ran here: there may be containers
	places   *places
}

// New builds the binaries and starts a registry. out gets the daemon's log and
// what the set-up has to say. A machine has one lab at a time, so that what one
// leaves behind can be told: New waits until others are closed.
func New(ctx context.Context, out io.Writer) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("set up a lab: it makes containers and namespaces, so it must run as root")
	}
	turn, err := takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	before, err := traces()
	if err != nil {
		return nil, errors.Join(err, turn.Close())
	}
	dir, runDir, err := folders("")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up a lab: %w", err), turn.Close())
	}
	l := &Lab{places: new(places), turn: turn, before: before, Dir: dir, RunDir: runDir, Bin: filepath.Join(dir, "bin", "gitswarm"), App: filepath.Join(dir, "bin", "app"), out: out}
	l.places.add(l.place())
	if err := l.build(ctx); err != nil {
		l.Close()
		return nil, err
	}
	if err := l.startRegistry(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Fork returns a lab with folders and a daemon of its own that shares the
// binaries and the registry. Close it before the lab it came from.
func (l *Lab) Fork(out io.Writer) (*Lab, error) {
	dir, runDir, err := folders(l.Dir)
	if err != nil {
		return nil, fmt.Errorf("fork a lab: %w", err)
	}
	fork := &Lab{places: l.places, Dir: dir, RunDir: runDir, Bin: l.Bin, App: l.App, Registry: l.Registry, out: out}
	fork.places.add(fork.place())
	return fork, nil
}

// takeTurn listens on a name that one process at a time can have, and that is
// free again when it ends, however it ends.
func takeTurn(ctx context.Context) (turn net.Listener, err error) {
	err = Poll(ctx, 20*time.Minute, "no other lab is on this machine", func() bool {
		turn, err = net.Listen("unix", "@gitswarm-lab")
		return err == nil
	})
	return turn, err
}

func folders(parent string) (dir, runDir string, err error) {
	if dir, err = os.MkdirTemp(parent, "gitswarm-lab-"); err != nil {
		return "", "", err
	}
	runDir, err = os.MkdirTemp("/run", "gitswarm-lab-")
	return dir, runDir, err
}

// build compiles gitswarm and the app; the go command's cache makes the second
// time cheap.
func (l *Lab) build(ctx context.Context) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	for output, pkg := range map[string]string{l.Bin: "./cmd/gitswarm", l.Bin + "-shim": "./cmd/gitswarm-shim", l.App: "./examples/app"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", output, pkg)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
		}
	}
	return nil
}

// moduleRoot returns the module's folder.
func moduleRoot(ctx context.Context) (string, error) {
	text, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(text))), nil
}

// Example returns the folder of one of the examples.
func Example(ctx context.Context, name string) (string, error) {
	root, err := moduleRoot(ctx)
	return filepath.Join(root, "examples", name), err
}

// startRegistry runs Debian's registry on a free loopback port.
func (l *Lab) startRegistry(ctx context.Context) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	config := filepath.Join(l.Dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n",
		filepath.Join(l.Dir, "registry"), address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	l.registry = exec.Command("docker-registry", "serve", config)
	l.registry.SysProcAttr = ownGroup()
	if err := l.registry.Start(); err != nil {
		l.registry = nil
		return fmt.Errorf("start the registry (Debian package docker-registry): %w", err)
	}
	l.Registry = address
	return Poll(ctx, 10*time.Second, "the registry answers", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// StopRegistry ends the registry, so that pulls fail.
func (l *Lab) StopRegistry() {
	if l.registry == nil {
		return
	}
	stopProcess(l.registry, 5*time.Second)
	l.registry = nil
}

// FreePort returns a TCP port of the loopback address that nothing listens on.
func FreePort() (int, error) {
	address, err := freeAddress()
	if err != nil {
		return 0, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	return net.LookupPort("tcp", port)
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// Poll waits until what is true.
func Poll(ctx context.Context, patience time.Duration, claim string, what func() bool) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !what() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", claim, ctx.Err())
		case <-deadline.C:
			return fmt.Errorf("wait until %s: not within %s", claim, patience)
		case <-tick.C:
		}
	}
	return nil
}

// Close ends all that the lab started and removes every trace: processes,
// containers, networks, folders. What is left all the same is its error.
func (l *Lab) Close() error {
	var errs []error
	if l.daemon != nil {
		l.daemon.Stop()
	}
	if l.used {
		errs = append(errs, l.leave())
	}
	l.StopRegistry()
	errs = append(errs, os.RemoveAll(l.RunDir), os.RemoveAll(l.Dir))
	l.places.remove(l.place())
	if l.turn != nil {
		errs = append(errs, l.look(), l.turn.Close())
	}
	return errors.Join(errs...)
}

// look compares the machine with how it was.
func (l *Lab) look() error {
	after, err := traces()
	if err != nil {
		return err
	}
	if left := left(l.before, after); len(left) > 0 {
		return fmt.Errorf("the lab left behind:\n%s", strings.Join(left, "\n"))
	}
	return nil
}

// leave removes the containers, networks and mounts of the lab's daemon.
func (l *Lab) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.Bin, append([]string{"leave", "--force"}, l.folders()...)...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("leave: %w\n%s", err, text)
	}
	return nil
}
