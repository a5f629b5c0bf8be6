package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// Confirm waits until this manager's View shows every command that was
// accepted, anywhere, before Confirm was called: a View from then on is
// linearizable. It waits for a leader until ctx ends.
func (s *Store) Confirm(ctx context.Context) error {
	for {
		index, err := s.agreed(ctx)
		if err == nil {
			if err = s.machine.wait(ctx, index, s.closed); err != nil {
				return fmt.Errorf("confirm the state: wait for entry %d: %w", index, s.ended(err))
			}
			return nil
		}
		if s.peers == nil || errors.Is(err, ErrFailed) || errors.Is(err, ErrClosed) {
			return fmt.Errorf("confirm the state: %w", err)
		}
		if late := s.pause(ctx, leaderAsk); late != nil {
			return fmt.Errorf("confirm the state: no manager leads: %w", late)
		}
	}
}

// agreed is the index of the last command that was accepted anywhere.
func (s *Store) agreed(ctx context.Context) (uint64, error) {
	if s.peers == nil || s.raft.State() == raft.Leader {
		return s.ReadIndex(ctx)
	}
	leader, known := s.Leader()
	if !known || leader.Node == s.node {
		return 0, ErrNotLeader
	}
	asking, stop := s.whileLeads(ctx, leader.Node)
	defer stop()
	return s.peers.ReadIndex(asking, leader.Address)
}

// ReadIndex is the leader's end of Peers.ReadIndex: it returns the index of the
// last command that was accepted, once a majority has said that this manager
// leads.
func (s *Store) ReadIndex(ctx context.Context) (uint64, error) {
	var index uint64
	err := s.await(ctx, func() (err error) {
		index, err = s.readIndex()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ask whether this manager leads: %w", err)
	}
	return index, nil
}

// readIndex follows section 6.4 of the Raft thesis: what is committed counts
// only once this leader has committed something in its own term, and only if
// it still leads after that was read.
func (s *Store) readIndex() (uint64, error) {
	term := s.raft.CurrentTerm()
	if s.raft.State() != raft.Leader {
		return 0, ErrNotLeader
	}
	if s.settled.Load() != term {
		if err := s.raft.Barrier(0).Error(); err != nil {
			return 0, s.reason(err)
		}
		s.settled.Store(term)
	}
	committed := s.raft.CommitIndex()
	if err := s.raft.VerifyLeader().Error(); err != nil {
		return 0, s.reason(err)
	}
	if s.raft.CurrentTerm() != term {
		return 0, ErrNotLeader
	}
	return s.lastCommand(committed)
}

// lastCommand is the index of the last command up to that entry. Raft's own
// entries, which follow each election, never reach the state.
func (s *Store) lastCommand(index uint64) (uint64, error) {
	for ; index > s.machine.index(); index-- {
		var entry raft.Log
		switch err := s.log.GetLog(index, &entry); {
		case errors.Is(err, raft.ErrLogNotFound):
			continue // a snapshot has it; the state is at least that new
		case err != nil:
			return 0, err
		case entry.Type == raft.LogCommand:
			return index, nil
		}
	}
	return index, nil
}

// progress tells how far the state is.
type progress struct {
	mu    sync.Mutex
	at    uint64
	moved chan struct{} // closed when at moves; nil while nobody waits
}

// reach moves on.
func (p *progress) reach(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = index
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// index is that of the last command in the state.
func (p *progress) index() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

// wait returns once that command is in the state, or ctx ends, or closed is.
func (p *progress) wait(ctx context.Context, index uint64, closed <-chan struct{}) error {
	for {
		p.mu.Lock()
		if p.at >= index {
			p.mu.Unlock()
			return nil
		}
		if p.moved == nil {
			p.moved = make(chan struct{})
		}
		moved := p.moved
		p.mu.Unlock()

		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-closed:
			return ErrClosed
		}
	}
}
