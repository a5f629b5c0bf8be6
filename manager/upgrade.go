package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	upgradeAnswer   = 30 * time.Second // for a node to read two binaries and run one
	upgradeReach    = 20 * time.Second // for a node to be reached: its session may be on its way to another manager
	upgradePatience = 2 * time.Minute  // for a daemon to come back as the new build
	upgradeLook     = 250 * time.Millisecond
	upgradesAsked   = 16              // nodes at once
	lostLately      = 5 * time.Minute // a node that went down since may have been lost by this very upgrade
)

// Upgrade replaces the nodes' daemons by the build that lies on their disks:
// workers first, then managers, the leader last, never more than one at a time.
// All nodes are asked first, and nothing is touched if one of them refuses.
// What is done is told by the nodes alone: asked for again, after whatever
// happened, it goes on.
func (m *Manager) Upgrade(ctx context.Context, request api.Upgrading, by string, emit func(string) error) error {
	select {
	case m.upgrading <- struct{}{}: // the one before may not have noticed yet that nobody listens
		defer func() { <-m.upgrading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m.log.Info("upgrade was asked for", "binary", request.Binary, "digest", request.Digest, "by", operator(by))
	u := upgrade{
		Upgrading: request, self: m.config.Node, agents: m.config.Agents, emit: emit, now: m.now,
		look: func() upgradeSight {
			leader, _ := m.store.Leader()
			return upgradeSight{nodes: m.store.View().Nodes(), members: m.store.Members(), leader: leader.Node}
		},
		handOver: func(ctx context.Context) error { return m.store.HandOver(ctx, "") },
	}
	return u.run(ctx)
}

// upgradeSight is the cluster as an upgrade sees it.
type upgradeSight struct {
	nodes   []swarm.Node
	members []store.Member
	leader  swarm.NodeID
}

// upgrade is one request for one, on its way.
type upgrade struct {
	api.Upgrading
	self     swarm.NodeID
	agents   Agents
	look     func() upgradeSight
	handOver func(context.Context) error
	emit     func(string) error
	now      func() time.Time
}

// upgradable is a node and what it says of the build.
type upgradable struct {
	node   swarm.Node
	answer swarm.UpgradeAnswer
}

func (u *upgrade) run(ctx context.Context) error {
	sight := u.look()
	nodes, down, err := upgradeOrder(sight, u.Nodes, u.now())
	if err != nil {
		return fmt.Errorf("upgrade: nothing was begun: %w", err)
	}
	surveyed, err := u.survey(ctx, nodes)
	if err == nil {
		err = fitTogether(surveyed, sight.nodes)
	}
	if err != nil {
		return fmt.Errorf("upgrade: nothing was begun: %w", err)
	}
	for _, node := range down {
		if err := u.emit(nodeName(node) + " is down: it is left out"); err != nil {
			return err
		}
	}

	for _, c := range surveyed {
		if err := u.step(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// upgradeOrder is the order in which nodes are upgraded, without those that
// are down. No ids mean every node.
func upgradeOrder(sight upgradeSight, ids []swarm.NodeID, now time.Time) (up, down []swarm.Node, err error) {
	for _, node := range sight.nodes {
		switch {
		case len(ids) > 0 && !slices.Contains(ids, node.ID):
		case node.State != swarm.NodeDown:
			up = append(up, node)
		case now.Sub(node.Since) < lostLately:
			return nil, nil, fmt.Errorf("%s went down %s ago: bring it back first, or name the others with --node",
				nodeName(node), now.Sub(node.Since).Round(time.Second))
		default:
			down = append(down, node)
		}
	}
	turn := func(node swarm.Node) int {
		switch {
		case node.ID == sight.leader:
			return 2
		case node.Role == swarm.RoleManager:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(up, func(a, b swarm.Node) int {
		return cmp.Or(cmp.Compare(turn(a), turn(b)), cmp.Compare(nodeName(a), nodeName(b)), cmp.Compare(a.ID, b.ID))
	})
	return up, down, nil
}

func nodeName(node swarm.Node) string { return cmp.Or(node.Description.Hostname, string(node.ID)) }

// survey asks all nodes about the build.
func (u *upgrade) survey(ctx context.Context, nodes []swarm.Node) ([]upgradable, error) {
	surveyed := make([]upgradable, len(nodes))
	var group errgroup.Group
	group.SetLimit(upgradesAsked)
	for i, node := range nodes {
		group.Go(func() (err error) {
			surveyed[i].node = node
			if surveyed[i].answer, err = u.reach(ctx, node, false); err != nil {
				return fmt.Errorf("%s: %w", nodeName(node), err)
			}
			return nil
		})
	}
	return surveyed, group.Wait()
}

func (u *upgrade) ask(ctx context.Context, node swarm.Node, install bool) (swarm.UpgradeAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, upgradeAnswer)
	defer cancel()
	return u.agents.Upgrade(ctx, node.ID, swarm.UpgradeRequest{Binary: u.Binary, Digest: swarm.Digest(u.Digest), Install: install})
}

// reach asks until the node answers. It does no harm to ask twice: a build is
// not installed again.
func (u *upgrade) reach(ctx context.Context, node swarm.Node, install bool) (swarm.UpgradeAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, upgradeReach+upgradeAnswer)
	defer cancel()
	began := u.now()
	for {
		answer, err := u.ask(ctx, node, install)
		switch {
		case err == nil && answer.Refused != "":
			return answer, errors.New(answer.Refused)
		case err == nil || u.now().Sub(began) > upgradeReach:
			return answer, err
		}
		select {
		case <-ctx.Done():
			return answer, err
		case <-time.After(upgradeLook):
		}
	}
}

// fitTogether refuses a build that is not the same on nodes of one platform, or
// that some node of the cluster, be it down, could not run beside.
func fitTogether(surveyed []upgradable, nodes []swarm.Node) error {
	first := make(map[string]upgradable) // by platform
	for _, c := range surveyed {
		platform := c.node.Description.OS + "/" + c.node.Description.Arch
		other, known := first[platform]
		if known && other.answer.Digest != c.answer.Digest {
			return fmt.Errorf("%s has another file there (%s) than %s (%s): put the same one on both",
				nodeName(c.node), c.answer.Digest, nodeName(other.node), other.answer.Digest)
		}
		first[platform] = c
		for _, node := range nodes {
			if level := max(node.Description.Level, 1); c.answer.Level < level || c.answer.Level > level+1 {
				return fmt.Errorf("the build on %s, %s, is of level %d, the daemon of %s of level %d: a build may be at most one level ahead and never behind",
					nodeName(c.node), c.answer.Version, c.answer.Level, nodeName(node), level)
			}
		}
	}
	return nil
}

// step upgrades one node, unless it runs the build already.
func (u *upgrade) step(ctx context.Context, c upgradable) error {
	name := nodeName(c.node)
	if c.answer.Current() {
		return u.emit(fmt.Sprintf("%s runs %s", name, c.answer.Version))
	}
	if u.Check {
		return u.emit(fmt.Sprintf("%s would get %s", name, c.answer.Version))
	}
	sight := u.look()
	if sight.leader != u.self {
		return api.ErrGoOn
	}
	if c.node.ID == u.self && heirs(sight) > 0 {
		return u.yield(ctx, name)
	}
	if text := lull(sight, c.node); text != "" {
		if err := u.emit(text); err != nil {
			return err
		}
	}

	if err := u.emit(fmt.Sprintf("%s gets %s", name, c.answer.Version)); err != nil {
		return err
	}
	if _, err := u.reach(ctx, c.node, true); err != nil {
		return fmt.Errorf("upgrade: %s stays as it is, and so do those after it: %w", name, err)
	}
	if err := u.await(ctx, c); err != nil {
		return err
	}
	return u.emit(fmt.Sprintf("%s runs %s", name, c.answer.Version))
}

// heirs counts the other managers that could lead.
func heirs(sight upgradeSight) (n int) {
	for _, member := range sight.members {
		if member.Node != sight.leader && member.Voter && member.Reachable {
			n++
		}
	}
	return n
}

// yield lets another manager lead, which then upgrades this one.
func (u *upgrade) yield(ctx context.Context, name string) error {
	if err := u.emit(name + " hands over to another manager, which goes on"); err != nil {
		return err
	}
	if err := u.handOver(ctx); err != nil {
		return fmt.Errorf("upgrade: %s stays as it is: %w", name, err)
	}
	return api.ErrGoOn
}

// lull says that nothing can be written while a manager begins anew, if so.
func lull(sight upgradeSight, node swarm.Node) string {
	voters, answer := 0, 0
	for _, member := range sight.members {
		if !member.Voter {
			continue
		}
		voters++
		if member.Reachable && member.Node != node.ID {
			answer++
		}
	}
	if node.Role != swarm.RoleManager || answer >= voters/2+1 {
		return ""
	}
	return fmt.Sprintf("%s is needed for the quorum: the cluster takes no writes until its daemon is back", nodeName(node))
}

// await waits until the node's daemon is the new build and does all that it
// did.
func (u *upgrade) await(ctx context.Context, c upgradable) error {
	late := time.NewTimer(upgradePatience)
	defer late.Stop()
	tick := time.NewTicker(upgradeLook)
	defer tick.Stop()
	missing := errors.New("it was not asked yet")
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return fmt.Errorf("upgrade: %s is not back as %s within %s: %w; the others stay as they are; its log says more: journalctl -u gitswarm; the way back, on it: mv %s %s && systemctl restart gitswarm",
				nodeName(c.node), c.answer.Version, upgradePatience, missing, c.answer.Own+".previous", c.answer.Own)
		case <-tick.C:
		}
		if missing = u.missing(ctx, c); missing == nil {
			return nil
		}
		if u.look().leader != u.self {
			return api.ErrGoOn
		}
	}
}

// missing says what a node that was upgraded does not do yet.
func (u *upgrade) missing(ctx context.Context, c upgradable) error {
	answer, err := u.ask(ctx, c.node, false)
	switch {
	case err != nil:
		return err
	case answer.Refused != "":
		return errors.New(answer.Refused)
	case answer.Running != c.answer.Digest:
		return errors.New("its daemon is the old build still")
	}
	sight := u.look()
	for _, node := range sight.nodes {
		if node.ID == c.node.ID && node.State != swarm.NodeReady {
			return fmt.Errorf("it is %s", node.State)
		}
	}
	for _, member := range sight.members {
		if member.Node == c.node.ID && !member.Reachable {
			return errors.New("its manager does not answer")
		}
	}
	return nil
}
