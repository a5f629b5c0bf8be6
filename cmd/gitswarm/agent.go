package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/durable"
	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/nodeagent"
	"github.com/gitswarm/gitswarm/swarm"
)

// agency is the measure of keepAgent.
type agency struct {
	node swarm.NodeID
	left bool
}

func agentMeasure(m membership) agency { return agency{m.node(), m.left} }

// keepAgent runs an agent while this machine is in a cluster, and clears the
// machine of what the agent ran once it has left.
func (d *daemon) keepAgent(ctx context.Context) error {
	return follow(ctx, d, agentMeasure, func(ctx context.Context, now membership) error {
		switch {
		case now.left:
			d.clear(ctx)
		case now.self != nil:
			return d.runAgent(ctx, now)
		}
		<-ctx.Done()
		return nil
	})
}

// runAgent opens containers and network and runs the agent.
func (d *daemon) runAgent(ctx context.Context, now membership) error {
	containers, links, err := openNode(ctx, d.config)
	if err != nil {
		return err
	}
	rebooted, err := d.config.rebooted()
	if err != nil {
		return errors.Join(err, containers.Close())
	}
	luck := rand.Float64() // once: RenewAt is asked again and again
	agent := nodeagent.New(nodeagent.Config{
		Node: now.node(), Dir: filepath.Join(d.config.DataDir, "agent"), Runtime: containers, Network: links,
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			if filepath.IsAbs(address) {
				return new(net.Dialer).DialContext(ctx, "unix", address)
			}
			return now.self.Dial(ctx, address, identity.ProtocolWire)
		},
		Managers: now.place.Managers,
		Own: func() string {
			if d.manager() == nil {
				return ""
			}
			return d.config.agentSocket()
		},
		Papers: func() (role, issuer string) {
			peer := now.self.Peer()
			return peer.Role, peer.Issuer
		},
		Upgrade: d.successor.upgrade,
		Restart: d.restart,
		Renew:   d.renew,
		RenewAt: func() time.Time { return now.self.RenewAt(time.Now(), luck) },
		Describe: func() swarm.NodeDescription {
			description := describe(links, d.config.Offer)
			description.Address, description.DataPath = now.place.Advertise, now.place.dataPath()
			return description
		},
		Rebooted: rebooted,
		Log:      d.config.Log,
	})
	d.setAgent(agent)
	defer d.setAgent(nil)
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return agent.Run(ctx) })
	running.Go(func() error { return repairNetwork(ctx, d.config.Log, links) })
	running.Go(func() error { return d.followTrust(ctx, now) })
	err = running.Wait()
	links.Close()
	return errors.Join(err, containers.Close())
}

// Leave ends what runs here and forgets the cluster. Volumes stay.
func (d *daemon) Leave(ctx context.Context, force bool, _ string) error {
	d.turn.Lock()
	defer d.turn.Unlock()
	now, _ := d.membership()
	switch {
	case now.self == nil && !now.locked:
		return api.Conflict("this machine is in no cluster", "")
	case (now.locked || now.manages()) && !force:
		return api.Conflict("this machine is a manager: the others count on it, and the last one takes the cluster with it",
			"gitswarm node demote it on another manager first, or gitswarm leave --force")
	}
	d.config.Log.Info("leaving the cluster", "node", now.node())
	now.left = true
	cleared := make(chan error, 1)
	d.mu.Lock()
	d.cleared = cleared
	d.mu.Unlock()
	d.become(now)

	var err error
	select {
	case err = <-cleared:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		err = d.awaitNoManager(ctx)
	}
	if err != nil {
		now.left = false // it goes on as what it was
		d.become(now)
		return fmt.Errorf("leave: %w", err)
	}
	err = d.config.forget()
	d.become(membership{})
	return err
}

// forget removes all that this machine has of its cluster. Half of it would be
// another machine than before: what is begun here the next start completes.
func (c daemonConfig) forget() error {
	if err := durable.WriteFile(c.leavingFile(), nil); err != nil {
		return fmt.Errorf("forget the cluster: %w", err)
	}
	errs := []error{c.removeManager()}
	for _, path := range []string{c.identityDir(), c.placeFile(), filepath.Join(c.DataDir, "agent"), filepath.Join(c.DataDir, "node")} {
		errs = append(errs, os.RemoveAll(path))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("forget the cluster: %w", err)
	}
	return os.Remove(c.leavingFile())
}

// clear removes every container and network of this machine, and says so.
func (d *daemon) clear(ctx context.Context) {
	err := clearNode(ctx, d.config)
	d.mu.Lock()
	cleared := d.cleared
	d.mu.Unlock()
	cleared <- err
}

func clearNode(ctx context.Context, config daemonConfig) error {
	containers, links, err := openNode(ctx, config)
	if err != nil {
		return err
	}
	defer links.Close()
	found, err := containers.List(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("list containers: %w", err), containers.Close())
	}
	var errs []error
	for _, container := range found {
		errs = append(errs, containers.Remove(ctx, container.ID))
	}
	return errors.Join(append(errs, containers.Sweep(ctx, func(swarm.TaskID) bool { return false }), links.Destroy(ctx), containers.Close())...)
}

// awaitNoManager waits until this machine's manager has ended.
func (d *daemon) awaitNoManager(ctx context.Context) error {
	for {
		_, changed := d.membership()
		if d.manager() == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for this machine's manager to end: %w", ctx.Err())
		case <-changed:
		}
	}
}

func (d *daemon) setAgent(agent *nodeagent.Agent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.agent = agent
}

// trustEvery is how often a node asks which roots are trusted, so that one that
// was rotated away is believed no longer.
const trustEvery = time.Minute

func (d *daemon) followTrust(ctx context.Context, now membership) error {
	tick := time.NewTicker(trustEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := d.askManagers(now, func(address string) error {
			ctx, cancel := context.WithTimeout(ctx, askTime)
			defer cancel()
			return wire.FollowTrust(ctx, now.self, address)
		})
		if err != nil && ctx.Err() == nil {
			d.config.Log.Debug("trusted roots not asked for; they are in a minute", "err", err)
		}
	}
}

// rebooted reports whether this is the first agent since the machine started:
// what is in the run folder does not outlive that.
func (c daemonConfig) rebooted() (bool, error) {
	mark, err := os.OpenFile(filepath.Join(c.RunDir, "agent-ran"), os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("note that this machine's agent runs: %w", err)
	}
	return true, mark.Close()
}
