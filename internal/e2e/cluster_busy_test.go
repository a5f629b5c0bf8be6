package e2e

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// calmFor is how long a busy cluster is watched: shortly in `make test`,
// SOAK_CALM in `make soak`.
func calmFor(t *testing.T) time.Duration {
	text := os.Getenv("GITSWARM_SOAK_CALM")
	if text == "" {
		return 8 * time.Second
	}
	d, err := time.ParseDuration(text)
	must(t, err)
	return d
}

// TestSoakNoElectionAndNoNodeDownThoughCoresAreBusyAndDaemonsPause stops every
// daemon but the leader's for 2 s at a time, as a machine that swaps does.
func TestSoakNoElectionAndNoNodeDownThoughCoresAreBusyAndDaemonsPause(t *testing.T) {
	c := calm(t)
	c.deploy(5, "", "")
	before := running(t, c.Hosts...)
	leader := c.leader()
	since := make(map[string]lab.Node)
	for _, h := range c.Hosts {
		since[h.Name] = c.node(leader, h)
	}
	burn(t)

	over := time.Now().Add(calmFor(t))
	for time.Now().Before(over) {
		paused := c.others(leader)[rand.IntN(len(c.Hosts)-1)]
		must(t, paused.Pause(t.Context()))
		pause(t, 2*time.Second)
		paused.Resume()
		pause(t, time.Second)
	}
	if now := c.leader(); now != leader {
		t.Errorf("%s leads, want %s as before", now.Name, leader.Name)
	}
	for _, h := range c.Hosts {
		if now := c.node(leader, h); now.State != "ready" || !now.Since.Equal(since[h.Name].Since) {
			t.Errorf("%s is %s since %s, want ready since %s", h.Name, now.State, now.Since, since[h.Name].Since)
		}
	}
	if n := survivors(before, running(t, c.Hosts...)); n != len(before) {
		t.Errorf("%d of %d containers were left alone, want all", n, len(before))
	}
}

// burn keeps every core busy until the test ends.
func burn(t *testing.T) {
	for range runtime.NumCPU() {
		cmd := exec.Command("bash", "-c", "while :; do :; done")
		must(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it runs until then
			_ = cmd.Wait()         // reports that signal
		})
	}
}
