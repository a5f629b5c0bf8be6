// Package network makes a node's network what a Config says: a bridge for each
// network, a namespace for each container, virtual addresses for services, a
// resolver at 127.0.0.11, published ports. Set can be called again and again:
// it changes only what differs. All that matters lives in the kernel, so what
// a container has goes on while the daemon is away, but for its resolver.
//
// It touches no link, table or namespace that carries another daemon's name,
// chooses no address, and starts no process. It speaks IPv4 only, for now.
package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/swarm"
)

// Options say where a Network lives.
type Options struct {
	Dir       string       // required: state that outlives a reboot
	RunDir    string       // required: namespaces are mounted below RunDir/netns; it must not outlive a reboot
	Prefix    string       // begins the names of links: one to four of a–z and 0–9; empty means "gs"; one for each daemon on a host
	HostNetNS string       // network namespace that is the host; empty means this process's own
	MTU       int          // bytes, of networks that name none; 0 means that of the host's default route
	Log       *slog.Logger // optional
}

// parallel is how many namespaces are worked on at once. The kernel waits for
// other processors at the end of each transaction, so more than the number of
// processors pays.
const parallel = 16

// Network is the network of a node.
type Network struct {
	home    *os.File // keeps Options.HostNetNS good, where that is this process's own
	options Options
	names   names
	kernel  kernel
	listen  func(path string, prefer ports, z *zone) (resolver, error)
	log     *slog.Logger
	upward  *upstream

	mu   sync.Mutex // held by Set, Check, Close and Destroy
	last Config
	want layout

	known     sync.Mutex // guards the rest
	have      world      // as observed, and what was done to it since
	doubt     map[string]bool
	resolvers map[string]resolver // by namespace
}

// resolver answers the names of one container.
type resolver interface {
	ports() ports
	serve(z *zone)
	close()
}

// ports are where a resolver listens; 53 is redirected to them.
type ports struct{ udp, tcp uint16 }

// Open takes over what an earlier run left in the kernel. It changes nothing
// of it; the first Set does.
func Open(ctx context.Context, o Options) (*Network, error) {
	o.Prefix = cmp.Or(o.Prefix, "gs")
	if !prefixPattern.MatchString(o.Prefix) {
		return nil, fmt.Errorf("open network: prefix %q is not one to four of a-z and 0-9, a letter first", o.Prefix)
	}
	for _, dir := range []string{o.Dir, filepath.Join(o.RunDir, "netns")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open network: %w", err)
		}
	}

	upward := newUpstream(o.HostNetNS)
	var home *os.File
	if o.HostNetNS == "" {
		var err error
		if home, o.HostNetNS, err = ownNamespace(); err != nil {
			return nil, fmt.Errorf("open network: %w", err)
		}
	}
	n := &Network{home: home, options: o, names: names{o.Prefix}, log: o.Log, have: world{}, doubt: map[string]bool{}, resolvers: map[string]resolver{}}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	k := &linux{names: n.names, host: o.HostNetNS, dir: filepath.Join(o.RunDir, "netns"), tables: map[string]seen{}}
	n.kernel, n.upward = k, upward
	n.listen = func(path string, prefer ports, z *zone) (resolver, error) {
		return listen(path, prefer, z, n.upward)
	}
	if n.options.MTU == 0 {
		n.options.MTU = k.defaultMTU()
	}
	spaces, err := n.kernel.spaces()
	if err = errors.Join(err, n.observe(ctx, append(spaces, ""))); err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	return n, nil
}

// observe reads anew what the kernel holds in the namespaces; one that cannot
// be read counts as absent.
func (n *Network) observe(ctx context.Context, spaces []string) error {
	return each(ctx, spaces, func(name string) error {
		s, err := n.kernel.observe(name)
		n.known.Lock()
		defer n.known.Unlock()
		if err != nil {
			delete(n.have, name)
			return fmt.Errorf("observe namespace %q: %w", name, err)
		}
		n.have[name] = s
		delete(n.doubt, name)
		return nil
	})
}

// each calls do for all of them, some at once, and joins what they return.
func each[T any](ctx context.Context, all []T, do func(T) error) error {
	var group errgroup.Group
	group.SetLimit(parallel)
	failed := make([]error, len(all))
	for i, one := range all {
		group.Go(func() error {
			if failed[i] = ctx.Err(); failed[i] == nil {
				failed[i] = do(one)
			}
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(failed...)
}

// Set makes the network that of the Config. Once it returns without an error,
// no new connection goes to a backend that the Config does not have. An error
// names what failed; the rest was done, and Reached tells it. An endpoint that
// the Config makes impossible fails in Reached alone: trying again would not
// help it.
func (n *Network) Set(ctx context.Context, cfg Config) (Reached, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = cfg
	return n.set(ctx, cfg)
}

func (n *Network) set(ctx context.Context, cfg Config) (Reached, error) {
	failed := n.observe(ctx, n.doubtful())
	n.want = lay(n.names, cfg, n.options.MTU, n.haveSpace(""))
	n.upward.use(cfg.Upstream)
	reached := Reached{Endpoints: map[swarm.TaskID]EndpointState{}, Conflicts: n.want.conflicts}
	for _, e := range cfg.Endpoints {
		reached.Endpoints[e.Task] = EndpointState{Err: n.want.errorOf(e)}
	}

	if err := n.setTable(); err != nil {
		for _, s := range n.want.seats {
			reached.Endpoints[s.endpoint.Task] = EndpointState{Err: err}
		}
		return reached, errors.Join(failed, err)
	}
	failed = errors.Join(failed, n.leave(ctx), n.setBridges(ctx))
	return reached, errors.Join(failed, n.setSeats(ctx, cfg, reached))
}

// setSeats sets all endpoints, some at once, and notes their states.
func (n *Network) setSeats(ctx context.Context, cfg Config, reached Reached) error {
	zones, order := zonesOf(cfg, n.want.seats), make([]int, len(n.want.seats))
	for i := range order {
		order[i] = i
	}
	states := make([]EndpointState, len(order))
	failed := each(ctx, order, func(i int) error {
		states[i] = n.setSeat(n.want.seats[i], zones[i])
		return states[i].Err
	})

	for i, s := range n.want.seats {
		if states[i].NetNS == "" {
			states[i].Err = ctx.Err() // it was not begun
		}
		reached.Endpoints[s.endpoint.Task] = states[i]
	}
	return failed
}

// zonesOf computes each seat's zone; seats of one stack on the same networks
// share theirs.
func zonesOf(cfg Config, seats []seat) []*zone {
	made, all := map[string]*zone{}, make([]*zone, len(seats))
	for i, s := range seats {
		key := string(s.endpoint.Service.Stack()) + "\n" + networksOf(s.endpoint)
		if made[key] == nil {
			made[key] = newZone(s.endpoint, cfg.Networks, cfg.Services)
		}
		all[i] = made[key]
	}
	return all
}
