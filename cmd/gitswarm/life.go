package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/restore"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/nodeagent"
	"github.com/gitswarm/gitswarm/swarm"
)

// daemon is this machine's part of a cluster. What it is there changes while
// it runs: it begins a cluster or joins one, is promoted and demoted, leaves.
// The loops in run follow.
type daemon struct {
	config    daemonConfig
	door      *api.Door
	successor *successor
	restart   func()     // stops the daemon for the build that was installed
	turn      sync.Mutex // held by whoever changes what this machine is

	mu      sync.Mutex
	now     membership
	running *managing        // the manager, while one runs
	agent   *nodeagent.Agent // while one runs
	cleared chan error       // Leave waits for it
	changed chan struct{}    // closed, and made anew, when any of these changes
}

// membership is what this machine is. It is replaced, never changed.
type membership struct {
	self    *identity.Node // nil in no cluster, or while locked
	place   place
	keyring *seal.Keyring // of a manager that is not locked
	locked  bool
	left    bool // containers and networks are to go, then the rest
	paused  bool // no manager runs although this machine is one
}

func (m membership) manages() bool {
	return m.self != nil && m.keyring != nil && m.self.Peer().Role == swarm.RoleManager
}

// node is this machine's id in the cluster, or empty.
func (m membership) node() swarm.NodeID {
	if m.self == nil {
		return ""
	}
	return m.self.Peer().Node
}

// runDaemon runs this machine's part of a cluster until ctx ends or a part of
// it fails. Where another build was installed meanwhile, this process becomes
// that build, with the same arguments, once all has stopped.
func runDaemon(ctx context.Context, config daemonConfig) error {
	next, err := newSuccessor(config.Log)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err = live(ctx, config, next, func() { next.stopWithin(restartGrace, stop) })
	if !errors.Is(context.Cause(ctx), errRestart) {
		return err
	}
	if err != nil {
		config.Log.Warn("daemon did not stop well", "err", err)
	}
	return next.takeOver()
}

// live is runDaemon's one build. Manager and agent meet on sockets only.
func live(ctx context.Context, config daemonConfig, next *successor, restart func()) error {
	unlock, err := config.lock()
	if err != nil {
		return err
	}
	defer unlock()
	d := &daemon{config: config, successor: next, restart: restart, changed: make(chan struct{})}
	if d.now, err = d.remember(); err != nil {
		return err
	}
	d.door = api.NewDoor(d.apart())
	listener, err := api.Listen(config.socket())
	if err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.answer(ctx, listener) })
	group.Go(func() error { return d.keepManager(ctx) })
	group.Go(func() error { return d.keepAgent(ctx) })
	config.Log.Info("daemon started", "build", buildVersion().Build, "socket", config.socket())
	return group.Wait()
}

// startPatience is how long a machine whose manager starts lets people wait for
// an answer, rather than tell them that it starts.
const startPatience = 10 * time.Second

// answer serves this machine's socket.
func (d *daemon) answer(ctx context.Context, listener net.Listener) error {
	if now, _ := d.membership(); now.manages() {
		starting, cancel := context.WithTimeout(ctx, startPatience)
		_, _ = d.awaitManager(starting) // what keeps it is said by whoever answers then
		cancel()
	}
	return d.door.Serve(ctx, listener)
}

// The files of a machine that is in a cluster.
func (c daemonConfig) identityDir() string  { return filepath.Join(c.DataDir, "identity") }
func (c daemonConfig) placeFile() string    { return filepath.Join(c.DataDir, "place.json") }
func (c daemonConfig) keysFile() string     { return filepath.Join(c.DataDir, "keys") }
func (c daemonConfig) raftDir() string      { return filepath.Join(c.DataDir, "raft") }
func (c daemonConfig) blobsDir() string     { return filepath.Join(c.DataDir, "blobs") }
func (c daemonConfig) foundingFile() string { return filepath.Join(c.DataDir, "founding") }
func (c daemonConfig) leavingFile() string  { return filepath.Join(c.DataDir, "leaving") }

// remember reads what this machine was when its daemon ended.
func (d *daemon) remember() (now membership, err error) {
	if _, err := restore.Resume(d.config.DataDir); err != nil {
		return now, err
	}
	if _, err := os.Stat(d.config.leavingFile()); err == nil {
		if err := d.config.forget(); err != nil {
			return now, err
		}
	}
	if now.place, err = d.config.keptPlace(); err != nil {
		return now, err
	}
	if now.keyring, err = seal.Open(d.config.keysFile(), nil); errors.Is(err, seal.ErrLocked) {
		now.locked = true
		return now, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return now, err
	}
	return d.belong(now.place, now.keyring)
}

// keptPlace is where this node is; one that has not been anywhere yet is where
// the flags say.
func (c daemonConfig) keptPlace() (place, error) {
	kept, found, err := readPlace(c.placeFile())
	if err != nil || !found {
		return c.place(), err
	}
	moved, changed, err := kept.moved(c.place())
	if err != nil || !changed {
		return kept, err
	}
	c.Log.Info("moved", "listen", moved.Listen, "advertise", moved.Advertise, "was", kept.Advertise)
	return moved, moved.save(c.placeFile())
}

// belong reads this machine's identity. A manager that has none, because its
// build knew no other machines or a restore was cut short, gets one; a machine
// that keeps nothing of a cluster is in none.
func (d *daemon) belong(place place, keyring *seal.Keyring) (membership, error) {
	self, err := identity.OpenSealed(d.config.identityDir(), vault(keyring))
	if err == nil {
		return d.fit(membership{self: self, place: place, keyring: keyring})
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return membership{}, err
	}
	if _, err := os.Stat(d.config.raftDir()); err != nil {
		return membership{}, d.config.removeManager() // of an init that was cut short
	}
	if keyring == nil {
		return membership{}, fmt.Errorf("read identity: %s is there, but not its keys: restore %s from a backup, or give up what is here: gitswarm leave --force",
			d.config.raftDir(), d.config.keysFile())
	}
	flags := d.config.place()
	place.Flags = &flags
	node, err := d.config.nodeID()
	if err == nil {
		place, err = place.settle("")
	}
	if err != nil {
		return membership{}, err
	}
	cluster, known, err := store.ClusterIn(store.Config{Dir: d.config.raftDir(), Node: node, Keyring: keyring})
	switch {
	case err != nil:
		return membership{}, err
	case !known:
		return d.found(place, cluster.ID, swarm.ClusterSettings{})
	}
	return d.enlist(place, keyring, cluster, node)
}

// fit gives this machine what goes with its role: a crash during its promotion
// or demotion may have been between the certificate and the keys.
func (d *daemon) fit(now membership) (membership, error) {
	role := now.self.Peer().Role
	if (role == swarm.RoleManager) == (now.keyring != nil) {
		return now, nil
	}
	err := d.takeRole(&now, role)
	return now, err
}

// vault is a keyring as the identity sees it; no keyring is no vault.
func vault(keyring *seal.Keyring) identity.Vault {
	if keyring == nil {
		return nil
	}
	return keyring
}

// membership returns what this machine is, and a channel that is closed when
// that changes.
func (d *daemon) membership() (membership, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now, d.changed
}

func (d *daemon) become(now membership) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = now
	close(d.changed)
	d.changed = make(chan struct{})
}

// follow runs a part of the daemon until ctx ends, and begins it anew whenever
// this machine becomes something else by the part's measure. A part blocks
// until its ctx ends.
func follow[K comparable](ctx context.Context, d *daemon, measure func(membership) K, part func(context.Context, membership) error) error {
	for ctx.Err() == nil {
		now, _ := d.membership()
		running, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- part(running, now) }()

		if err := outlast(running, d, measure(now), measure, ended); err != nil {
			stop()
			return err
		}
		stop()
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}

// outlast waits until this machine is something else, ctx ends, or the part
// fails.
func outlast[K comparable](ctx context.Context, d *daemon, was K, measure func(membership) K, ended chan error) error {
	for {
		now, changed := d.membership()
		if measure(now) != was {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		case err := <-ended:
			ended <- nil
			return err
		}
	}
}
