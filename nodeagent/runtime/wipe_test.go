package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// places are the data directories of all daemons of this test run, by run
// directory: an interrupted run leaves nothing of them.
var places sync.Map

// wipeEnv makes the test binary wipe the places that it lists, RUN=DIR a line.
const wipeEnv = "RUNTIME_TEST_WIPE"

// wipeWhenInterrupted turns this process into one that wipes all places: with
// that its daemon and its tests end, which would go on making containers.
func wipeWhenInterrupted() {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		var list strings.Builder
		places.Range(func(run, dir any) bool {
			fmt.Fprintf(&list, "%s=%s\n", run, dir)
			return true
		})
		err := syscall.Exec("/proc/self/exe", os.Args[:1], append(os.Environ(), wipeEnv+"="+list.String()))
		fmt.Fprintln(os.Stderr, "wipe:", err)
		os.Exit(1)
	}()
}

// wipeAll wipes until no shim comes any more: some were about to start.
func wipeAll(list string) int {
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	for quiet := 0; quiet < 3; time.Sleep(200 * time.Millisecond) {
		quiet++
		for line := range strings.Lines(list) {
			run, dir, _ := strings.Cut(strings.TrimSpace(line), "=")
			if len(shims(filepath.Base(run))) > 0 {
				quiet = 0
			}
			wipe(run, dir)
		}
	}
	return 130
}

// wipe takes away what a daemon's containers are, without the daemon.
func wipe(run, dir string) {
	namespace := filepath.Base(run)
	for _, pid := range shims(namespace) { // first, so that none cleans up beside us
		if number, err := strconv.Atoi(pid); err == nil {
			_ = syscall.Kill(number, syscall.SIGKILL)
		}
	}
	root := filepath.Join(run, "runc", namespace)
	containers, _ := os.ReadDir(root)
	for _, c := range containers {
		_ = exec.Command("runc", "--root", root, "delete", "--force", c.Name()).Run()
	}

	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	lines := strings.Split(string(mounts), "\n")
	for _, line := range slices.Backward(lines) { // children before parents
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], run+"/") {
			_ = unix.Unmount(fields[4], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/gitswarm/" + namespace)
	for _, group := range groups {
		_ = removeGroup(group)
		_ = os.Remove(filepath.Dir(group)) // unless another daemon has containers
	}
	for _, path := range []string{run, dir} {
		if err := os.RemoveAll(path); err != nil {
			fmt.Fprintln(os.Stderr, "wipe:", err)
		}
	}
}
