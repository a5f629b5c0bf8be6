package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/dispatcher"
	"github.com/gitswarm/gitswarm/manager/peers"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// Services of a manager, each with a listener of its own.
const (
	serviceRaft = "raft"
	serviceWire = "wire"
)

// host is a machine that is a manager: what it has on its disks, and the
// process while it runs.
type host struct {
	sim     *sim
	name    string
	keyring *seal.Keyring
	lives   int // of its process, so far
	dir     string
	disk    *disk
	running *process // nil while it is down
	hurt    bool     // its disk was made to fail
}

// process is a manager that runs.
type process struct {
	store      *store.Store
	blobs      *blobs.Blobs
	peers      *peers.Peers
	leader     *manager.Manager
	dispatcher *dispatcher.Dispatcher
	stop       context.CancelFunc
	ended      chan error
}

func newHost(s *sim, name string) (*host, error) {
	h := &host{sim: s, name: name, disk: newDisk()}
	h.dir = filepath.Join(s.root, name+"-0")
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if h.keyring, err = seal.Create(filepath.Join(s.root, name+".keys")); err != nil {
		return nil, err
	}
	return h, h.keyring.SetCluster([]byte("0123456789abcdef0123456789abcdef"))
}

func (h *host) dial(service string) peers.Dial {
	return func(ctx context.Context, to string) (net.Conn, error) {
		return h.sim.network.dial(ctx, h.name, to, service)
	}
}

// start runs the manager on what its disks have.
func (h *host) start() error {
	p := &process{ended: make(chan error, 1)}
	p.peers = peers.New(peers.Config{Raft: h.sim.network.listen(h.name, serviceRaft), DialRaft: h.dial(serviceRaft), DialWire: h.dial(serviceWire)})
	var err error
	p.store, err = store.Open(store.Config{
		Dir: filepath.Join(h.dir, "raft"), Node: swarm.NodeID(h.name), Keyring: h.keyring, Log: h.sim.log(h.name),
		Address: h.name, Peers: p.peers, Join: h.name != h.sim.hosts[0].name || h.lives > 0,
		SnapshotThreshold: 60, SnapshotInterval: 3 * time.Second, TrailingLogs: 20, Disk: h.disk,
	})
	if err != nil {
		return errors.Join(err, p.peers.Close())
	}
	if err := h.equip(p); err != nil {
		return errors.Join(err, p.peers.Close(), p.store.Close())
	}
	h.lives++
	h.running = p
	h.run(p)
	return nil
}

func (h *host) equip(p *process) (err error) {
	node := swarm.NodeID(h.name)
	p.blobs, err = blobs.New(blobs.Config{
		Dir: filepath.Join(h.dir, "blobs"), Keyring: h.keyring,
		Peers: func() []blobs.Peer { return p.peers.Blobs(node, p.store) },
	})
	if err != nil {
		return err
	}
	p.leader, err = manager.New(manager.Config{
		Node: node, Store: p.store, Blobs: p.blobs, Registry: h.sim.registry, Syncer: h.sim.syncer, Log: h.sim.log(h.name),
	})
	if err != nil {
		return err
	}
	p.dispatcher = dispatcher.New(dispatcher.Config{
		Local: node, Store: p.store, Blobs: p.blobs, Peers: p.peers, Log: h.sim.log(h.name),
		Plain: func(swarm.NodeID) bool { return true }, Role: swarm.RoleWorker,
	})
	return nil
}

// run serves until stop, or until a part fails.
func (h *host) run(p *process) {
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	listener := h.sim.network.listen(h.name, serviceWire)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case err := <-p.store.Failed():
			return err
		case <-ctx.Done():
			return nil
		}
	})
	group.Go(func() error {
		h.sim.rules.follow(ctx, h.name, p.store)
		return nil
	})
	group.Go(func() error { return p.leader.Run(ctx) })
	group.Go(func() error { return p.dispatcher.Run(ctx) })
	group.Go(func() error {
		answers := peers.Answers{Sessions: p.dispatcher, Store: p.store, Content: p.blobs}
		return wire.Serve(ctx, listener, wire.Services{Agents: p.dispatcher, Managers: answers})
	})
	go func() {
		err := group.Wait()
		cancel()
		_ = errors.Join(p.store.Close(), p.blobs.Close(), p.peers.Close()) // a disk that failed says so
		p.ended <- err
	}()
}

// kill ends the process, or the machine, at once: nothing that it does from
// now on reaches the network or the disks that the next start finds.
func (h *host) kill(machine bool) error {
	p := h.running
	h.sim.network.crash(h.name)
	h.sim.wait()
	next := filepath.Join(h.sim.root, fmt.Sprintf("%s-%d", h.name, h.lives))
	if err := os.CopyFS(next, os.DirFS(h.dir)); err != nil {
		return err
	}
	old := h.disk
	if machine {
		h.disk = old.crashed(h.sim.chance)
	} else {
		h.disk = old.left()
	}
	old.breaks(0)
	h.dir, h.running, h.hurt = next, nil, false
	p.stop()
	<-p.ended
	return nil
}

// mend gives the manager a disk that works, with what its own has kept.
func (h *host) mend() error {
	if h.running != nil && h.hurt {
		return h.kill(true)
	}
	if h.running == nil {
		h.disk, h.hurt = h.disk.crashed(h.sim.chance), false
	}
	return nil
}

// wipe takes all that a manager that is down has on its disks.
func (h *host) wipe() error {
	h.disk = newDisk()
	h.dir = filepath.Join(h.sim.root, fmt.Sprintf("%s-%d-wiped", h.name, h.lives))
	return os.MkdirAll(h.dir, 0o700)
}

// tend looks whether the process has ended by itself, which only a disk that
// failed excuses.
func (h *host) tend() error {
	if h.running == nil {
		return nil
	}
	select {
	case err := <-h.running.ended:
		if !h.hurt {
			h.sim.broke("manager %s ended by itself: %v", h.name, err)
		}
		h.sim.say("%s has ended: %v", h.name, err)
		h.running.ended <- err
		return h.kill(true)
	default:
		return nil
	}
}
