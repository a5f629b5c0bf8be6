package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gitswarm/gitswarm/swarm"
)

const leaderAsk = 20 * time.Millisecond // how often a leader is looked for while there is none

// Propose puts a command into the log and waits until it was applied here. It
// returns the command's index, also where the command was refused (ErrStale,
// ErrNotFound): a View from then on is at least as new.
//
// A manager that does not lead gives the command to the one that does, and
// waits for a leader until ctx ends. Lead and Decide are the leader's own and
// are refused instead: whoever took them as leader must not have another
// leader carry them out.
//
// A command that was given away is given again only where the first attempt
// surely came to nothing, or where twice is as good as once, see harmless.
// Else the error is ErrUncertain, as it is if ctx ends meanwhile.
func (s *Store) Propose(ctx context.Context, c Command) (uint64, error) {
	name, err := c.name()
	if err != nil {
		return 0, fmt.Errorf("propose: %w", err)
	}
	if c, err = s.fitting(c); err != nil {
		return 0, fmt.Errorf("propose %s: %w", name, err)
	}
	entry, err := encodeEntry(c)
	if err != nil {
		return 0, fmt.Errorf("propose %s: %w", name, err)
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("propose %s: %w", name, err)
	}
	index, err := s.propose(ctx, c, entry)
	if err != nil {
		return index, fmt.Errorf("propose %s: %w", name, err)
	}
	return index, nil
}

func (s *Store) propose(ctx context.Context, c Command, entry []byte) (uint64, error) {
	for {
		index, err := s.attempt(ctx, c, entry)
		again := errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUncertain) ||
			errors.Is(err, ErrUncertain) && c.harmless() && ctx.Err() == nil
		if !again || s.peers == nil || c.leaders() {
			return index, err
		}
		if late := s.pause(ctx, leaderAsk); late != nil {
			return 0, fmt.Errorf("no manager leads: %w", late)
		}
	}
}

// attempt proposes once: here, or at the leader.
func (s *Store) attempt(ctx context.Context, c Command, entry []byte) (uint64, error) {
	if s.peers == nil || c.leaders() || s.raft.State() == raft.Leader {
		return s.appendFor(ctx, c, entry)
	}
	leader, known := s.Leader()
	if !known || leader.Node == s.node {
		return 0, ErrNotLeader
	}
	asking, stop := s.whileLeads(ctx, leader.Node)
	defer stop()
	index, err := s.peers.Forward(asking, leader.Address, entry)
	switch {
	case err == nil, index > 0: // it is in the log, whatever the state said to it
		if late := s.machine.wait(ctx, index, s.closed); late != nil {
			return index, fmt.Errorf("wait for entry %d: %w", index, s.ended(late))
		}
		return index, err
	case errors.Is(err, ErrNotLeader), errors.Is(err, ErrLevel):
		return index, err
	}
	return index, fmt.Errorf("%w: %w", ErrUncertain, err)
}

// whileLeads gives a context that ends once another manager is known to lead.
// One that stands still keeps its connections and answers nobody on them.
func (s *Store) whileLeads(ctx context.Context, leader swarm.NodeID) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with ctx
		tick := time.NewTicker(leaderAsk)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if now, known := s.Leader(); known && now.Node != leader {
				cancel()
			}
		}
	}()
	return ctx, cancel
}

// Accept is the leader's end of Peers.Forward: it proposes an entry for
// another manager. It refuses what is no command, and a leader's own.
func (s *Store) Accept(ctx context.Context, entry []byte) (uint64, error) {
	if len(entry) > maxEntry {
		return 0, fmt.Errorf("accept a command: it has %d bytes, more than %d", len(entry), maxEntry)
	}
	c, err := decodeEntry(entry)
	if err != nil {
		return 0, fmt.Errorf("accept a command: %w", err)
	}
	name, _ := c.name()
	if c.leaders() {
		return 0, fmt.Errorf("accept %s: only a leader proposes it, to itself", name)
	}
	if failed := s.latch.error(); failed != nil { // another will lead soon
		return 0, fmt.Errorf("accept %s: %w: %w", name, ErrNotLeader, failed)
	}
	index, err := s.appendFor(ctx, c, entry)
	if err != nil {
		return index, fmt.Errorf("accept %s: %w", name, err)
	}
	return index, nil
}

// appendFor appends one entry here and waits for it as long as ctx lasts.
func (s *Store) appendFor(ctx context.Context, c Command, entry []byte) (index uint64, err error) {
	if err := s.understood(c); err != nil {
		return 0, err
	}
	type outcome struct {
		index uint64
		err   error
	}
	done := make(chan outcome, 1)
	go func() { // ends when raft answers
		index, err := s.append(entry)
		done <- outcome{index, err}
	}()
	select {
	case o := <-done:
		return o.index, o.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", ErrUncertain, ctx.Err())
	case <-s.closed:
		return 0, s.over()
	}
}

// append waits for one entry.
func (s *Store) append(entry []byte) (uint64, error) {
	future := s.raft.Apply(entry, 0)
	if err := future.Error(); err != nil {
		return 0, s.reason(err)
	}
	err, _ := future.Response().(error)
	return future.Index(), err
}

// pause waits a moment, or returns why there is nothing to wait for.
func (s *Store) pause(ctx context.Context, moment time.Duration) error {
	timer := time.NewTimer(moment)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closed:
		return s.over()
	}
}

// ended is why a wait was given up.
func (s *Store) ended(err error) error {
	if errors.Is(err, ErrClosed) {
		return s.over()
	}
	return err
}

// leaders reports whether the command is a leader's own.
func (c Command) leaders() bool { return c.Lead != nil || c.Decide != nil }

// harmless reports whether the command may be applied twice, also with others
// between: a report of what a task, a node or a source is only moves states on,
// and its next report is right again. Not so an operator's word (two restarts),
// a token (dropped meanwhile), a volume (given up, then forgotten) or a commit:
// those that lose their leader end as ErrUncertain.
func (c Command) harmless() bool {
	return c.ReportStatus != nil || c.PutNode != nil && c.By == "" || c.SawSource != nil
}
