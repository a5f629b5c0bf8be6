package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager"
	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/backup"
	"github.com/gitswarm/gitswarm/manager/restore"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// enterPatience is how long a machine that begins a cluster, joins one or is
// unlocked has to be what it became.
const enterPatience = 30 * time.Second

// agentPatience is how long a cluster's first machine has to be listed as its
// node, so that the next command finds it.
const agentPatience = 5 * time.Second

// Standing is what this machine is.
func (d *daemon) Standing() api.Standing {
	now, _ := d.membership()
	s := api.Standing{Membership: api.InNone, Node: now.node(), Managers: now.place.Managers}
	switch {
	case now.locked:
		s.Membership = api.IsLocked
	case now.self == nil || now.left:
	case !now.manages():
		s.Membership = api.IsWorker
	case d.manager() == nil:
		s.Membership, s.Why = api.IsJoining, "its manager is starting"
	default:
		s.Membership = api.IsManager
	}
	if now.self != nil {
		s.Cluster = now.self.Peer().Cluster
	}
	return s
}

// place is what the daemon's flags say of where this node is.
func (c daemonConfig) place() place {
	return place{Listen: c.Listen, Advertise: c.Advertise, DataPath: c.DataPath}
}

// placed lets a request's addresses go before the flags'. Without any, other
// nodes are told the address of the route toward one of them.
func (d *daemon) placed(a api.Addresses, toward string) (place, error) {
	p, flags := d.config.place(), d.config.place()
	p.Flags = &flags
	if a.Listen != "" {
		p.Listen = a.Listen
	}
	if a.Advertise != "" {
		p.Advertise = a.Advertise
	}
	if a.DataPath != "" {
		p.DataPath = a.DataPath
	}
	return p.settle(toward)
}

// outside refuses what only a machine in no cluster may do. What an attempt
// left behind that did not get far goes: it is of another cluster.
func (d *daemon) outside() error {
	now, _ := d.membership()
	switch {
	case now.locked:
		return api.Conflict("this machine is a locked manager", "gitswarm unlock")
	case now.self != nil:
		return api.Conflict("this machine is in a cluster already", "gitswarm status shows it; gitswarm leave lets go of it")
	}
	return d.config.removeManager()
}

// Begin makes this machine the first manager of a new cluster.
func (d *daemon) Begin(ctx context.Context, b api.Beginning, _ string) (api.Begun, error) {
	d.turn.Lock()
	defer d.turn.Unlock()
	if b.ForceNew {
		return d.forceNew(ctx)
	}
	if err := d.outside(); err != nil {
		return api.Begun{}, err
	}
	if err := manager.CheckSettings(b.Settings); err != nil {
		return api.Begun{}, fmt.Errorf("begin a cluster: %w", err)
	}
	place, err := d.placed(b.Addresses, "")
	if err != nil {
		return api.Begun{}, fmt.Errorf("begin a cluster: %w", err)
	}
	now, err := d.found(place, "", b.Settings)
	if err != nil {
		return api.Begun{}, fmt.Errorf("begin a cluster: %w", err)
	}
	d.become(now)
	return d.begun(ctx, b.Autolock)
}

// begun waits until the cluster's first manager leads.
func (d *daemon) begun(ctx context.Context, autolock bool) (api.Begun, error) {
	ctx, cancel := context.WithTimeout(ctx, enterPatience)
	defer cancel()
	running, err := d.awaitManager(ctx)
	if err != nil {
		return api.Begun{}, err
	}
	cluster, err := running.awaitCluster(ctx)
	if err != nil {
		return api.Begun{}, err
	}
	now, _ := d.membership()
	begun := api.Begun{Cluster: cluster.ID, Node: now.node(), Address: running.address}
	if autolock {
		on := true
		begun.UnlockKey, err = running.leader.Configure(ctx, api.Change{Autolock: &on}, "")
	}
	listed, stop := context.WithTimeout(ctx, agentPatience)
	defer stop()
	_ = running.await(listed, func(view *store.View) bool { // a machine whose agent can't start has a cluster all the same
		_, known := view.Node(now.node())
		return known
	})
	return begun, err
}

// Join makes this machine a member of a cluster: what it becomes is the
// token's to say.
func (d *daemon) Join(ctx context.Context, j api.Joining, _ string) error {
	d.turn.Lock()
	defer d.turn.Unlock()
	if err := d.outside(); err != nil {
		return err
	}
	now, err := d.join(ctx, j)
	if err != nil {
		return fmt.Errorf("join a cluster: %w", err)
	}
	d.become(now)

	ctx, cancel := context.WithTimeout(ctx, enterPatience)
	defer cancel()
	return d.awaitMember(ctx)
}

func (d *daemon) join(ctx context.Context, j api.Joining) (membership, error) {
	token, err := identity.ParseToken(j.Token)
	if err != nil {
		return membership{}, err
	}
	first, err := managerAddress(j.Manager)
	if err != nil {
		return membership{}, err
	}
	place, err := d.placed(j.Addresses, first)
	if err != nil {
		return membership{}, err
	}
	key, csr, err := identity.NewRequest()
	if err != nil {
		return membership{}, err
	}
	description := describe(nil, d.config.Offer)
	description.Address, description.DataPath = place.Advertise, place.dataPath()
	answer, err := wire.Join(ctx, first, token, wire.JoinRequest{CSR: csr, Description: description, Availability: j.Availability})
	if err != nil {
		return membership{}, err
	}
	place.Managers = append([]string{first}, slices.DeleteFunc(answer.Managers, func(m string) bool { return m == first })...)

	var keyring *seal.Keyring
	if answer.Role == swarm.RoleManager {
		if keyring, err = openKeyring(d.config.keysFile()); err != nil {
			return membership{}, err
		}
	}
	return d.settleIn(place, keyring, key, answer.Chain, answer.Trust)
}

// awaitMember waits until this machine's manager knows the cluster, where it
// has one. A worker's agent needs no waiting for.
func (d *daemon) awaitMember(ctx context.Context) error {
	if now, _ := d.membership(); !now.manages() {
		return nil
	}
	m, err := d.awaitManager(ctx)
	if err == nil {
		_, err = m.awaitCluster(ctx)
	}
	return err
}

// forceNew makes this manager the only one of its cluster. The others' loss
// must be for good: see docs/recovery.md.
func (d *daemon) forceNew(ctx context.Context) (api.Begun, error) {
	now, _ := d.membership()
	if !now.manages() {
		return api.Begun{}, api.Conflict("only a manager that runs has a cluster's state to go on with", "gitswarm init without --force-new-cluster begins an empty one")
	}
	stopped := now
	stopped.paused = true
	d.become(stopped)
	err := d.awaitNoManager(ctx)
	if err == nil {
		err = store.Recover(store.Config{Dir: d.config.raftDir(), Node: now.node(), Keyring: now.keyring, Log: d.config.Log}, time.Now())
	}
	d.become(now)
	if err != nil {
		return api.Begun{}, fmt.Errorf("go on with this manager alone: %w", err)
	}
	return d.begun(ctx, false)
}

// Restore begins a cluster again from a backup.
func (d *daemon) Restore(ctx context.Context, r api.Restoring, _ string) (api.Begun, error) {
	d.turn.Lock()
	defer d.turn.Unlock()
	if err := d.outside(); err != nil {
		return api.Begun{}, err
	}
	now, err := d.restore(ctx, r)
	if err != nil {
		return api.Begun{}, fmt.Errorf("restore a cluster: %w", err)
	}
	d.become(now)
	return d.begun(ctx, false)
}

func (d *daemon) restore(ctx context.Context, r api.Restoring) (membership, error) {
	key, err := backup.ParseKey(r.Key)
	if err != nil {
		return membership{}, err
	}
	place, err := d.placed(r.Addresses, "")
	if err != nil {
		return membership{}, err
	}
	node, err := d.config.nodeID()
	if err != nil {
		return membership{}, err
	}
	restored, err := restore.Backup(ctx, r.Backup, key, restore.Place{Dir: d.config.DataDir, Node: node, Now: time.Now()})
	if err != nil {
		return membership{}, err
	}
	keyring, err := seal.Open(d.config.keysFile(), restored.State.UnlockKey)
	if err != nil {
		return membership{}, err
	}
	return d.enlist(place, keyring, restored.State, node)
}

// Unlock opens a locked manager's keys.
func (d *daemon) Unlock(ctx context.Context, text, _ string) error {
	d.turn.Lock()
	defer d.turn.Unlock()
	key, err := seal.ParseUnlockKey(text)
	if err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	now, _ := d.membership()
	keyring, err := seal.Open(d.config.keysFile(), key)
	if err != nil {
		return fmt.Errorf("unlock: %w (if the key was rotated while this manager was off, the one of that time opens it)", err)
	}
	if now, err = d.belong(now.place, keyring); err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	d.become(now)
	if !now.manages() { // it was demoted, and crashed before it had let go of its keys
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, enterPatience)
	defer cancel()
	_, err = d.awaitManager(ctx)
	return err
}

// renew gets a certificate of the role that the cluster gives this machine
// now, from any manager.
func (d *daemon) renew(ctx context.Context) error {
	d.turn.Lock()
	defer d.turn.Unlock()
	now, _ := d.membership()
	if now.self == nil {
		return nil
	}
	before := now.self.Peer().Role
	err := d.askManagers(now, func(address string) error {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		return wire.Renew(ctx, now.self, address)
	})
	if err != nil {
		return err
	}
	if role := now.self.Peer().Role; role != before {
		d.config.Log.Info("role changed", "from", before, "to", role)
		if err := d.takeRole(&now, role); err != nil {
			return err
		}
	}
	d.become(now)
	return nil
}

// askTime is how long one manager has to answer before the next is asked.
const askTime = 5 * time.Second

// askManagers asks one manager after the other, this machine's own first,
// until one has done it.
func (d *daemon) askManagers(now membership, ask func(address string) error) error {
	var errs []error
	for _, address := range d.managers(now) {
		err := ask(address)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, errors.New("no manager answered"))...)
}

// takeRole gives a manager its keys, or a worker none.
func (d *daemon) takeRole(now *membership, role string) (err error) {
	if role == swarm.RoleWorker {
		now.keyring = nil
		return now.self.Seal(nil) // what the manager kept goes once it has stopped: see keepManager
	}
	if now.keyring, err = openKeyring(d.config.keysFile()); err != nil {
		return err
	}
	return now.self.Seal(now.keyring)
}
