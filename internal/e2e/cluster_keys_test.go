package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

var unlockKey = regexp.MustCompile(`GSKEY-1-[0-9A-Za-z-]+`)

func TestALockedManagerServesNothingUntilUnlockedAndTheKeyRotates(t *testing.T) {
	c := calm(t)
	c.deploy(5, "", "")
	before := running(t, c.Hosts...)
	open := make(map[*lab.Host]string)
	for _, h := range c.Hosts[:managers] {
		open[h] = c.keyring(h)
	}
	first := c.key(c.on(c.Hosts[0], 0, "cluster", "set", "--autolock=true"))
	restarted := c.others(c.leader())[0]
	c.until(restarted.Name+" keeps its keys under lock", func() bool { return c.keyring(restarted) != open[restarted] })
	c.restartLocked(restarted)
	c.unlock(restarted, "GSKEY-1-0000", 1)
	c.unlock(restarted, first, 0)
	c.until(restarted.Name+" serves again", func() bool {
		_, exit := restarted.Run(t.Context(), "node", "ls")
		return exit == 0
	})

	kept := c.keyring(restarted)
	second := c.key(c.on(c.Hosts[0], 0, "unlock-key", "--rotate"))
	if second == first {
		t.Fatal("the key is the same after its rotation")
	}
	c.until(restarted.Name+" follows the rotation", func() bool { return c.keyring(restarted) != kept })
	c.restartLocked(restarted)
	c.unlock(restarted, first, 1)
	c.unlock(restarted, second, 0)
	c.until(restarted.Name+" is a manager again", func() bool { return c.node(c.leader(), restarted).State == "ready" })
	if n := survivors(before, running(t, c.Hosts...)); n != len(before) {
		t.Errorf("%d of %d containers lived through it, want all", n, len(before))
	}
	c.on(c.leader(), 0, "cluster", "set", "--autolock=false")
}

// key finds an unlock key in what a command said.
func (c *cluster) key(text string) string {
	c.t.Helper()
	key := unlockKey.FindString(text)
	if key == "" {
		c.t.Fatalf("there is no unlock key in %q", text)
	}
	return key
}

// keyring is what a manager keeps its keys in.
func (c *cluster) keyring(h *lab.Host) string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.Dir, "data", "keys"))
	must(c.t, err)
	return string(text)
}

// restartLocked kills a manager's daemon, starts it, and expects that it
// serves nothing.
func (c *cluster) restartLocked(h *lab.Host) {
	c.t.Helper()
	h.Kill()
	must(c.t, h.StartDaemon(c.t.Context()))
	text, _ := h.Run(c.t.Context(), "status")
	expect(c.t, "the status of a locked manager", text, "locked", "gitswarm unlock")
	for _, args := range [][]string{{"node", "ls"}, {"ps", "shop"}, {"token", "worker"}, {"scale", "shop/web=1"}} {
		if text, exit := h.Run(c.t.Context(), args...); exit == 0 {
			c.t.Errorf("a locked manager answers %v: %s", args, text)
		}
	}
}

func (c *cluster) unlock(h *lab.Host, key string, want int) {
	c.t.Helper()
	text, exit := h.RunWith(c.t.Context(), strings.NewReader(key+"\n"), "unlock")
	if exit != want {
		c.t.Errorf("unlock exited %d, want %d: %s", exit, want, text)
	}
}

func TestNodesStayThroughRotatedRootsAndOnlyNewTokensLetIn(t *testing.T) {
	c := calm(t)
	c.deploy(5, "", "")
	before := running(t, c.others(c.Hosts[4])...)
	typed := lab.Typed(t.Context())
	old, err := c.Hosts[0].Token("worker", typed)
	must(t, err)

	for range 2 {
		c.on(c.leader(), 0, "ca", "rotate")
		c.until("the rotation has ended and all nodes are ready", func() bool {
			now, err := c.Hosts[0].Token("worker", typed)
			return err == nil && now != old && c.allReady()
		})
	}
	if n := survivors(before, running(t, c.Hosts...)); n != len(before) {
		t.Errorf("%d of %d containers lived through two rotations, want all", n, len(before))
	}

	left := c.Hosts[4]
	c.leaves(left)
	if text, exit := left.Run(t.Context(), "join", "--token", old, c.Hosts[0].Endpoint()); exit == 0 {
		t.Errorf("a token of the first root lets a machine in: %s", text)
	}
	must(t, left.Join("worker", c.Hosts[1], typed))
	c.until("it is ready again", c.allReady)
	c.staysExactly(5)
}

func TestANodeThatLeavesTakesItsContainersAlong(t *testing.T) {
	c := calm(t)
	c.deploy(10, "", "")
	left := c.Hosts[3]
	kept := running(t, c.others(left)...)
	c.leaves(left)
	c.expectExactly(10, "its tasks run elsewhere", c.others(left)...)
	if n := survivors(kept, running(t, c.Hosts...)); n != len(kept) {
		t.Errorf("%d of %d containers of other nodes were left alone, want all", n, len(kept))
	}
	must(t, left.Join("worker", c.Hosts[0], lab.Typed(t.Context())))
	c.until("it is ready again", c.allReady)
}

// leaves lets a worker leave, expects that nothing of it is left, and removes
// its row.
func (c *cluster) leaves(h *lab.Host) {
	c.t.Helper()
	id := c.node(c.Hosts[0], h).ID
	c.on(h, 0, append([]string{"leave"}, h.Folders()...)...)
	c.until("its containers are gone", func() bool { return len(running(c.t, h)) == 0 })
	c.until("it may be removed", func() bool {
		_, exit := c.Hosts[0].Run(c.t.Context(), "node", "rm", id)
		return exit == 0
	})
	if !h.On() {
		must(c.t, h.StartDaemon(c.t.Context()))
	}
}

func (c *cluster) allReady() bool {
	nodes, err := c.Hosts[0].Nodes(c.t.Context())
	if err != nil {
		return false
	}
	for _, h := range c.Hosts {
		if nodes[h.Name].State != "ready" {
			return false
		}
	}
	return true
}
