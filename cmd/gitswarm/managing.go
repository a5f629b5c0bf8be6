package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/gitsync/compose"
	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager"
	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/dispatcher"
	"github.com/gitswarm/gitswarm/manager/peers"
	"github.com/gitswarm/gitswarm/manager/registry"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/nodeagent"
	"github.com/gitswarm/gitswarm/swarm"
)

// managing is the manager of this machine while it runs.
type managing struct {
	config  daemonConfig
	now     membership
	address string // host:port at which others reach it
	bound   net.Listener
	port    *identity.Port
	peers   *peers.Peers
	store   *store.Store
	blobs   *blobs.Blobs
	leader  *manager.Manager
	nodes   *dispatcher.Dispatcher
	api     *api.Server
}

// manages is the measure of keepManager.
type manages struct {
	yes, locked bool
	keyring     any // a manager that was demoted and promoted has other keys
}

func managerMeasure(m membership) manages {
	return manages{yes: m.manages() && !m.left && !m.paused, locked: m.locked, keyring: m.keyring}
}

// keepManager runs a manager while this machine is one.
func (d *daemon) keepManager(ctx context.Context) error {
	return follow(ctx, d, managerMeasure, func(ctx context.Context, now membership) error {
		if !managerMeasure(now).yes {
			if err := d.forgetManager(now); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}
		m, err := d.openManager(ctx, now)
		if err != nil {
			return fmt.Errorf("start the manager: %w", err)
		}
		d.setManager(m)
		d.door.Open(m.api)
		defer func() {
			d.door.Open(d.apart())
			d.setManager(nil)
		}()
		return m.run(ctx)
	})
}

// forgetManager removes what a manager kept on a machine that is a worker now.
func (d *daemon) forgetManager(now membership) error {
	if now.locked || now.self == nil || now.self.Peer().Role != swarm.RoleWorker {
		return nil
	}
	return d.config.removeManager()
}

// removeManager removes all that a manager keeps.
func (c daemonConfig) removeManager() error {
	var errs []error
	for _, path := range c.managerPaths() {
		errs = append(errs, os.RemoveAll(path))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what this machine kept as a manager: %w", err)
	}
	return nil
}

func (c daemonConfig) managerPaths() []string {
	return []string{c.raftDir(), c.blobsDir(), c.keysFile(), c.foundingFile(), filepath.Join(c.DataDir, "git")}
}

// openManager opens all that a manager keeps. What it opened is closed again
// if something fails.
func (d *daemon) openManager(ctx context.Context, now membership) (_ *managing, err error) {
	m := &managing{config: d.config, now: now}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if m.bound, err = net.Listen("tcp", now.place.Listen); err != nil {
		return nil, fmt.Errorf("%w (give --listen another address, or stop what listens there)", err)
	}
	m.address = now.place.Advertise
	m.port = identity.Listen(m.bound, func() *tls.Config {
		return now.self.Server(identity.ProtocolRaft, identity.ProtocolWire, identity.ProtocolAPI)
	}, d.config.Log)
	m.peers = peers.New(peers.Config{Raft: m.port.For(identity.ProtocolRaft), DialRaft: m.dial(identity.ProtocolRaft), DialWire: m.dial(identity.ProtocolWire)})

	founding, err := d.config.founding(now.keyring)
	if err != nil {
		return nil, err
	}
	m.store, err = store.Open(store.Config{
		Dir: d.config.raftDir(), Node: now.node(), Keyring: now.keyring, Log: d.config.Log,
		Address: m.address, Peers: m.peers, Join: founding == nil,
	})
	if err != nil {
		return nil, err
	}
	if m.blobs, err = blobs.New(blobs.Config{Dir: d.config.blobsDir(), Keyring: now.keyring, Peers: func() []blobs.Peer { return m.peers.Blobs(now.node(), m.store) }, Log: d.config.Log}); err != nil {
		return nil, err
	}
	m.nodes = dispatcher.New(dispatcher.Config{Local: now.node(), Store: m.store, Blobs: m.blobs, Peers: m.peers, Log: d.config.Log})
	if err := m.openLeader(founding); err != nil {
		return nil, err
	}
	m.api = m.openAPI(d)
	return m, nil
}

// openLeader makes what leads when this manager is elected.
func (m *managing) openLeader(founding *swarm.Cluster) error {
	registries, err := registry.New(registry.Config{CredentialsFile: m.config.RegistryConfig, Log: m.config.Log})
	if err != nil {
		return err
	}
	loading, err := emptyFolder(filepath.Join(m.config.RunDir, "compose"))
	if err != nil {
		return err
	}
	m.leader, err = manager.New(manager.Config{
		Node: m.now.node(), Founding: founding, Store: m.store, Blobs: m.blobs, Registry: registries, Agents: m.nodes,
		Syncer: gitsync.New(gitsync.Config{Dir: filepath.Join(m.config.DataDir, "git"), Log: m.config.Log}),
		Grants: m.config.Allow, Pool: m.config.pool(), Limits: compose.Limits{Folder: loading}, Log: m.config.Log,
	})
	return err
}

// openAPI makes the control API of a manager.
func (m *managing) openAPI(d *daemon) *api.Server {
	view, changes := storeView(m.store)
	return api.New(api.Config{
		View: view, Changes: changes, Blobs: m.blobs, Explain: explainStore,
		Sources: m.leader, Rollouts: m.leader, Stacks: m.leader, Volumes: m.leader, Planner: m.leader, Streams: streams{m.nodes},
		Nodes: m.leader, Keys: m.leader, Upkeep: m.leader, Users: m.leader,
		Machine: d, Node: m.now.node(), Managers: managers{m.store},
		Pass:    api.NewPass(m.dial(identity.ProtocolAPI)),
		Version: versionOf(m.now.node()), Scratch: filepath.Join(m.config.RunDir, "scratch"), Log: m.config.Log,
	})
}

// apart is the control API of a machine that is no manager now.
func (d *daemon) apart() *api.Server {
	now, _ := d.membership()
	return api.New(api.Config{
		Machine: d, Version: versionOf(now.node()), Scratch: filepath.Join(d.config.RunDir, "scratch"), Log: d.config.Log,
	})
}

// run serves until ctx ends or a part fails, and closes all.
func (m *managing) run(ctx context.Context) error {
	defer m.close()
	agents, err := listenPrivately(m.config.agentSocket())
	if err != nil {
		return err
	}
	admission := manager.Admission{Store: m.store, Log: m.config.Log}
	m.port.Admit = func(peer identity.Peer, protocol string) error {
		err := admission.Admit(peer, protocol)
		if protocol == identity.ProtocolWire && errors.Is(err, wire.ErrRemoved) {
			return nil // its first call is refused, in words that its own log shows
		}
		return err
	}
	services := wire.Services{
		Agents: m.nodes, Managers: peers.Answers{Sessions: m.nodes, Store: m.store, Content: m.blobs}, Join: admission, Admit: admission.Admit,
		Refusals: identity.NewRefusals(m.config.Log),
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return failed(ctx, m.store) })
	group.Go(func() error { return m.port.Serve(ctx) })
	group.Go(func() error { return m.leader.Run(ctx) })
	group.Go(func() error { return m.nodes.Run(ctx) })
	group.Go(func() error { return wire.Serve(ctx, agents, wire.Services{Agents: m.nodes}) })
	group.Go(func() error { return wire.Serve(ctx, m.port.For(identity.ProtocolWire), services) })
	group.Go(func() error { return m.api.ServeManagers(ctx, m.port.For(identity.ProtocolAPI)) })
	group.Go(func() error { return m.keepKeys(ctx) })
	group.Go(func() error { return m.keepDisk(ctx) })
	if m.config.APIListen != "" {
		group.Go(func() error { return m.serveUsers(ctx) })
	}
	return group.Wait()
}

// serveUsers answers users on their own port, with this manager's certificate.
func (m *managing) serveUsers(ctx context.Context) error {
	bound, err := net.Listen("tcp", m.config.APIListen)
	if err != nil {
		return fmt.Errorf("listen for users: %w (give --api-listen another address)", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return m.now.self.Server(identity.ProtocolHTTP), nil // as it is now
	}}
	return m.api.ServeUsers(ctx, bound, config)
}

// close closes what is open, in the order of who uses whom.
func (m *managing) close() {
	if m.store != nil {
		if err := m.store.Close(); err != nil {
			m.config.Log.Warn("log not closed", "err", err)
		}
	}
	if m.blobs != nil {
		if err := m.blobs.Close(); err != nil {
			m.config.Log.Warn("blobs not closed", "err", err)
		}
	}
	if m.peers != nil {
		if err := m.peers.Close(); err != nil {
			m.config.Log.Warn("connections to managers not closed", "err", err)
		}
	}
	if m.bound != nil {
		_ = m.bound.Close() // run has closed it already
	}
}

// dial reaches other managers by a protocol, with this machine's certificate.
func (m *managing) dial(protocol string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		return m.now.self.Dial(ctx, address, protocol)
	}
}

// keepKeys makes this manager's keys what the cluster says: wrapped in its
// unlock key, and with its key for the names of secrets. The new cluster that
// lies sealed beside the log goes once the log has it.
func (m *managing) keepKeys(ctx context.Context) error {
	touched := m.store.Subscribe()
	defer touched.Close()
	if !m.confirm(ctx) { // what the log held long ago is not to be followed: its keys were rotated since
		return nil
	}
	for {
		_, changed := touched.Take()
		if cluster, known := m.store.View().Cluster(); known {
			if err := m.takeKeys(cluster); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// confirm waits until this manager's state is as new as any. It reports false
// when ctx ends before.
func (m *managing) confirm(ctx context.Context) bool {
	for {
		try, cancel := context.WithTimeout(ctx, confirmPatience)
		err := m.store.Confirm(try)
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(confirmAgain):
		}
	}
}

const (
	confirmPatience = 10 * time.Second
	confirmAgain    = 200 * time.Millisecond
)

func (m *managing) takeKeys(cluster swarm.Cluster) error {
	if err := m.now.self.SaveTrust(cluster.Authority.Trust); err != nil { // the node's next certificate puts it right
		m.config.Log.Warn("roots of the cluster not taken", "err", err)
	}
	if err := m.now.keyring.SetCluster(cluster.SecretName); err != nil {
		return err
	}
	if changed, err := m.now.keyring.Follow(cluster.UnlockKey); err != nil {
		return err
	} else if changed {
		m.config.Log.Info("keys were wrapped anew", "autolock", cluster.UnlockKey != nil)
		if err := m.now.self.Seal(m.now.keyring); err != nil {
			return err
		}
	}
	if err := os.Remove(m.config.foundingFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the new cluster's file: %w", err)
	}
	return nil
}

// awaitCluster waits until the log has the cluster.
func (m *managing) awaitCluster(ctx context.Context) (cluster swarm.Cluster, err error) {
	err = m.await(ctx, func(view *store.View) (known bool) {
		cluster, known = view.Cluster()
		return known
	})
	if err != nil {
		return cluster, fmt.Errorf("wait for the cluster's first entry: %w", err)
	}
	return cluster, nil
}

// await waits until the log says what is asked for.
func (m *managing) await(ctx context.Context, says func(*store.View) bool) error {
	touched := m.store.Subscribe()
	defer touched.Close()
	for {
		_, changed := touched.Take()
		if says(m.store.View()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// manager is the one that runs here, or nil.
func (d *daemon) manager() *managing {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.running
}

func (d *daemon) currentAgent() *nodeagent.Agent {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.agent
}

func (d *daemon) setManager(m *managing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = m
	close(d.changed)
	d.changed = make(chan struct{})
}

// awaitManager waits until this machine's manager runs.
func (d *daemon) awaitManager(ctx context.Context) (*managing, error) {
	for {
		_, changed := d.membership()
		if m := d.manager(); m != nil {
			return m, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for this machine's manager: %w (its log says more: journalctl -u gitswarm)", ctx.Err())
		case <-changed:
		}
	}
}
