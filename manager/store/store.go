// Package store keeps the cluster's state: commands go through raft's log into
// tables in memory, and whoever asks sees them as they were at one index. What
// reaches the disk is sealed. It takes no decision, reads no clock while it
// applies a command, and after the first write that fails it accepts nothing
// more.
package store

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// Reasons why a command is not accepted.
var (
	// ErrNotLeader means that another manager leads, or none. The command was
	// not accepted, unless the error is ErrUncertain too.
	ErrNotLeader = errors.New("this manager does not lead")
	// ErrUncertain means that the leader was lost while the command was under
	// way: it may have been accepted, or may yet be.
	ErrUncertain = errors.New("the command may have been accepted")
	// ErrLevel means that a manager's build is too old for the command.
	ErrLevel = errors.New("not every manager understands the command yet")
	// ErrFailed means that the store stopped for good on a failure, see Failed.
	ErrFailed = errors.New("the store has stopped")
	// ErrClosed means that Close was called.
	ErrClosed = errors.New("the store is closed")
)

// Config is what a Store needs.
type Config struct {
	Dir     string        // required: the store's own folder, made if it is absent
	Node    swarm.NodeID  // required: this manager; always the same for one Dir
	Keyring *seal.Keyring // required
	Log     *slog.Logger  // optional: raft's warnings; nil drops them
	Address string        // with Peers: host:port at which other managers reach this one
	Peers   Peers         // optional: the way to other managers; nil means that this one is alone
	Join    bool          // optional: where Dir is new, begin without a state and wait to be added to a cluster

	SnapshotThreshold uint64        // optional: entries between snapshots; 4096 unless set
	SnapshotInterval  time.Duration // optional: how often that is looked at; 2 min unless set
	TrailingLogs      uint64        // optional: entries kept behind a snapshot; 1024 unless set
	Disk              Disk          // optional: instead of the files of the log that entries go to; a simulation's

	vfs types.VFS // tests: disks that fail
}

// Store is one manager's copy of the cluster's state. It is safe for
// concurrent use.
type Store struct {
	node      swarm.NodeID
	peers     Peers
	raft      *raft.Raft
	transport *transport // nil without Peers
	machine   *machine
	log       *sealedLog
	latch     *latch
	lock      io.Closer
	stop      func() raft.Future // tells raft to stop; the future waits until it has
	settled   atomic.Uint64      // the newest term that this manager led and committed in, see ReadIndex
	watching  sync.WaitGroup
	closing   sync.Once
	closed    chan struct{}
	err       error // of Close
}

// reason turns raft's errors into the store's.
func (s *Store) reason(err error) error {
	if failed := s.latch.error(); failed != nil {
		return failed
	}
	switch {
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrClosed
	case errors.Is(err, raft.ErrLeadershipLost):
		return fmt.Errorf("%w any more: %w", ErrNotLeader, ErrUncertain)
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	}
	return err
}

// over is why a store takes no more commands.
func (s *Store) over() error {
	if failed := s.latch.error(); failed != nil {
		return failed
	}
	return ErrClosed
}

// View returns the state as it is now.
func (s *Store) View() *View { return newView(s.machine.db.Load()) }

// Subscribe begins to collect what commands touch.
func (s *Store) Subscribe() *Subscription { return s.machine.hub.subscribe() }

// Leading tells whether this manager leads, each time that changes; what is
// not read is overwritten by what follows. It is for one reader. A new leader
// proposes Lead first: once that returns, its View is complete.
func (s *Store) Leading() <-chan bool { return s.raft.LeaderCh() }

// Failed gives the failure that stopped the store, once: a log that could not
// be written, or an entry that a newer build wrote. It is for one reader.
func (s *Store) Failed() <-chan error { return s.latch.failed }

// Snapshot writes the state to disk now and shortens the log.
func (s *Store) Snapshot() error {
	err := s.raft.Snapshot().Error()
	if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("take snapshot: %w", s.reason(err))
	}
	return nil
}

// Close stops raft and gives the folder free. Views stay usable.
func (s *Store) Close() error {
	s.closing.Do(func() {
		close(s.closed)
		s.watching.Wait()
		s.err = s.stop().Error()
		s.err = errors.Join(s.err, s.log.close(), s.lock.Close())
	})
	return s.err
}
