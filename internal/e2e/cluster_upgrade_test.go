package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// The hosts of an upgrade have binaries of their own, here.
const (
	ownFolder  = "/run/bin"
	ownBinary  = ownFolder + "/gitswarm"
	nextBinary = ownFolder + "/next/gitswarm"
	nextBuild  = "v9.9.9"
)

// giveBinaries gives each host a copy of the daemon's binary, and another build
// in a folder beside it.
func giveBinaries(t *testing.T, c *lab.Cluster) {
	t.Helper()
	next := filepath.Join(t.TempDir(), "gitswarm")
	shell(t, ".", "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+nextBuild, "-o", next, "../../cmd/gitswarm")
	for _, h := range c.Hosts {
		folder := filepath.Join(h.Dir, "bin")
		must(t, os.MkdirAll(filepath.Join(folder, "next"), 0o755))
		for target, source := range map[string]string{
			"gitswarm": shared.Bin, "gitswarm-shim": shared.Bin + "-shim",
			"next/gitswarm": next, "next/gitswarm-shim": shared.Bin + "-shim",
		} {
			shell(t, folder, "cp", source, target)
		}
		for _, command := range [][]string{{"mkdir", ownFolder}, {"mount", "--bind", folder, ownFolder}} {
			_, err := h.Exec(t.Context(), command...)
			must(t, err)
		}
	}
	c.Bin = ownBinary
}

// TestAnUpgradeReplacesEveryDaemonAndNoContainerNotices is asked of the leader,
// which hands over and is replaced itself meanwhile.
func TestAnUpgradeReplacesEveryDaemonAndNoContainerNotices(t *testing.T) {
	c := &cluster{hosts: &hosts{}, t: t}
	t.Cleanup(func() {
		if t.Failed() {
			c.explain()
		}
		must(t, c.close())
	})
	var err error
	c.Cluster, err = shared.NewCluster(managers + 1)
	must(t, err)
	giveBinaries(t, c.Cluster)
	must(t, c.furnish())
	c.deploy(6, "", "")
	before := running(t, c.Hosts...)
	leader := c.leader()

	expect(t, "the refusal", c.on(leader, 1, "upgrade", nextBinary, "--digest", "sha256:"+strings.Repeat("0", 64)), "nothing was begun", "put the right binary there")
	expect(t, "the check", c.on(leader, 0, "upgrade", nextBinary, "--check"), "n4 would get "+nextBuild)

	text := c.on(leader, 0, "upgrade", nextBinary)
	var begun []string
	for _, line := range strings.Split(text, "\n") {
		if name, _, gets := strings.Cut(line, " gets "); gets {
			begun = append(begun, name)
		}
	}
	want := []string{"n4"}
	for _, h := range c.Hosts[:managers] {
		if h != leader {
			want = append(want, h.Name)
		}
	}
	if want = append(want, leader.Name); !slices.Equal(begun, want) {
		t.Errorf("begun were %v, want %v:\n%s", begun, want, text)
	}
	expect(t, "the upgrade", text, leader.Name+" hands over", leader.Name+" runs "+nextBuild)

	nodes := c.on(leader, 0, "node", "ls")
	if n := strings.Count(nodes, nextBuild); n != len(c.Hosts) || strings.Count(nodes, "ready") != n {
		t.Errorf("%d nodes run %s, want every one, ready:\n%s", n, nextBuild, nodes)
	}
	for _, h := range c.Hosts {
		if !h.On() {
			t.Errorf("%s: the daemon is another process than the one that was started", h.Name)
		}
		_, err := h.Exec(t.Context(), ownBinary+".previous", "help")
		must(t, err)
	}
	c.expectExactly(len(before), "every replica runs once", c.Hosts...)
	if n := survivors(before, running(t, c.Hosts...)); n != len(before) {
		t.Errorf("%d of %d containers outlived the upgrade, want all", n, len(before))
	}
	expect(t, "a process in a task", c.on(leader, 0, "exec", "shop/web", "--", "/app", "cat", "/etc/hostname"), "shop-web-")
	c.on(leader, 0, "scale", "shop/web=8")
	c.expectExactly(8, "the new daemons start replicas", c.Hosts...)
	if text := c.on(leader, 0, "upgrade", nextBinary); strings.Contains(text, "gets") {
		t.Errorf("an upgrade to what runs began anew:\n%s", text)
	}
}
