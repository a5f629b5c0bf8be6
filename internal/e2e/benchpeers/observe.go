package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// glance is how long an observer looks away: the resolution of all that is
// timed by it.
const glance = 10 * time.Millisecond

// versionEnv is what containers have their version in.
const versionEnv = "BENCH_VERSION="

// A container is one that runs the examples' web server, by the kernel's word.
type container struct {
	host    *lab.Host
	version string
	proc    string // its process's folder
}

// An observer sees the containers of one side.
type observer struct {
	cluster *lab.Cluster
	groups  func(*lab.Host) string
	known   map[string]container // by the path of its control group
}

func newObserver(cluster *lab.Cluster, groups func(*lab.Host) string) *observer {
	return &observer{cluster: cluster, groups: groups, known: make(map[string]container)}
}

// look returns the containers that run, by the paths of their control groups.
func (o *observer) look() map[string]container {
	found := make(map[string]container)
	for _, h := range o.cluster.Hosts {
		folder := o.groups(h)
		groups, _ := os.ReadDir(folder) // it is not there before the first container
		for _, group := range groups {
			path := filepath.Join(folder, group.Name())
			if c, known := o.known[path]; known && serves(c.proc) {
				found[path] = c
				continue
			}
			delete(o.known, path)
			if c, ok := open(h, path); group.IsDir() && ok {
				o.known[path], found[path] = c, c
			}
		}
	}
	return found
}

// open looks into a control group for the web server.
func open(h *lab.Host, path string) (container, bool) {
	pids, _ := os.ReadFile(filepath.Join(path, "cgroup.procs")) // it may be gone
	for _, pid := range strings.Fields(string(pids)) {
		proc := "/proc/" + pid
		if !serves(proc) {
			continue
		}
		environment, _ := os.ReadFile(proc + "/environ") // as above
		_, rest, _ := strings.Cut(string(environment), versionEnv)
		version, _, _ := strings.Cut(rest, "\x00")
		return container{h, version, proc}, version != ""
	}
	return container{}, false
}

// serves reports whether a process is the web server, and no longer runc on
// its way to become that.
func serves(proc string) bool {
	exe, err := os.Readlink(proc + "/exe")
	return err == nil && exe == "/app"
}

// count counts the containers that fit.
func count(found map[string]container, fits func(container) bool) (n int) {
	for _, c := range found {
		if fits(c) {
			n++
		}
	}
	return n
}

func ofVersion(version string) func(container) bool {
	return func(c container) bool { return c.version == version }
}

// until looks again and again until what it sees is right, and returns when
// that was.
func (o *observer) until(ctx context.Context, claim string, right func(found map[string]container) bool) (time.Time, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(glance) {
		found := o.look()
		now := time.Now()
		switch {
		case right(found):
			return now, nil
		case ctx.Err() != nil:
			return now, ctx.Err()
		case now.After(deadline):
			return now, fmt.Errorf("wait until %s: not within %s, %d containers run", claim, patience, len(found))
		}
	}
}

// untilRun waits until exactly n containers of a version run, and none of
// another.
func (o *observer) untilRun(ctx context.Context, n int, version string) (time.Time, error) {
	return o.until(ctx, fmt.Sprintf("%d containers of %s run", n, version), func(found map[string]container) bool {
		return len(found) == n && count(found, ofVersion(version)) == n
	})
}
