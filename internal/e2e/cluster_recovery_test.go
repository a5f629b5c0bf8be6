package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

func TestOneManagersStateIsEnoughToGoOnWhenTheOthersAreLostForGood(t *testing.T) {
	c := calm(t)
	c.deploy(10, "", "")
	left, lost := c.Hosts[1], []*lab.Host{c.Hosts[0], c.Hosts[2]}
	kept := running(t, c.others(lost...)...)
	for _, h := range lost {
		must(t, h.Wipe())
	}

	c.on(left, 0, "init", "--force-new-cluster")
	c.expectExactly(10, "all replicas run on what is left", c.others(lost...)...)
	if n := survivors(kept, running(t, c.others(lost...)...)); n != len(kept) {
		t.Errorf("%d of %d containers were left alone, want all", n, len(kept))
	}
	c.managersJoin(left, lost)
	c.staysExactly(10)
}

func TestABackupBringsTheClusterBackOntoAnEmptyMachine(t *testing.T) {
	c := calm(t)
	c.deploy(10, "", "")
	folder := t.TempDir()
	file, key := filepath.Join(folder, "cluster.gsb"), filepath.Join(folder, "key")
	must(t, os.WriteFile(key, []byte("a key of thirty-two characters!!\n"), 0o600))
	c.on(c.Hosts[1], 0, "backup", file, "--key-file", key)
	workers := c.Hosts[managers:]
	kept := running(t, workers...)
	for _, h := range c.Hosts[:managers] {
		must(t, h.Wipe())
	}

	first := c.Hosts[0]
	must(t, first.Boot())
	must(t, first.StartDaemon(t.Context()))
	c.on(first, 0, "restore", file, "--key-file", key, "--advertise", first.Address)
	c.expectExactly(10, "all replicas run on what is left", append(workers, first)...)
	if n := survivors(kept, running(t, workers...)); n != len(kept) {
		t.Errorf("%d of %d containers of the workers were left alone, want all", n, len(kept))
	}
	c.managersJoin(first, c.Hosts[1:managers])
	c.staysExactly(10)
}

// managersJoin brings hosts with empty disks back as managers, and forgets who
// they were.
func (c *cluster) managersJoin(at *lab.Host, empty []*lab.Host) {
	c.t.Helper()
	for _, h := range empty {
		id := c.node(at, h).ID
		if !h.Booted() {
			must(c.t, h.Boot())
		}
		must(c.t, h.StartDaemon(c.t.Context()))
		must(c.t, h.Join("manager", at, lab.Typed(c.t.Context())))
		c.on(at, 0, "node", "rm", "--force", id)
	}
	must(c.t, c.settle())
}
