package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// errKept is of a demoted manager that has not been let go of: its certificate
// stays a manager's until then.
var errKept = errors.New("the node still keeps the cluster's log with the other managers: ask again once they have let go of it")

// Admission lets machines into the cluster and renews the certificates of its
// nodes. Every manager has one, whether it leads or not.
type Admission struct {
	Store *store.Store // required
	Log   *slog.Logger // required
}

// cluster returns the cluster as it is now: tokens that were rotated a moment
// ago let nobody in.
func (a Admission) cluster(ctx context.Context) (*store.View, swarm.Cluster, error) {
	if err := a.Store.Confirm(ctx); err != nil {
		return nil, swarm.Cluster{}, fmt.Errorf("ask the other managers: %w", err)
	}
	view := a.Store.View()
	cluster, known := view.Cluster()
	if !known {
		return nil, swarm.Cluster{}, errNoCluster
	}
	return view, cluster, nil
}

// Authority returns the roots that are trusted. It notes by which root the
// caller's certificate is, once the caller shows it: a node that was sent one
// may not have got it, and would be shut out if the old root went.
func (a Admission) Authority(ctx context.Context, caller identity.Peer) ([]byte, error) {
	view := a.Store.View()
	cluster, known := view.Cluster()
	if !known {
		return nil, errNoCluster
	}
	node, known := view.Node(caller.Node)
	if !known || node.Issuer == caller.Issuer {
		return cluster.Authority.Trust, nil
	}
	noted := swarm.Node{ID: node.ID, Issuer: caller.Issuer} // the rest is others' to write
	if _, err := a.Store.Propose(ctx, store.Command{At: time.Now().UTC(), PutNode: &noted}); err != nil {
		return nil, fmt.Errorf("note the certificate: %w", err)
	}
	return cluster.Authority.Trust, nil
}

// Join makes a node of a machine that has a token.
func (a Admission) Join(ctx context.Context, r wire.JoinRequest) (wire.Joined, error) {
	view, cluster, err := a.cluster(ctx)
	if err != nil {
		return wire.Joined{}, err
	}
	role := identity.RoleOf(cluster.Tokens, r.Token)
	if role == "" {
		return wire.Joined{}, wire.ErrBadToken
	}
	id, err := identity.NodeOf(r.CSR)
	if err != nil {
		return wire.Joined{}, err
	}
	node, known := view.Node(id)
	if !known {
		node = swarm.Node{ID: id, Role: role, Availability: availability(r.Availability), State: swarm.NodeUnknown, Description: r.Description}
	}
	chain, err := a.issue(cluster, node, r.CSR)
	if err != nil {
		return wire.Joined{}, err
	}
	if !known {
		node.Issuer = identity.IssuerOf(cluster.Authority)
		if _, err := a.Store.Propose(ctx, store.Command{At: time.Now().UTC(), PutNode: &node}); err != nil {
			return wire.Joined{}, fmt.Errorf("note the node: %w", err)
		}
	}
	a.Log.Info("node joined", "node", id, "role", node.Role, "hostname", r.Description.Hostname)
	return wire.Joined{
		Node: id, Cluster: cluster.ID, Role: node.Role, Chain: chain, Trust: cluster.Authority.Trust, Managers: a.managers(),
	}, nil
}

// availability is what a joiner asked for; anything but a known word is active.
func availability(asked swarm.Availability) swarm.Availability {
	switch asked {
	case swarm.NodePaused, swarm.NodeDrained:
		return asked
	}
	return swarm.NodeActive
}

// Renew signs a node's new key, in the role that the cluster gives it now. A
// manager becomes a worker once the others have let go of it: with the new
// certificate it stops to answer them, and two of them could not go on without.
func (a Admission) Renew(ctx context.Context, peer identity.Peer, csr []byte) (wire.Renewed, error) {
	view, cluster, err := a.cluster(ctx)
	if err != nil {
		return wire.Renewed{}, err
	}
	node, known := view.Node(peer.Node)
	if !known {
		return wire.Renewed{}, wire.ErrRemoved
	}
	if err := a.awaitRelease(ctx, node); err != nil {
		return wire.Renewed{}, err
	}
	chain, err := a.issue(cluster, node, csr)
	return wire.Renewed{Chain: chain, Trust: cluster.Authority.Trust, Managers: a.managers()}, err
}

// How long, and how often, a demoted manager's place in the log is looked at.
// It asks again if that was too short.
const (
	releaseWait = 2 * time.Second
	releaseLook = 20 * time.Millisecond
)

// awaitRelease waits a moment for a node that is to be a worker to leave the
// managers that keep the log.
func (a Admission) awaitRelease(ctx context.Context, node swarm.Node) error {
	for began := time.Now(); node.Role == swarm.RoleWorker && a.keepsLog(node.ID); {
		if time.Since(began) > releaseWait {
			return errKept
		}
		select {
		case <-time.After(releaseLook):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// keepsLog reports whether a node is among the managers that keep the log,
// whatever its role is to be.
func (a Admission) keepsLog(id swarm.NodeID) bool {
	return slices.ContainsFunc(a.Store.Members(), func(m store.Member) bool { return m.Node == id })
}

// issue signs a node's key.
func (a Admission) issue(cluster swarm.Cluster, node swarm.Node, csr []byte) ([]byte, error) {
	peer := identity.Peer{Node: node.ID, Role: node.Role, Cluster: cluster.ID}
	return identity.Issue(cluster.Authority, csr, peer, cluster.Settings.CertExpiry, time.Now())
}

func (a Admission) managers() []string {
	var addresses []string
	for _, member := range a.Store.Members() {
		addresses = append(addresses, member.Address)
	}
	return addresses
}

// Admit judges a peer whose certificate is valid: the cluster must not have
// removed the node, and what managers say to each other is for those who are
// one still. One that was demoted is, until the others have let go of it: it
// may have to hand over first.
//
// A manager that is behind may not know a node yet, or not that it leads by
// now, and would never catch up if it turned that one away: so it goes by a
// removal, which is for good, and by roles only while it hears of the leader.
func (a Admission) Admit(peer identity.Peer, protocol string) error {
	view := a.Store.View()
	cluster, known := view.Cluster()
	if !known {
		return nil
	}
	if peer.Cluster != cluster.ID {
		return identity.ErrCluster
	}
	node, known := view.Node(peer.Node)
	switch {
	case view.Removed(peer.Node):
		return wire.ErrRemoved
	case protocol != identity.ProtocolWire && known && node.Role == swarm.RoleWorker && !a.keepsLog(node.ID) && a.hearsLeader():
		return identity.ErrRole
	}
	return nil
}

// hearsLeader reports whether this manager's state is as new as the leader's,
// but for moments.
func (a Admission) hearsLeader() bool { return time.Since(a.Store.LastContact()) < leaderHeard }

const leaderHeard = time.Second
