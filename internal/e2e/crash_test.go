package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
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

func TestRolloutsEndAsTheyWouldHaveThoughTheDaemonIsKilled(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 3, quick)})

	versions := []string{"v2", "exits-at-once", "v3", "never-healthy", "v1"}
	running := "v1"
	for round := range rounds(t, 5) {
		version := versions[round%len(versions)]
		text := web(version, 3, quick) + fmt.Sprintf("    labels: {round: %q}\n", fmt.Sprint(round))
		if version == "never-healthy" {
			text += "    healthcheck: {test: [\"CMD\", \"/app\", \"health\"], interval: 300ms, timeout: 1s, retries: 2}\n"
		}
		want := 0
		if version == "exits-at-once" || version == "never-healthy" {
			want = 2
		} else {
			running = version
		}
		before := containers(t, w)

		commit := w.push(map[string]string{"shop/compose.yaml": text})
		moment := time.Duration(rand.IntN(2500)) * time.Millisecond
		pause(t, moment)
		w.kill()
		alive := containers(t, w)
		if len(alive) == 0 || len(before) == 0 {
			t.Fatalf("round %d: no container survived the daemon's death after %s", round, moment)
		}
		_, err := w.StartDaemon(t.Context())
		must(t, err)

		w.wait(commit, want)
		images := w.healthy("shop/web")
		if len(images) != 3 {
			t.Fatalf("round %d (killed after %s): %d replicas are healthy, want 3", round, moment, len(images))
		}
		for id, image := range images {
			if !strings.HasSuffix(image, ":"+running) {
				t.Fatalf("round %d (killed after %s): %s runs %s, want %s", round, moment, id, image, running)
			}
		}
		w.until("no container is left over", func() bool { return len(containers(t, w)) == 3 })
	}
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

// containers lists the app's processes in the lab's containers by what the
// kernel says, not by gitswarm's word: "pid started".
func containers(t *testing.T, w *world) []string {
	t.Helper()
	found, err := lab.Processes("/app", w.Dir)
	must(t, err)
	return found
}
