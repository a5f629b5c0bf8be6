package nodeagent

import (
	"context"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

// Upgrade looks at a build of the daemon, and puts it in the place of the one
// that runs if the request says so. It does not start it: Config.Restart does.
type Upgrade func(context.Context, swarm.UpgradeRequest) (swarm.UpgradeAnswer, error)

// serveUpgrade answers a question about a build. Where that was installed, the
// daemon is to begin anew once the answer has arrived.
func (a *Agent) serveUpgrade(ctx context.Context, up wire.Attached, request swarm.UpgradeRequest) (restart bool, err error) {
	answer := swarm.UpgradeAnswer{Refused: "its daemon does not replace itself: replace its binary and restart it"}
	if a.config.Upgrade != nil {
		answer, err = a.config.Upgrade(ctx, request)
	}
	if err != nil {
		answer.Refused = err.Error()
	}
	return request.Install && answer.Refused == "" && !answer.Current(), up.Send(&wire.UpFrame{Upgrade: &answer})
}
