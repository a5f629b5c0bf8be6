package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// put changes a node as an operator does.
func (c *clerk) put(node swarm.NodeID, by string, change func(*swarm.Node)) error {
	found, ok := c.store.View().Node(node)
	if !ok {
		return store.ErrNotFound
	}
	change(&found)
	_, err := c.store.Propose(context.Background(), store.Command{At: time.Now(), By: by, PutNode: &found})
	return err
}

func (c *clerk) SetAvailability(_ context.Context, node swarm.NodeID, a swarm.Availability, by string) error {
	return c.put(node, by, func(n *swarm.Node) { n.Availability = a })
}

func (c *clerk) SetRole(_ context.Context, node swarm.NodeID, role, by string) error {
	if role == swarm.RoleWorker && node == worldNode {
		return api.Conflict("w1 is the last manager: the cluster would be without any", "promote another node first: gitswarm node promote NODE")
	}
	return c.put(node, by, func(n *swarm.Node) { n.Role = role })
}

func (c *clerk) Label(_ context.Context, node swarm.NodeID, set map[string]string, remove []string, by string) error {
	return c.put(node, by, func(n *swarm.Node) {
		labels := maps.Clone(n.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, set)
		for _, name := range remove {
			delete(labels, name)
		}
		n.Labels = labels
	})
}

func (c *clerk) RemoveNode(_ context.Context, node swarm.NodeID, force bool, by string) error {
	found, _ := c.store.View().Node(node)
	if found.State == swarm.NodeReady && !force {
		return api.Conflict(found.Description.Hostname+" is not down", "stop its daemon first, or give --force")
	}
	c.do(store.Command{By: by, RemoveNode: &node})
	return nil
}

func (c *clerk) PutToken(_ context.Context, token swarm.UserToken, by string) error {
	c.do(store.Command{By: by, PutToken: &token})
	return nil
}

func (c *clerk) DropToken(_ context.Context, id, by string) error {
	c.do(store.Command{By: by, DropToken: &id})
	return nil
}

func (c *clerk) JoinToken(_ context.Context, role string, rotate bool, by string) (string, error) {
	cluster, _ := c.store.View().Cluster()
	if rotate {
		cluster.Tokens.Worker += "0"
		c.do(store.Command{By: by, PutCluster: &cluster})
	}
	if role == swarm.RoleManager {
		return cluster.Tokens.Manager, nil
	}
	return cluster.Tokens.Worker, nil
}

func (c *clerk) UnlockKey(context.Context, bool, string) (string, error) {
	cluster, _ := c.store.View().Cluster()
	return string(cluster.UnlockKey), nil
}

func (c *clerk) RotateCA(context.Context, string) error { return nil }

func (c *clerk) Configure(_ context.Context, change api.Change, by string) (key string, err error) {
	cluster, _ := c.store.View().Cluster()
	if change.Autolock != nil && *change.Autolock {
		key = "GSKEY-1-made"
		cluster.UnlockKey = []byte(key)
	}
	if change.CertExpiry != nil {
		cluster.Settings.CertExpiry = *change.CertExpiry
	}
	_, err = c.store.Propose(context.Background(), store.Command{At: time.Now(), By: by, PutCluster: &cluster})
	return key, err
}

// Backup is the key, a line, and the ids of stacks.
func (c *clerk) Backup(_ context.Context, to io.Writer, key string) error {
	if strings.HasPrefix(key, "unlucky") {
		_, _ = io.WriteString(to, "half of ")
		return errors.New("back up: no space left on device")
	}
	_, err := fmt.Fprintf(to, "%s\nbackup", key)
	return err
}

func (c *clerk) Upgrade(_ context.Context, upgrading api.Upgrading, _ string, emit func(string) error) error {
	switch {
	case upgrading.Binary == "/skips":
		return api.Conflict("v0.5 skips v0.4", "upgrade to v0.4 first")
	case upgrading.Check:
		return emit("w1 would get v0.5")
	case !c.handedOver.Swap(true):
		return errors.Join(emit("w2 runs v0.5"), emit("w1 hands over"), api.ErrGoOn)
	}
	return errors.Join(emit("w2 runs v0.5"), emit("w1 runs v0.5"))
}

func (c *clerk) Rebalance(_ context.Context, stack swarm.StackName, _ string) ([]swarm.ServiceID, error) {
	if stack == "" {
		return nil, nil
	}
	return []swarm.ServiceID{swarm.NewServiceID(stack, "web")}, nil
}

// machine is the daemon's place in a world: scripts set it, and commands move
// it.
type machine struct {
	mu       sync.Mutex
	standing api.Standing
	asked    string // the last request, as text
}

func (m *machine) Standing() api.Standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.standing
}

func (m *machine) become(membership api.Membership, asked string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = asked
	m.standing = api.Standing{Membership: membership}
	if membership != api.InNone {
		m.standing.Cluster, m.standing.Node, m.standing.Managers = "c1", worldNode, []string{"10.0.0.1:2377"}
	}
}

func (m *machine) Begin(_ context.Context, b api.Beginning, _ string) (api.Begun, error) {
	m.become(api.IsManager, fmt.Sprintf("begin %s pool=%v expiry=%v new=%v", b.Advertise, b.Settings.AddressPool, b.Settings.CertExpiry, b.ForceNew))
	begun := api.Begun{Cluster: "c1", Node: worldNode, Address: b.Advertise + ":2377"}
	if b.Autolock {
		begun.UnlockKey = "GSKEY-1-begun"
	}
	return begun, nil
}

func (m *machine) Join(_ context.Context, j api.Joining, _ string) error {
	if j.Token != "GSTKN-1-good" {
		return api.Fail(403, "join "+j.Manager+": the token is not the cluster's", "gitswarm token worker shows it on a manager")
	}
	m.become(api.IsWorker, fmt.Sprintf("join %s %s", j.Manager, j.Availability))
	return nil
}

func (m *machine) Leave(_ context.Context, force bool, _ string) error {
	if m.Standing().Membership == api.IsManager && !force {
		return api.Conflict("this machine is a manager", "gitswarm node demote it first, or give --force")
	}
	m.become(api.InNone, "leave")
	return nil
}

func (m *machine) Unlock(_ context.Context, key, _ string) error {
	if key != "GSKEY-1-begun" {
		return api.Fail(403, "unlock: the key is wrong", "")
	}
	m.become(api.IsManager, "unlock")
	return nil
}

func (m *machine) Restore(_ context.Context, r api.Restoring, _ string) (api.Begun, error) {
	data, err := io.ReadAll(r.Backup)
	if err != nil {
		return api.Begun{}, err
	}
	key, content, _ := strings.Cut(string(data), "\n")
	if key != r.Key || content != "backup" {
		return api.Begun{}, api.Invalid("restore: the key does not fit, or the file is damaged", "")
	}
	m.become(api.IsManager, "restore "+r.Advertise)
	return api.Begun{Cluster: "c1", Node: worldNode, Address: r.Advertise + ":2377"}, nil
}
