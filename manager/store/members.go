package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gitswarm/gitswarm/swarm"
)

// Member is a manager that keeps the log.
type Member struct {
	Node      swarm.NodeID
	Address   string // host:port
	Voter     bool   // false while it catches up
	Reachable bool   // it answered within the last second: the leader knows this of all, others of themselves and the leader
}

const caughtUpAsk = 20 * time.Millisecond // how often a new member is looked at

// Members returns the managers, by node.
func (s *Store) Members() []Member {
	var members []Member
	for _, server := range s.servers() {
		members = append(members, s.member(server))
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return members
}

func (s *Store) member(server raft.Server) Member {
	address, _ := splitAddress(server.Address)
	m := Member{Node: swarm.NodeID(server.ID), Address: address, Voter: server.Suffrage == raft.Voter}
	_, leader := s.raft.LeaderWithID()
	switch {
	case m.Node == s.node:
		m.Reachable = true
	case s.raft.State() == raft.Leader && s.transport != nil:
		_, m.Reachable = s.transport.answered(server.Address)
	case server.ID == leader:
		m.Reachable = time.Since(s.raft.LastContact()) < reachableFor
	}
	return m
}

// servers are raft's members, also those of a change that is under way.
func (s *Store) servers() []raft.Server {
	return s.raft.GetConfiguration().Configuration().Servers // never fails, raft keeps a copy
}

func (s *Store) server(node swarm.NodeID) (raft.Server, bool) {
	for _, server := range s.servers() {
		if server.ID == raft.ServerID(node) {
			return server, true
		}
	}
	return raft.Server{}, false
}

// Leader returns who leads, as far as this manager knows.
func (s *Store) Leader() (Member, bool) {
	full, id := s.raft.LeaderWithID()
	if id == "" {
		return Member{}, false
	}
	return s.member(raft.Server{ID: id, Address: full}), true
}

// LastContact is when this manager last heard of the leader, zero if never,
// now if it leads.
func (s *Store) LastContact() time.Time {
	if s.raft.State() == raft.Leader {
		return time.Now()
	}
	return s.raft.LastContact()
}

// Add makes a manager a member that votes: first it is given the log and the
// state, then its vote. A member whose address is another one now, or which
// has lost its folder, takes its former place. Add works at the leader alone,
// and returns once the vote is given; called again it goes on where an earlier
// call was cut off.
func (s *Store) Add(ctx context.Context, m Member) error {
	if err := s.add(ctx, m); err != nil {
		return fmt.Errorf("add manager %s: %w", m.Node, err)
	}
	return nil
}

func (s *Store) add(ctx context.Context, m Member) error {
	if s.transport == nil {
		return errors.New("this manager has no address that others reach")
	}
	if s.raft.State() != raft.Leader {
		return ErrNotLeader
	}
	incarnation, err := s.transport.streams.incarnationAt(ctx, m.Address)
	if err != nil {
		return fmt.Errorf("ask it at %s: %w", m.Address, err)
	}
	id, address := raft.ServerID(m.Node), fullAddress(m.Address, incarnation)

	old, known := s.server(m.Node)
	_, was := splitAddress(old.Address)
	switch {
	case known && old.Suffrage == raft.Voter && was == incarnation:
		if old.Address == address {
			return nil
		}
		return s.change(ctx, func() raft.Future { return s.raft.AddVoter(id, address, 0, 0) })
	case known && old.Suffrage == raft.Voter: // it has lost what it had acknowledged
		if err := s.change(ctx, func() raft.Future { return s.raft.DemoteVoter(id, 0, 0) }); err != nil {
			return err
		}
	}
	if !known || old.Suffrage == raft.Voter || old.Address != address {
		if err := s.change(ctx, func() raft.Future { return s.raft.AddNonvoter(id, address, 0, 0) }); err != nil {
			return err
		}
	}
	if err := s.caughtUp(ctx, address); err != nil {
		return err
	}
	return s.change(ctx, func() raft.Future { return s.raft.AddVoter(id, address, 0, 0) })
}

// caughtUp waits until that manager's log reaches to what is committed now.
func (s *Store) caughtUp(ctx context.Context, address raft.ServerAddress) error {
	target := s.raft.CommitIndex()
	tick := time.NewTicker(caughtUpAsk)
	defer tick.Stop()
	for {
		if a, recent := s.transport.answered(address); recent && a.last >= target {
			return nil
		}
		if s.raft.State() != raft.Leader {
			return ErrNotLeader
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			a, _ := s.transport.answered(address)
			return fmt.Errorf("it has not caught up: its log ends at entry %d of %d: %w", a.last, target, ctx.Err())
		case <-s.closed:
			return s.over()
		}
	}
}

// Removable reports why a manager cannot leave: without it too few of those
// that stay would answer to agree on anything.
func (s *Store) Removable(node swarm.NodeID) error {
	if s.raft.State() != raft.Leader {
		return ErrNotLeader
	}
	stay, answer, silent := 0, 0, []string{}
	leaves := false
	for _, m := range s.Members() {
		switch {
		case m.Node == node:
			leaves = m.Voter
		case m.Voter && m.Reachable:
			stay, answer = stay+1, answer+1
		case m.Voter:
			stay, silent = stay+1, append(silent, string(m.Node))
		}
	}
	switch {
	case !leaves:
		return nil
	case stay == 0:
		return fmt.Errorf("%s is the last manager: promote another node first", node)
	case answer < stay/2+1:
		return fmt.Errorf("%d of the %d managers that stay would answer, %d must: bring back or remove %s first",
			answer, stay, stay/2+1, strings.Join(silent, ", "))
	}
	return nil
}

// Remove takes a manager's vote and place. It works at the leader alone, and
// refuses where too few would be left, see Removable. A leader does not remove
// itself: it hands over first. One who is no member is not missed.
func (s *Store) Remove(ctx context.Context, node swarm.NodeID) error {
	err := s.Removable(node)
	if err == nil && node == s.node {
		err = errors.New("it leads: hand over first")
	}
	if _, known := s.server(node); err == nil && known {
		err = s.change(ctx, func() raft.Future { return s.raft.RemoveServer(raft.ServerID(node), 0, 0) })
	}
	if err != nil {
		return fmt.Errorf("remove manager %s: %w", node, err)
	}
	if s.transport != nil {
		s.transport.forget(s.servers())
	}
	return nil
}

// HandOver makes another manager lead: to, or if that is empty whoever is
// most up to date. It works at the leader alone.
func (s *Store) HandOver(ctx context.Context, to swarm.NodeID) error {
	ask := s.raft.LeadershipTransfer
	if to != "" {
		server, known := s.server(to)
		if !known || server.Suffrage != raft.Voter {
			return fmt.Errorf("hand over to %s: it is not a manager that votes", to)
		}
		ask = func() raft.Future { return s.raft.LeadershipTransferToServer(server.ID, server.Address) }
	}
	if err := s.change(ctx, ask); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	return nil
}

// change asks raft for a change and waits for it. Raft takes one at a time.
func (s *Store) change(ctx context.Context, ask func() raft.Future) error {
	return s.await(ctx, func() error {
		if err := ask().Error(); err != nil {
			return s.reason(err)
		}
		return nil
	})
}

// await runs what cannot be interrupted, and stops to wait for it when ctx or
// the store ends.
func (s *Store) await(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }() // ends when raft answers
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closed:
		return s.over()
	}
}
