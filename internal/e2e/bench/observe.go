package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// glance is how long an observer looks away: the resolution of all that is
// timed by it.
const glance = 4 * time.Millisecond

// patience is how long anything may take.
const patience = 3 * time.Minute

// An observer sees which containers of one containerd namespace run the
// examples' web server, by what the kernel says.
type observer struct {
	groups string            // folder with a control group for each container
	known  map[string]string // container to its process's folder in /proc
}

// newObserver finds the namespace's control groups.
func newObserver(namespace string) *observer {
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "pids")); err == nil { // version 1
		root = filepath.Join(root, "pids")
	}
	return &observer{groups: filepath.Join(root, "gitswarm", namespace), known: make(map[string]string)}
}

// look returns the containers whose web server runs.
func (o *observer) look() map[string]bool {
	running := make(map[string]bool)
	groups, _ := os.ReadDir(o.groups) // it is not there before the first container
	for _, group := range groups {
		if !group.IsDir() {
			continue
		}
		name := group.Name()
		if proc, known := o.known[name]; known && serves(proc) {
			running[name] = true
			continue
		}
		delete(o.known, name)
		pids, _ := os.ReadFile(filepath.Join(o.groups, name, "cgroup.procs")) // it may be gone
		for _, pid := range strings.Fields(string(pids)) {
			if proc := "/proc/" + pid; serves(proc) {
				o.known[name], running[name] = proc, true
			}
		}
	}
	return running
}

// serves reports whether a process is the web server, and no longer runc on
// its way to become that.
func serves(proc string) bool {
	exe, err := os.Readlink(proc + "/exe")
	return err == nil && exe == "/app"
}

// until looks again and again until what it sees is right, and returns when
// that was.
func (o *observer) until(ctx context.Context, claim string, right func(running map[string]bool) bool) (time.Time, error) {
	deadline := time.Now().Add(patience)
	for {
		running := o.look()
		now := time.Now()
		switch {
		case right(running):
			return now, nil
		case ctx.Err() != nil:
			return now, ctx.Err()
		case now.After(deadline):
			return now, fmt.Errorf("wait until %s: not within %s, %d containers run", claim, patience, len(running))
		}
		time.Sleep(glance)
	}
}

// untilCount waits until exactly n containers run.
func (o *observer) untilCount(ctx context.Context, n int) (time.Time, error) {
	return o.until(ctx, fmt.Sprintf("%d containers run", n), func(running map[string]bool) bool { return len(running) == n })
}

// untilNew waits until n containers run, none of which is in before.
func (o *observer) untilNew(ctx context.Context, n int, before map[string]bool) (time.Time, error) {
	return o.until(ctx, fmt.Sprintf("%d new containers run", n), func(running map[string]bool) bool {
		return len(running) == n && countNew(running, before) == n
	})
}

func countNew(running, before map[string]bool) int {
	n := 0
	for container := range running {
		if !before[container] {
			n++
		}
	}
	return n
}
