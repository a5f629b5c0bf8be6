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

// Authority returns the roots that are trusted.
func (a Admission) Authority(context.Context) ([]byte, error) {
	cluster, known := a.Store.View().Cluster()
	if !known {
		return nil, errNoCluster
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
	chain, err := a.issue(ctx, cluster, node, known, r.CSR)
	if err != nil {
		return wire.Joined{}, err
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
	chain, err := a.issue(ctx, cluster, node, true, csr)
	return wire.Renewed{Chain: chain, Trust: cluster.Authority.Trust, Managers: a.managers()}, err
}

// issue signs a node's key and notes by which authority, and the node itself
// if it is not known.
func (a Admission) issue(ctx context.Context, cluster swarm.Cluster, node swarm.Node, known bool, csr []byte) ([]byte, error) {
	peer := identity.Peer{Node: node.ID, Role: node.Role, Cluster: cluster.ID}
	chain, err := identity.Issue(cluster.Authority, csr, peer, cluster.Settings.CertExpiry, time.Now())
	if err != nil {
		return nil, err
	}
	if known {
		node = swarm.Node{ID: node.ID} // the rest is others' to write
	}
	node.Issuer = identity.IssuerOf(cluster.Authority)
	if _, err := a.Store.Propose(ctx, store.Command{At: time.Now().UTC(), PutNode: &node}); err != nil {
		return nil, fmt.Errorf("note the certificate: %w", err)
	}
	return chain, nil
}

func (a Admission) managers() []string {
	var addresses []string
	for _, member := range a.Store.Members() {
		addresses = append(addresses, member.Address)
	}
	return addresses
}

// Admit judges a peer whose certificate is valid: the cluster must still have
// the node, and a manager must be one still. A manager that has not caught up
// yet knows too little to turn anybody away.
func (a Admission) Admit(peer identity.Peer, _ string) error {
	view := a.Store.View()
	cluster, known := view.Cluster()
	if !known {
		return nil
	}
	if peer.Cluster != cluster.ID {
		return identity.ErrCluster
	}
	if _, known := view.Node(peer.Node); !known {
		return wire.ErrRemoved
	}
	return nil
}
