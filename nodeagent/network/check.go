package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Check compares the kernel with the last Set, puts right what differs, and
// says what it did: one command a line, as an administrator would type it. A
// few milliseconds for each container: call it every half minute or so.
func (n *Network) Check(ctx context.Context) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.want.host == nil {
		return nil, nil // nothing was set yet
	}

	spaces, err := n.kernel.spaces()
	if err != nil {
		return nil, fmt.Errorf("check network: %w", err)
	}
	n.known.Lock()
	n.have = world{}
	n.known.Unlock()
	if err := n.observe(ctx, append(spaces, "")); err != nil {
		return nil, fmt.Errorf("check network: %w", err)
	}

	found := n.differences()
	if len(found) == 0 {
		return nil, nil
	}
	if _, err := n.set(ctx, n.last); err != nil {
		return found, fmt.Errorf("repair network: %w", err)
	}
	return found, nil
}

// differences are the changes that a Set would make now.
func (n *Network) differences() []string {
	var all []string
	note := func(where string, changes []change) {
		for _, c := range changes {
			all = append(all, where+": "+c.String())
		}
	}

	host := n.haveSpace("")
	for _, changes := range diffBridges(n.want.host, host) {
		note("host", changes)
	}
	if !host.Forwarding {
		note("host", []change{setForwarding{}})
	}
	note("host", diffTable(n.names.table(), n.want.host.Table, host.Table))
	note("host", staleEnds(n.names, n.want, host))

	for _, s := range n.want.seats {
		n.known.Lock()
		there, r := n.have[s.name] != nil, n.resolvers[s.name]
		n.known.Unlock()
		if !there {
			all = append(all, s.name+": ip netns add "+s.name)
			continue
		}
		if r == nil {
			continue // a Set said why
		}
		inside, outside := n.diffSeat(s, r.ports())
		note("host", outside)
		note(s.name, inside)
	}
	return all
}

// Close stops the resolvers and leaves all else as it is, for containers that
// live on. Until the next Open and Set, lookups in them are refused at once.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known.Lock()
	defer n.known.Unlock()
	for name, r := range n.resolvers {
		r.close()
		delete(n.resolvers, name)
	}
	_ = n.home.Close() // nil where there is none; nothing was written
}

// Destroy removes every trace of this Network from the host: namespaces,
// links, tables. IP forwarding is turned off again if it was off before.
func (n *Network) Destroy(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	spaces, err := n.kernel.spaces()
	if err != nil {
		return fmt.Errorf("destroy network: %w", err)
	}
	n.known.Lock()
	n.have = world{}
	n.known.Unlock()
	failed := errors.Join(n.observe(ctx, append(spaces, "")), each(ctx, spaces, n.removeSpace))

	host := n.haveSpace("")
	if host == nil {
		return fmt.Errorf("destroy network: %w", failed)
	}
	if len(host.Links) > 0 {
		failed = errors.Join(failed, n.kernel.apply("", []change{delLinks{sorted(host.Links)}}))
	}
	if host.Table != nil {
		failed = errors.Join(failed, n.kernel.apply("", []change{delTable{n.names.table()}}))
	}
	failed = errors.Join(failed, n.unforward())

	n.want, n.last = layout{}, Config{}
	n.known.Lock()
	n.have, n.doubt = world{}, map[string]bool{"": true}
	n.known.Unlock()
	if failed != nil {
		return fmt.Errorf("destroy network: %w", failed)
	}
	return nil
}

// unforward undoes forward.
func (n *Network) unforward() error {
	if _, err := os.Stat(n.forwardingFile()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := n.kernel.apply("", []change{setForwarding{off: true}}); err != nil {
		return fmt.Errorf("turn off IP forwarding: %w", err)
	}
	return os.Remove(n.forwardingFile())
}
