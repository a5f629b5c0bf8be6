package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Host is a machine of a cluster, by all that gitswarm sees of it.
type Host struct {
	Name    string
	Address string // IPv4
	Dir     string // what outlives a loss of power

	cluster *Cluster
	box     *box // nil while it has no power
	daemon  *Program
	log     *os.File
}

const runDir = "/run/gitswarm" // the usual one: /run is the host's own

func (h *Host) data() string { return filepath.Join(h.Dir, "data") }

// Folders are the flags that name the daemon's folders, for commands that look
// there.
func (h *Host) Folders() []string { return []string{"--data-dir", h.data(), "--run-dir", runDir} }

// Boot turns the host on, and connects it. No daemon runs yet.
func (h *Host) Boot() (err error) {
	if err := os.MkdirAll(h.data(), 0o711); err != nil {
		return err
	}
	if h.log == nil {
		if h.log, err = os.OpenFile(filepath.Join(h.Dir, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
			return err
		}
	}
	if h.box, err = newBox(h.cluster.dir, h.Name); err != nil {
		return err
	}
	return h.plugIn()
}

// Crash takes the host's power: every process ends at once, without a word to
// anybody; /run is empty afterwards.
func (h *Host) Crash() error {
	err := h.Cut() // first, so that no connection is closed
	h.close()
	return errors.Join(err, removeGroups(h.data()))
}

// Wipe is Crash, and takes the host's disk as well.
func (h *Host) Wipe() error { return errors.Join(h.Crash(), os.RemoveAll(h.data())) }

func (h *Host) close() {
	if h.box == nil {
		return
	}
	h.box.close()
	if h.daemon != nil {
		h.daemon.Kill()
	}
	h.box, h.daemon = nil, nil
}

// On reports whether the host has power and its daemon runs.
func (h *Host) On() bool { return h.daemon != nil && !h.daemon.over() }

// Booted reports whether the host has power.
func (h *Host) Booted() bool { return h.box != nil }

// StartDaemon starts the host's daemon, and returns once it answers.
func (h *Host) StartDaemon(ctx context.Context, flags ...string) (err error) {
	args := slices.Concat([]string{h.cluster.Bin, "daemon"}, h.Folders(), flags)
	if h.daemon, err = h.box.start(h.log, []string{"SSL_CERT_FILE=" + h.cluster.ca}, args...); err != nil {
		return err
	}
	socket := fmt.Sprintf("/proc/%d/root%s/gitswarm.sock", h.box.pid(), runDir)
	return Poll(ctx, 30*time.Second, "the daemon of "+h.Name+" answers", func() bool { return answers(socket) })
}

// PID is the daemon's process.
func (h *Host) PID() int { return h.daemon.pid }

// Kill ends the daemon with SIGKILL; containers live on.
func (h *Host) Kill() {
	h.daemon.Kill()
	h.daemon = nil
}

// Stop asks the daemon to end, and waits until it has; containers live on.
func (h *Host) Stop() {
	h.daemon.stop(20 * time.Second)
	h.daemon = nil
}

// Pause stops the daemon as a machine that swaps does: it answers nothing and
// knows nothing of it. Resume lets it go on.
func (h *Host) Pause(ctx context.Context) error { return h.daemon.pause(ctx) }

// Resume ends Pause.
func (h *Host) Resume() { h.daemon.resume() }

// Run runs a gitswarm command on the host, and returns what it printed and its
// exit code.
func (h *Host) Run(ctx context.Context, args ...string) (output string, exit int) {
	return h.RunWith(ctx, nil, args...)
}

// RunWith is Run with an input.
func (h *Host) RunWith(ctx context.Context, input io.Reader, args ...string) (output string, exit int) {
	if h.box == nil {
		return h.Name + " has no power", -1
	}
	var both bytes.Buffer
	inside := h.box.command(append([]string{h.cluster.Bin}, args...)...)
	cmd := ending(exec.CommandContext(ctx, inside.Path, inside.Args[1:]...))
	cmd.Env = append(inside.Env, "NO_COLOR=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, &both, &both
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		exit = ended.ExitCode()
	case err != nil:
		return err.Error(), -1
	}
	return both.String(), exit
}

// Spawn starts another program on the host. It logs to the file NAME.log
// beside the host's own.
func (h *Host) Spawn(name string, env []string, args ...string) (*Program, error) {
	log, err := os.OpenFile(filepath.Join(h.Dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return h.box.start(log, env, args...)
}

// Exec runs any program on the host to its end, and returns what it printed.
func (h *Host) Exec(ctx context.Context, args ...string) (string, error) {
	inside := h.box.command(args...)
	cmd := ending(exec.CommandContext(ctx, inside.Path, inside.Args[1:]...))
	cmd.Env = inside.Env
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s on %s: %w: %s", strings.Join(args, " "), h.Name, err, bytes.TrimSpace(text))
	}
	return string(text), nil
}

// Running lists the processes that fit: by their executable, which is empty for
// those of other hosts and of containers, and by their control groups.
func (h *Host) Running(fits func(executable, groups string) bool) ([]int, error) {
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", h.box.pid()))
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", h.Name, err)
	}
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, folder := range folders {
		executable, err := os.Readlink(folder + "/exe")
		if err != nil {
			continue // it has ended
		}
		if its, _ := os.Readlink(folder + "/ns/pid"); its != space {
			executable = "" // a container's, or another host's
		}
		groups, _ := os.ReadFile(folder + "/cgroup") // it may have ended
		if pid, err := strconv.Atoi(filepath.Base(folder)); err == nil && fits(executable, string(groups)) {
			found = append(found, pid)
		}
	}
	return found, nil
}

// Containers lists the first processes of the host's containers that run the
// examples' web server, by what the kernel says.
func (h *Host) Containers() ([]Process, error) {
	found, err := Processes("/app", h.Dir)
	return slices.DeleteFunc(found, func(p Process) bool { return !p.First }), err
}

// Log returns the last bytes of what the host's daemon logged.
func (h *Host) Log(most int64) string {
	info, err := h.log.Stat()
	if err != nil {
		return err.Error()
	}
	text := make([]byte, min(most, info.Size()))
	if _, err := h.log.ReadAt(text, info.Size()-int64(len(text))); err != nil {
		return err.Error()
	}
	return string(text)
}

// GroupsOf returns the folder, in one hierarchy, that holds a control group
// for each container of the host.
func (h *Host) GroupsOf(hierarchy string) string {
	return filepath.Join("/sys/fs/cgroup", hierarchy, "gitswarm", "gitswarm"+instance(h.data()))
}

// instance is what the daemon adds to names that it shares with other daemons
// of the machine: "-" and a hash of its data folder.
func instance(dataDir string) string {
	hash := fnv.New32a()
	hash.Write([]byte(dataDir))
	text := strconv.FormatUint(uint64(hash.Sum32()), 36)
	return "-" + ("000000" + text)[len(text):]
}

// removeGroups removes the control groups of a data folder's containers, which
// outlive a box. It waits for the last process to leave them.
func removeGroups(dataDir string) error {
	var trees []string
	for _, pattern := range []string{"/sys/fs/cgroup/gitswarm/gitswarm", "/sys/fs/cgroup/*/gitswarm/gitswarm"} {
		found, err := filepath.Glob(pattern + instance(dataDir))
		if err != nil {
			return err
		}
		trees = append(trees, found...)
	}
	for _, tree := range trees {
		err := Poll(context.Background(), 10*time.Second, tree+" is empty", func() bool { return removeTree(tree) })
		if err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes a control group with those in it, innermost first, and
// reports whether all are gone.
func removeTree(tree string) bool {
	var groups []string
	_ = filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		return nil // what goes away meanwhile is what is wanted
	})
	slices.SortFunc(groups, func(a, b string) int { return strings.Compare(b, a) })
	for _, group := range groups {
		_ = os.Remove(group) // what is still in use is tried again
	}
	_, err := os.Stat(tree)
	return errors.Is(err, fs.ErrNotExist)
}
