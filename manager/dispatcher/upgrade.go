package dispatcher

import (
	"context"
	"fmt"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

// restartGrace is how long a node that begins anew may say nothing: its tasks
// run on meanwhile, and are not to be replaced.
const restartGrace = 30 * time.Second

// cannotUpgrade is the answer of an agent that does not know the question.
const cannotUpgrade = "its build does not replace itself: replace its binary and restart its daemon by hand"

// Upgrade asks a node about a build of the daemon, and has it install that
// build if the request says so. A node that does begins anew, and is not taken
// for dead for a while.
func (d *Dispatcher) Upgrade(ctx context.Context, node swarm.NodeID, request swarm.UpgradeRequest) (swarm.UpgradeAnswer, error) {
	a, err := d.open(ctx, node, wire.Open{Upgrade: &request}, 0)
	if err != nil {
		return swarm.UpgradeAnswer{}, fmt.Errorf("ask about a build: %w", err)
	}
	defer a.close() // the node waits for it before it begins anew
	defer context.AfterFunc(ctx, a.close)()
	m, err := a.recv()
	switch {
	case err != nil:
		return swarm.UpgradeAnswer{}, err
	case m.Upgrade == nil:
		return swarm.UpgradeAnswer{Refused: cannotUpgrade}, nil
	}
	if request.Install && m.Upgrade.Refused == "" {
		d.excuse(node)
	}
	return *m.Upgrade, nil
}

// excuse lets a node be silent for a while.
func (d *Dispatcher) excuse(node swarm.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.term != nil {
		d.term.roll.excuse(node, time.Now().Add(restartGrace))
	}
}
