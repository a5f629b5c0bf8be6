package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// rounds is how often the daemon is killed: few in `make test`, GITSWARM_SOAK
// times in `make soak`.
func rounds(t *testing.T, few int) int {
	if text := os.Getenv("GITSWARM_SOAK"); text != "" {
		n, err := strconv.Atoi(text)
		must(t, err)
		return n
	}
	return few
}

// versions is what the killed rollouts go to, and how each must end.
var versions = []struct {
	tag  string
	exit int // of `status --wait`
	more string
}{
	{"v2", 0, ""},
	{"exits-at-once", 2, ""},
	{"v3", 0, ""},
	{"never-healthy", 2, "    healthcheck: {test: [\"CMD\", \"/app\", \"health\"], interval: 300ms, timeout: 1s, retries: 2}\n"},
	{"v1", 0, ""},
}

func TestRolloutsEndAsTheyWouldHaveThoughTheDaemonIsKilled(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 3, quick)})
	noSlotRunsTwice(t, w)

	running := "v1"
	for round := range rounds(t, 5) {
		version := versions[round%len(versions)]
		if version.exit == 0 {
			running = version.tag
		}
		commit := w.push(map[string]string{"shop/compose.yaml": web(version.tag, 3, quick) + version.more + fmt.Sprintf("    labels: {round: \"%d\"}\n", round)})
		moment := time.Duration(rand.IntN(2500)) * time.Millisecond
		pause(t, moment)
		w.killed(moment)

		w.wait(commit, version.exit)
		images := w.healthy("shop/web")
		for id, image := range images {
			if !strings.HasSuffix(image, ":"+running) {
				t.Fatalf("round %d (killed after %s): %s runs %s, want %s", round, moment, id, image, running)
			}
		}
		if len(images) != 3 {
			t.Fatalf("round %d (killed after %s): %d replicas are healthy, want 3", round, moment, len(images))
		}
		w.until("no container is left over", func() bool { return len(containers(t, w)) == 3 })
	}
}

// killed ends the daemon with SIGKILL at a moment of a rollout, expects that no
// container dies of it, and starts the daemon again. One container may have
// been asked to stop just before.
func (w *world) killed(moment time.Duration) {
	w.t.Helper()
	before := containers(w.t, w)
	w.kill()
	died := 0
	after := containers(w.t, w)
	for _, c := range before {
		if !slices.Contains(after, c) {
			died++
		}
	}
	if died > 1 {
		w.t.Fatalf("%d containers died with the daemon, %s into the rollout", died, moment)
	}
	_, err := w.StartDaemon(w.t.Context())
	must(w.t, err)
}

// noSlotRunsTwice looks at the kernel's processes until the test ends: two of
// one slot at once are two tasks that run in one seat.
func noSlotRunsTwice(t *testing.T, w *world) {
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			found, err := lab.Processes("/app", w.Dir)
			if err != nil {
				t.Error(err)
				return
			}
			slots := make(map[string]string)
			for _, p := range found {
				if !p.First {
					continue // a health check beside it
				}
				slot := p.Hostname[:strings.LastIndexByte(p.Hostname, '-')]
				if other, taken := slots[slot]; taken {
					t.Errorf("slot %s runs twice at once: %s and %s", slot, other, p.Hostname)
				}
				slots[slot] = p.Hostname
			}
		}
	})
	t.Cleanup(func() {
		stop()
		done.Wait()
	})
}

func TestContainersLiveThroughTheDaemonsDeathAndAreAdopted(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 3, quick)})
	before, tasks := containers(t, w), w.healthy("shop/web")

	w.kill()
	if after := containers(t, w); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Fatalf("containers are %v without the daemon, want %v", after, before)
	}
	_, err := w.StartDaemon(t.Context())
	must(t, err)

	w.until("the daemon knows its tasks", func() bool { return kept(tasks, w.healthy("shop/web")) == 3 })
	for id := range tasks {
		if got := w.run(0, "exec", id, "/app", "cat", "/etc/hostname"); strings.TrimSpace(got) == "" {
			t.Errorf("exec in %s after the restart printed nothing", id)
		}
	}
	if after := containers(t, w); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("containers are %v after the restart, want the same processes %v", after, before)
	}
	w.run(0, "scale", "shop/web=1")
	w.until("adopted containers can be stopped", func() bool { return len(containers(t, w)) == 1 })
}

// kill ends the daemon with SIGKILL.
func (w *world) kill() {
	w.t.Helper()
	w.Daemon().Kill()
}

// pause lets a rollout get to a random point: the test's input, not a wait for
// something to happen.
func pause(t *testing.T, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// containers lists the app's first processes by what the kernel says, not by
// gitswarm's word.
func containers(t *testing.T, w *world) []lab.Process {
	t.Helper()
	found, err := lab.Processes("/app", w.Dir)
	must(t, err)
	return slices.DeleteFunc(found, func(p lab.Process) bool { return !p.First })
}
