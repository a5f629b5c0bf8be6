package manager

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/backup"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

var (
	errNoNode     = errors.New("there is no such node; see `gitswarm node ls`")
	errNoAutolock = errors.New("autolock is off: `gitswarm cluster set --autolock=true` turns it on")
	errNoCluster  = errors.New("the cluster has no authority yet: its first manager is still starting; try again in a moment")
)

// Found returns a cluster that has nothing but its authority, its tokens and
// the key that names its secrets. An empty id asks for a random one.
func Found(id string, settings swarm.ClusterSettings, secretName []byte, now time.Time) (swarm.Cluster, error) {
	cluster := swarm.Cluster{ID: cmp.Or(id, newClusterID()), Settings: settings, SecretName: secretName}
	var err error
	if cluster.Authority, err = identity.NewAuthority(cluster.ID, now); err != nil {
		return swarm.Cluster{}, fmt.Errorf("found a cluster: %w", err)
	}
	if cluster.Tokens.Worker, err = identity.NewToken(cluster.Authority); err == nil {
		cluster.Tokens.Manager, err = identity.NewToken(cluster.Authority)
	}
	if err != nil {
		return swarm.Cluster{}, fmt.Errorf("found a cluster: %w", err)
	}
	return cluster, nil
}

// newName is what the cluster is called if its log does not say yet.
func (m *Manager) newName() string {
	if m.config.Founding != nil {
		return m.config.Founding.ID
	}
	return newClusterID()
}

// found writes the cluster into a log that does not know it. This node is
// noted when its agent says hello, as every other.
func (m *Manager) found(ctx context.Context) error {
	if _, known := m.store.View().Cluster(); known || m.config.Founding == nil {
		return nil
	}
	return m.propose(ctx, store.Command{PutCluster: m.config.Founding})
}

// node returns the node of that id.
func (m *Manager) node(id swarm.NodeID) (swarm.Node, error) {
	node, known := m.store.View().Node(id)
	if !known {
		return swarm.Node{}, errNoNode
	}
	return node, nil
}

// SetAvailability says whether a node gets tasks (active), keeps what it has
// (paused), or gives them all away (drained).
func (m *Manager) SetAvailability(ctx context.Context, id swarm.NodeID, availability swarm.Availability, by string) error {
	node, err := m.node(id)
	if err != nil {
		return fmt.Errorf("make node %s %s: %w", id, availability, err)
	}
	if node.Availability == availability {
		return nil
	}
	return m.propose(ctx, store.Command{By: operator(by), PutNode: &swarm.Node{ID: id, Availability: availability}})
}

// SetRole makes a node a manager or a worker. It returns once that is agreed;
// the node follows by itself.
func (m *Manager) SetRole(ctx context.Context, id swarm.NodeID, role, by string) error {
	node, err := m.node(id)
	if err == nil && node.Role != role {
		err = m.mayTakeRole(node, role)
	}
	if err != nil {
		return fmt.Errorf("make node %s a %s: %w", id, role, err)
	}
	if node.Role == role {
		return nil
	}
	return m.propose(ctx, store.Command{By: operator(by), PutNode: &swarm.Node{ID: id, Role: role}})
}

func (m *Manager) mayTakeRole(node swarm.Node, role string) error {
	if role == swarm.RoleManager {
		if node.State != swarm.NodeReady {
			return fmt.Errorf("it is %s: start its daemon first", node.State)
		}
		if node.Description.Address == "" {
			return errors.New("it has not told an address that other managers could reach: start its daemon with --advertise")
		}
		return nil
	}
	return demotable(node.ID, m.store.View().Nodes(), m.store.Members())
}

// demotable refuses what would leave a cluster without managers, or without
// the majority that it needs for every write.
func demotable(id swarm.NodeID, nodes []swarm.Node, members []store.Member) error {
	stay, answer := 0, 0
	role := make(map[swarm.NodeID]string)
	for _, node := range nodes {
		role[node.ID] = node.Role
	}
	for _, member := range members {
		if member.Node == id || !member.Voter || role[member.Node] != swarm.RoleManager {
			continue
		}
		stay++
		if member.Reachable {
			answer++
		}
	}
	switch need := stay/2 + 1; {
	case stay == 0:
		return errors.New("it is the last manager: promote another node first")
	case answer < need:
		return fmt.Errorf("of the %d managers that would stay %d answer, and %d are needed for any write: bring them back first", stay, answer, need)
	}
	return nil
}

// Label sets and removes labels of a node.
func (m *Manager) Label(ctx context.Context, id swarm.NodeID, set map[string]string, remove []string, by string) error {
	node, err := m.node(id)
	if err != nil {
		return fmt.Errorf("label node %s: %w", id, err)
	}
	labels := maps.Clone(node.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	maps.Copy(labels, set)
	maps.DeleteFunc(labels, func(name, _ string) bool { return slices.Contains(remove, name) })
	if maps.Equal(labels, node.Labels) {
		return nil
	}
	return m.propose(ctx, store.Command{By: operator(by), PutNode: &swarm.Node{ID: id, Labels: labels}})
}

// RemoveNode forgets a node and what ran there. Its certificate is worth
// nothing afterwards. With force a worker may still be up.
func (m *Manager) RemoveNode(ctx context.Context, id swarm.NodeID, force bool, by string) error {
	node, err := m.node(id)
	switch {
	case err != nil:
	case node.Role == swarm.RoleManager:
		err = errors.New("it is a manager: `gitswarm node demote` it first")
	case node.State != swarm.NodeDown && !force:
		err = errors.New("it is up: run `gitswarm leave` on it, or give --force")
	}
	if err != nil {
		return fmt.Errorf("remove node %s: %w", id, err)
	}
	return m.propose(ctx, store.Command{By: by, RemoveNode: &id})
}

// alter changes the cluster's row, again if somebody else was faster.
func (m *Manager) alter(ctx context.Context, by string, change func(*swarm.Cluster) error) error {
	for {
		cluster, known := m.store.View().Cluster()
		if !known {
			return errNoCluster
		}
		if err := change(&cluster); err != nil {
			return err
		}
		err := m.propose(ctx, store.Command{By: by, PutCluster: &cluster})
		if !errors.Is(err, store.ErrStale) {
			return err
		}
	}
}

// JoinToken returns the token that lets nodes of a role in. With rotate the
// old one lets nobody in any more; who has joined stays.
func (m *Manager) JoinToken(ctx context.Context, role string, rotate bool, by string) (string, error) {
	if rotate {
		err := m.alter(ctx, by, func(c *swarm.Cluster) error {
			token, err := identity.NewToken(c.Authority)
			if role == swarm.RoleManager {
				c.Tokens.Manager = token
			} else {
				c.Tokens.Worker = token
			}
			return err
		})
		if err != nil {
			return "", fmt.Errorf("rotate the %s token: %w", role, err)
		}
	}
	cluster, known := m.store.View().Cluster()
	if !known {
		return "", fmt.Errorf("show the %s token: %w", role, errNoCluster)
	}
	if role == swarm.RoleManager {
		return cluster.Tokens.Manager, nil
	}
	return cluster.Tokens.Worker, nil
}

// Configure changes the cluster's settings. Where it turns autolock on, it
// returns the key that managers are unlocked with from then on.
func (m *Manager) Configure(ctx context.Context, change api.Change, by string) (unlockKey string, err error) {
	err = m.alter(ctx, by, func(c *swarm.Cluster) error {
		settings, err := changed(c.Settings, change)
		c.Settings = settings
		switch {
		case change.Autolock == nil:
		case !*change.Autolock:
			c.UnlockKey = nil
		case c.UnlockKey == nil:
			c.UnlockKey = newUnlockKey()
			unlockKey = seal.FormatUnlockKey(c.UnlockKey)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("change the cluster's settings: %w", err)
	}
	return unlockKey, nil
}

// Bounds of settings: beyond them a cluster would harm itself.
const (
	minHeartbeat, maxHeartbeat = 100 * time.Millisecond, 10 * time.Second
	maxTaskHistory             = 100
	minSnapshotInterval        = 64
)

func changed(s swarm.ClusterSettings, change api.Change) (swarm.ClusterSettings, error) {
	if v := change.CertExpiry; v != nil {
		s.CertExpiry = *v
	}
	if v := change.TaskHistory; v != nil {
		s.TaskHistory = *v
	}
	if v := change.SnapshotInterval; v != nil {
		s.SnapshotInterval = *v
	}
	if v := change.Heartbeat; v != nil {
		s.Heartbeat = *v
	}
	return s, CheckSettings(s)
}

// CheckSettings refuses settings that a cluster could not live with. Zero is
// each one's default.
func CheckSettings(s swarm.ClusterSettings) error {
	switch {
	case s.CertExpiry != 0 && s.CertExpiry < identity.MinLife:
		return fmt.Errorf("certificates of %s would be renewed all the time: %s at least", s.CertExpiry, identity.MinLife)
	case s.TaskHistory < 0 || s.TaskHistory > maxTaskHistory:
		return fmt.Errorf("a task history of %d is not between 0 and %d", s.TaskHistory, maxTaskHistory)
	case s.SnapshotInterval != 0 && s.SnapshotInterval < minSnapshotInterval:
		return fmt.Errorf("a snapshot each %d entries: %d at least", s.SnapshotInterval, minSnapshotInterval)
	case s.Heartbeat != 0 && (s.Heartbeat < minHeartbeat || s.Heartbeat > maxHeartbeat):
		return fmt.Errorf("a heartbeat of %s is not between %s and %s", s.Heartbeat, minHeartbeat, maxHeartbeat)
	}
	return nil
}

// UnlockKey returns the key that managers are unlocked with, empty where
// autolock is off; with rotate a new one.
func (m *Manager) UnlockKey(ctx context.Context, rotate bool, by string) (string, error) {
	if rotate {
		err := m.alter(ctx, by, func(c *swarm.Cluster) error {
			if c.UnlockKey == nil {
				return errNoAutolock
			}
			c.UnlockKey = newUnlockKey()
			return nil
		})
		if err != nil {
			return "", fmt.Errorf("rotate the unlock key: %w", err)
		}
	}
	cluster, known := m.store.View().Cluster()
	if !known {
		return "", fmt.Errorf("show the unlock key: %w", errNoCluster)
	}
	if cluster.UnlockKey == nil {
		return "", fmt.Errorf("show the unlock key: %w", errNoAutolock)
	}
	return seal.FormatUnlockKey(cluster.UnlockKey), nil
}

func newUnlockKey() []byte {
	key := make([]byte, seal.UnlockKeySize)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the program instead
	return key
}

// RotateCA makes a new authority. The old root stays trusted until every node
// has a certificate of the new one.
func (m *Manager) RotateCA(ctx context.Context, by string) error {
	err := m.alter(ctx, by, func(c *swarm.Cluster) (err error) {
		c.Authority, err = identity.Rotate(c.Authority, c.ID, m.now())
		return err
	})
	if err != nil {
		return fmt.Errorf("rotate the authority: %w", err)
	}
	return nil
}

// finishRotation drops the old root once no node needs it any more.
func (m *Manager) finishRotation(ctx context.Context) error {
	view := m.store.View()
	cluster, known := view.Cluster()
	if !known || !identity.Rotating(cluster.Authority) {
		return nil
	}
	issuer := identity.IssuerOf(cluster.Authority)
	for _, node := range view.Nodes() {
		if node.Issuer != issuer {
			return nil
		}
	}
	return m.alter(ctx, "", func(c *swarm.Cluster) (err error) {
		if identity.IssuerOf(c.Authority) != issuer {
			return nil // it was rotated once more
		}
		c.Authority = identity.Finish(c.Authority)
		if c.Tokens.Worker, err = identity.Repin(c.Tokens.Worker, c.Authority); err == nil {
			c.Tokens.Manager, err = identity.Repin(c.Tokens.Manager, c.Authority)
		}
		return err
	})
}

// PutToken lets a user in by a token.
func (m *Manager) PutToken(ctx context.Context, token swarm.UserToken, by string) error {
	return m.propose(ctx, store.Command{By: by, PutToken: &token})
}

// DropToken voids a user's token.
func (m *Manager) DropToken(ctx context.Context, id, by string) error {
	return m.propose(ctx, store.Command{By: by, DropToken: &id})
}

// operator is who asked, for the log: a person even where nobody knows whom.
func operator(by string) string { return cmp.Or(by, "an operator") }

// Backup writes the cluster, sealed by a key, to to.
func (m *Manager) Backup(ctx context.Context, to io.Writer, key string) error {
	parsed, err := backup.ParseKey(key)
	if err != nil {
		return err
	}
	cluster, known := m.store.View().Cluster()
	if !known {
		return fmt.Errorf("write backup: %w", errNoCluster)
	}
	_, err = backup.Write(ctx, to, parsed, backup.Content{
		Cluster: cluster, State: m.store, Blobs: m.blobs, Naming: cluster.SecretName,
		Named: func(ctx context.Context) ([]swarm.Digest, error) {
			live, err := m.liveBlobs(ctx, m.store.View())
			return slices.Sorted(maps.Keys(live)), err
		},
	}, m.now())
	return err
}
