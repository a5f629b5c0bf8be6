package manager

import (
	"context"
	"errors"
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

// matchMembers takes one step.
func (m *Manager) matchMembers(ctx context.Context) error {
	change := memberChange(m.store.View().Nodes(), m.store.Members(), m.config.Node)
	ctx, cancel := context.WithTimeout(ctx, memberGrace)
	defer cancel()
	switch {
	case change.add.Node != "":
		m.log.Info("manager is being added", "node", change.add.Node, "address", change.add.Address)
		return m.store.Add(ctx, change.add)
	case change.remove == m.config.Node: // whoever leads next removes this one
		return m.store.HandOver(ctx, change.heir)
	case change.remove != "":
		m.log.Info("manager is being removed", "node", change.remove)
		return m.store.Remove(ctx, change.remove)
	}
	return nil
}

// A change of the log's members: at most one of add and remove is set.
type membership struct {
	add    store.Member
	remove swarm.NodeID
	heir   swarm.NodeID // leads where the leader itself is to leave
}

// memberChange returns what to do next so that the members are the nodes that
// have the role. Managers come before others go, so that the log never has
// fewer voters than it must; the leader goes last.
func memberChange(nodes []swarm.Node, members []store.Member, leader swarm.NodeID) membership {
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
		if ready && address != "" && node.ID != leader && !complete {
			return membership{add: store.Member{Node: node.ID, Address: address, Voter: true}}
		}
	}
	var heir swarm.NodeID
	leaves := false
	for _, member := range members {
		_, stays := wanted[member.Node]
		switch {
		case stays && member.Voter && member.Node != leader && heir == "":
			heir = member.Node
		case !stays && member.Node == leader:
			leaves = true
		case !stays:
			return membership{remove: member.Node}
		}
	}
	if leaves && heir != "" {
		return membership{remove: leader, heir: heir}
	}
	return membership{}
}
