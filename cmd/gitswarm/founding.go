package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/durable"
	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager"
	"github.com/gitswarm/gitswarm/swarm"
)

var foundingContext = []byte("gitswarm founding")

// found makes keys, an authority and this machine's certificate of it, and
// keeps them. The cluster is written into the log once this manager leads;
// until then it lies sealed beside it. An empty id asks for a random one.
func (d *daemon) found(place place, id string, settings swarm.ClusterSettings) (membership, error) {
	node, err := d.config.nodeID()
	if err != nil {
		return membership{}, err
	}
	keyring, err := openKeyring(d.config.keysFile())
	if err != nil {
		return membership{}, err
	}
	cluster, err := manager.Found(id, settings, keyring.ClusterKey(), time.Now())
	if err != nil {
		return membership{}, err
	}
	data, err := codec.Encode(cluster)
	if err == nil {
		data, err = keyring.Seal(data, foundingContext)
	}
	if err == nil {
		err = durable.WriteFile(d.config.foundingFile(), data)
	}
	if err != nil {
		return membership{}, fmt.Errorf("keep the new cluster: %w", err)
	}

	return d.enlist(place, keyring, cluster, node)
}

// enlist gives this machine a manager's certificate of a cluster whose
// authority it has.
func (d *daemon) enlist(place place, keyring *seal.Keyring, cluster swarm.Cluster, node swarm.NodeID) (membership, error) {
	key, csr, err := identity.NewRequest()
	if err != nil {
		return membership{}, err
	}
	peer := identity.Peer{Node: node, Role: swarm.RoleManager, Cluster: cluster.ID}
	chain, err := identity.Issue(cluster.Authority, csr, peer, cluster.Settings.CertExpiry, time.Now())
	if err != nil {
		return membership{}, err
	}
	return d.settleIn(place, keyring, key, chain, cluster.Authority.Trust)
}

// settleIn keeps what makes this machine a member.
func (d *daemon) settleIn(place place, keyring *seal.Keyring, key, chain, trust []byte) (membership, error) {
	if err := place.save(d.config.placeFile()); err != nil {
		return membership{}, err
	}
	self, err := identity.Create(d.config.identityDir(), key, chain, trust)
	if err == nil && keyring != nil {
		err = self.Seal(keyring)
	}
	if err != nil {
		return membership{}, err
	}
	return membership{self: self, place: place, keyring: keyring}, nil
}

// founding is the cluster that this machine began and whose log may not know
// it yet; nil if there is none.
func (c daemonConfig) founding(keyring *seal.Keyring) (*swarm.Cluster, error) {
	sealed, err := os.ReadFile(c.foundingFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the new cluster: %w", err)
	}
	data, err := keyring.Open(sealed, foundingContext)
	if err != nil {
		return nil, fmt.Errorf("read the new cluster: %w", err)
	}
	cluster := new(swarm.Cluster)
	return cluster, codec.DecodeStrict(data, cluster)
}
