package nodeagent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestBeginsAnewOnlyWhereAnotherBuildWasInstalledAndSaysSoFirst(t *testing.T) {
	bubble(t, func(n *node) {
		n.stop()
		n.upgrade = func(_ context.Context, r swarm.UpgradeRequest) (swarm.UpgradeAnswer, error) {
			switch r.Binary {
			case "/new":
				return swarm.UpgradeAnswer{Digest: "b", Running: "a", Version: "v2"}, nil
			case "/same":
				return swarm.UpgradeAnswer{Digest: "a", Running: "a", Version: "v1"}, nil
			}
			return swarm.UpgradeAnswer{}, errors.New("it is not root's alone")
		}
		n.start()
		for _, c := range []struct {
			binary  string
			install bool
			said    string
			begins  int32
		}{
			{"/new", false, " v2", 0},
			{"/same", true, " v1", 0},
			{"/bad", true, " it is not root's alone", 0},
			{"/new", true, " v2", 1},
		} {
			request := swarm.UpgradeRequest{Binary: c.binary, Install: c.install}
			n.manager.send(wire.FromManager{Open: &wire.Open{Stream: "upgrade", Upgrade: &request}})
			synctest.Wait()
			said := n.manager.latest().state("upgrade")
			if want := "new, upgrade:" + c.said; said != want || n.begins.Load() != c.begins {
				t.Errorf("%+v: the manager heard %q, want %q; begun anew %d times, want %d", request, said, want, n.begins.Load(), c.begins)
			}
		}
	})
}

func TestAnAgentWithoutUpgradesSaysSo(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.send(wire.FromManager{Open: &wire.Open{Stream: "upgrade", Upgrade: &swarm.UpgradeRequest{}}})
		synctest.Wait()
		if said := n.manager.latest().state("upgrade"); said != "new, upgrade: its daemon does not replace itself: replace its binary and restart it" {
			t.Errorf("the manager heard %q", said)
		}
	})
}
