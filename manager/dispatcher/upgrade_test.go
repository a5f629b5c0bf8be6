package dispatcher

import (
	"testing"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestAsksANodeAboutABuildAndHearsItsAnswer(t *testing.T) {
	m := newManager(t)
	p := m.join("n1", wire.Held{})
	go func() {
		open, up := p.attach()
		_ = up.Send(&wire.UpFrame{Upgrade: &swarm.UpgradeAnswer{Version: "v2 at " + open.Upgrade.Binary}})
		_ = up.CloseSend()
	}()
	answer, err := m.dispatcher.Upgrade(t.Context(), "n1", swarm.UpgradeRequest{Binary: "/new", Install: true})
	if err != nil || answer.Version != "v2 at /new" {
		t.Errorf("the node answered %+v, %v", answer, err)
	}
}

func TestAnAgentThatDoesNotKnowUpgradesIsToldApart(t *testing.T) {
	m := newManager(t)
	p := m.join("n1", wire.Held{})
	go func() {
		_, up := p.attach()
		_ = up.Send(&wire.UpFrame{Usage: []swarm.Usage{}}) // what it takes the question for
		_ = up.CloseSend()
	}()
	if answer, err := m.dispatcher.Upgrade(t.Context(), "n1", swarm.UpgradeRequest{}); err != nil || answer.Refused != cannotUpgrade {
		t.Errorf("the answer is %+v, %v", answer, err)
	}
}
