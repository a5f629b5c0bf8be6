package manager

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

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

// Renew signs a node's new key, in the role that the cluster gives it now.
func (a Admission) Renew(ctx context.Context, peer identity.Peer, csr []byte) (wire.Renewed, error) {
	view, cluster, err := a.cluster(ctx)
	if err != nil {
		return wire.Renewed{}, err
	}
	node, known := view.Node(peer.Node)
	if !known {
		return wire.Renewed{}, wire.ErrRemoved
	}
	chain, err := a.issue(cluster, node, csr)
	return wire.Renewed{Chain: chain, Trust: cluster.Authority.Trust, Managers: a.managers()}, err
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

// Admit judges a peer whose certificate is valid: the cluster must still have
// the node, and what managers say to each other is for those who are one still.
// A manager that has not caught up yet knows too little to turn anybody away.
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
	case !known:
		return wire.ErrRemoved
	case protocol != identity.ProtocolWire && node.Role == swarm.RoleWorker:
		return identity.ErrRole
	}
	return nil
}
