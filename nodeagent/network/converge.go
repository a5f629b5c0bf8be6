package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// leave removes the namespaces that no endpoint wants. Endpoints that could not
// be understood keep theirs.
func (n *Network) leave(ctx context.Context) error {
	keep := map[string]bool{"": true}
	for _, s := range n.want.seats {
		keep[s.name] = true
	}
	for task := range n.want.refused {
		if name, err := n.names.space(task); err == nil {
			keep[name] = true
		}
	}

	n.known.Lock()
	var stale []string
	for _, name := range sorted(n.have) {
		if !keep[name] {
			stale = append(stale, name)
		}
	}
	n.known.Unlock()
	return each(ctx, stale, n.removeSpace)
}

func (n *Network) removeSpace(name string) error {
	n.known.Lock()
	r := n.resolvers[name]
	delete(n.resolvers, name)
	n.known.Unlock()
	if r != nil {
		r.close()
	}

	if err := n.kernel.remove(name); err != nil {
		return fmt.Errorf("remove namespace: %w", err)
	}
	n.known.Lock()
	defer n.known.Unlock()
	delete(n.have, name)
	return nil
}

// setTable makes the host's table that of the layout. It comes before anything
// is attached: nothing else keeps the networks apart.
func (n *Network) setTable() error {
	have := n.haveSpace("")
	if have == nil {
		return errors.New("the host's namespace could not be read")
	}
	if !have.Forwarding {
		if err := n.forward(); err != nil {
			return err
		}
	}
	return n.apply("", diffTable(n.names.table(), n.want.host.Table, have.Table))
}

// setBridges makes the host's links those of the layout. A bridge that fails
// breaks its network only.
func (n *Network) setBridges(ctx context.Context) error {
	have := n.haveSpace("")
	failed := n.apply("", staleEnds(n.names, n.want, have))
	for _, changes := range diffBridges(n.want.host, have) {
		if ctx.Err() != nil {
			return errors.Join(failed, ctx.Err())
		}
		failed = errors.Join(failed, n.apply("", changes))
	}
	return failed
}

// staleEnds removes the host's ends of veth pairs that no seat has. A pair goes
// with its namespace, but later, and not while a process is still in it.
func staleEnds(n names, want layout, have *space) []change {
	wanted := map[string]bool{}
	for _, s := range want.seats {
		for name := range s.outer {
			wanted[name] = true
		}
	}
	for task := range want.refused {
		for name, l := range have.Links {
			wanted[name] = wanted[name] || strings.HasPrefix(l.Alias, n.alias(string(task)+" "))
		}
	}

	var stale []string
	for _, name := range sorted(have.Links) {
		if have.Links[name].Kind == "veth" && !wanted[name] {
			stale = append(stale, name)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	return []change{delLinks{stale}}
}

// forward turns on IP forwarding, which is the host's own setting, and
// remembers that it was off.
func (n *Network) forward() error {
	if err := os.WriteFile(n.forwardingFile(), []byte("0\n"), 0o600); err != nil {
		return fmt.Errorf("remember IP forwarding: %w", err)
	}
	if err := n.apply("", []change{setForwarding{}}); err != nil {
		return fmt.Errorf("turn on IP forwarding: %w", err)
	}
	n.log.Info("turned on IP forwarding of the host", "remembered", n.forwardingFile())
	return nil
}

// forwardingFile exists while IP forwarding is on because of this daemon.
func (n *Network) forwardingFile() string {
	return filepath.Join(n.options.Dir, "ip_forward.was")
}

// setSeat makes one endpoint what it should be.
func (n *Network) setSeat(s seat, z *zone) EndpointState {
	state := EndpointState{
		NetNS:      n.kernel.path(s.name),
		ResolvConf: resolvConf(n.upward.search()),
		Hosts:      hostsFile(s),
	}
	if err := n.converge(s, z); err != nil {
		state.Err = fmt.Errorf("endpoint %s: %w", s.endpoint.Task, err)
	}
	return state
}

func (n *Network) converge(s seat, z *zone) error {
	if n.haveSpace(s.name) == nil {
		if err := n.kernel.remove(s.name); err != nil { // what could not be read
			return err
		}
		if err := n.kernel.create(s.name); err != nil {
			return err
		}
		n.known.Lock()
		n.have[s.name] = newSpace()
		n.known.Unlock()
	}

	r, err := n.resolverOf(s, z)
	if err != nil {
		return fmt.Errorf("start resolver: %w", err)
	}
	inside, outside := n.diffSeat(s, r.ports())
	if err := n.apply("", outside); err != nil {
		return err
	}
	if err := n.apply(s.name, inside); err != nil {
		n.doubts("") // half a pair may be there
		return err
	}
	r.serve(z)
	return nil
}

func (n *Network) diffSeat(s seat, p ports) (inside, outside []change) {
	n.known.Lock()
	defer n.known.Unlock()
	have := n.have[s.name]
	inside, outside = diffSeat(s, have, n.have[""])
	return append(inside, diffTable(n.names.table(), withResolver(s.inner.Table, p), have.Table)...), outside
}

// resolverOf returns the seat's resolver, and starts it if need be: at the
// ports of the one before it, so that nothing in the namespace must change.
func (n *Network) resolverOf(s seat, z *zone) (resolver, error) {
	n.known.Lock()
	r, have := n.resolvers[s.name], n.have[s.name]
	n.known.Unlock()
	if r != nil {
		return r, nil
	}

	var prefer ports
	if have.Table != nil {
		prefer = portsOf(have.Table.Sets["resolver"])
	}
	r, err := n.listen(n.kernel.path(s.name), prefer, z)
	if err != nil {
		return nil, err
	}
	n.known.Lock()
	defer n.known.Unlock()
	n.resolvers[s.name] = r
	return r, nil
}

// apply does the changes to the kernel and to what is known of it. After an
// error the namespace is in doubt: the next Set reads it again.
func (n *Network) apply(name string, changes []change) error {
	if len(changes) == 0 {
		return nil
	}
	if err := n.kernel.apply(name, changes); err != nil {
		n.doubts(name)
		return err
	}
	n.known.Lock()
	defer n.known.Unlock()
	for _, c := range changes {
		c.on(n.have, name)
	}
	return nil
}

func (n *Network) doubts(name string) {
	n.known.Lock()
	defer n.known.Unlock()
	n.doubt[name] = true
}

func (n *Network) doubtful() []string {
	n.known.Lock()
	defer n.known.Unlock()
	return sorted(n.doubt)
}

func (n *Network) haveSpace(name string) *space {
	n.known.Lock()
	defer n.known.Unlock()
	return n.have[name]
}
