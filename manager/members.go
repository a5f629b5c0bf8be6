package manager

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	memberEvery = time.Second      // how often a manager that does not answer is asked again
	memberGrace = 10 * time.Second // for one manager to catch up with the log
)

// keepMembers makes the managers of the log those whose nodes have the role:
// a node that is to be a manager becomes a voter once its manager answers, and
// one that is not any more leaves. It also ends rotations of the authority.
func (m *Manager) keepMembers(ctx context.Context) error {
	touched := m.store.Subscribe()
	defer touched.Close()
	tick := time.NewTicker(memberEvery)
	defer tick.Stop()
	said := "" // the last complaint: a manager that is away is worth one line
	for {
		_, changed := touched.Take()
		err := errors.Join(m.matchMembers(ctx), m.finishRotation(ctx))
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrNotLeader):
			return err
		case err != nil && err.Error() != said:
			said = err.Error()
			m.log.Warn("managers are not yet as wanted; it is tried again", "err", err)
		case err == nil:
			said = ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}

// matchMembers does what there is to do. What fails keeps nothing else from
// being done: a new manager that nobody reaches must not hold an old one.
func (m *Manager) matchMembers(ctx context.Context) error {
	tried := make(map[swarm.NodeID]bool)
	var failed []error
	for ctx.Err() == nil {
		members := m.store.Members()
		change := memberChange(m.store.View().Nodes(), members, m.config.Node, tried)
		if change == (membership{}) {
			break
		}
		err := m.changeMembers(ctx, change, members)
		if errors.Is(err, store.ErrNotLeader) {
			return err
		}
		failed = append(failed, err)
		tried[change.node()] = true
	}
	return errors.Join(failed...)
}

// changeMembers takes one step.
func (m *Manager) changeMembers(ctx context.Context, change membership, members []store.Member) error {
	ctx, cancel := context.WithTimeout(ctx, memberGrace)
	defer cancel()
	switch {
	case change.add.Node != "":
		if !slices.ContainsFunc(members, func(member store.Member) bool { return member.Node == change.add.Node }) {
			m.log.Info("manager is being added", "node", change.add.Node, "address", change.add.Address)
		}
		return m.store.Add(ctx, change.add)
	case change.remove == m.config.Node: // whoever leads next removes this one
		return m.store.HandOver(ctx, change.heir)
	}
	m.log.Info("manager is being removed", "node", change.remove)
	return m.store.Remove(ctx, change.remove)
}

// A change of the log's members: exactly one of add and remove is set, if
// there is one.
type membership struct {
	add    store.Member
	remove swarm.NodeID
	heir   swarm.NodeID // leads where the leader itself is to leave
}

// node is the manager that comes or goes.
func (c membership) node() swarm.NodeID { return cmp.Or(c.add.Node, c.remove) }

// memberChange returns what to do next so that the members are the nodes that
// have the role, apart from what was tried just now. Managers come before
// others go, so that the log never has fewer voters than it must; the leader
// goes last, and only where another one answers that can take its place.
func memberChange(nodes []swarm.Node, members []store.Member, leader swarm.NodeID, tried map[swarm.NodeID]bool) membership {
	wanted := make(map[swarm.NodeID]string) // to address
	for _, node := range nodes {
		if node.Role == swarm.RoleManager {
			wanted[node.ID] = node.Description.Address
		}
	}
	there := make(map[swarm.NodeID]store.Member)
	for _, member := range members {
		there[member.Node] = member
	}

	for _, node := range nodes {
		address, member := wanted[node.ID], there[node.ID]
		ready := node.State == swarm.NodeReady || node.State == swarm.NodeUnknown && !member.Voter // who has just joined was not seen yet
		complete := member.Voter && member.Address == address && member.Reachable                  // who is not may have lost its disk
		if ready && address != "" && node.ID != leader && !complete && !tried[node.ID] {
			return membership{add: store.Member{Node: node.ID, Address: address, Voter: true}}
		}
	}
	var heir swarm.NodeID
	leaves := false
	for _, member := range members {
		_, stays := wanted[member.Node]
		switch {
		case stays && member.Voter && member.Reachable && member.Node != leader && heir == "":
			heir = member.Node
		case !stays && member.Node == leader:
			leaves = !tried[leader]
		case !stays && !tried[member.Node]:
			return membership{remove: member.Node}
		}
	}
	if leaves && heir != "" {
		return membership{remove: leader, heir: heir}
	}
	return membership{}
}
