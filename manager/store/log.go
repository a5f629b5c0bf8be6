package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/gitswarm/gitswarm/internal/seal"
)

// segmentSize is how much of the log goes into one file, in bytes; the file
// takes that space from the start.
const segmentSize = 16 << 20

// sealedLog is raft's log and stable store. It seals every entry before it
// reaches the disk and latches on the first write that fails: after a failed
// fsync nobody knows what the disk holds, and a later one may say yes to
// nothing.
type sealedLog struct {
	wal     *wal.WAL
	keyring *seal.Keyring
	mark    *mark
	latch   *latch

	mu   sync.Mutex // held while something is written
	last uint64
}

// segments opens also those segments that were sealed when entries were taken
// back from their end, as a manager does whose entries were never agreed on.
// raft-wal 0.4.0 marks them as sealed but writes no index into them, and would
// not open them again: https://github.com/hashicorp/raft-wal/issues/31.
type segments struct{ *segment.Filer }

// Open implements types.SegmentFiler.
func (s segments) Open(info types.SegmentInfo) (types.SegmentReader, error) {
	if info.IndexStart == 0 {
		return s.RecoverTail(info) // finds the entries by reading them
	}
	return s.Filer.Open(info)
}

func openLog(dir, root string, keyring *seal.Keyring, vfs types.VFS, l *latch) (*sealedLog, error) {
	if vfs == nil {
		vfs = walfs.New()
	}
	w, err := wal.Open(dir,
		wal.WithMetaStore(&walMeta{keyring: keyring}),
		wal.WithSegmentFiler(segments{segment.NewFiler(dir, vfs)}),
		wal.WithSegmentSize(segmentSize),
		wal.WithLogger(walLogger(l)))
	if err != nil {
		return nil, err
	}
	m, err := openMark(root)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	last, err := w.LastIndex()
	if err != nil {
		return nil, errors.Join(err, w.Close(), m.file.Close())
	}
	return &sealedLog{wal: w, keyring: keyring, mark: m, latch: l, last: last}, nil
}

func (s *sealedLog) close() error { return errors.Join(s.wal.Close(), s.mark.file.Close()) }

// IsMonotonic implements raft.MonotonicLogStore.
func (s *sealedLog) IsMonotonic() bool { return s.wal.IsMonotonic() }

// FirstIndex implements raft.LogStore.
func (s *sealedLog) FirstIndex() (uint64, error) { return s.wal.FirstIndex() }

// LastIndex implements raft.LogStore.
func (s *sealedLog) LastIndex() (uint64, error) { return s.wal.LastIndex() }

// GetLog implements raft.LogStore.
func (s *sealedLog) GetLog(index uint64, log *raft.Log) error {
	if err := s.wal.GetLog(index, log); err != nil {
		return err
	}
	if log.Index != index {
		return fmt.Errorf("read log entry %d: the log has entry %d there", index, log.Index)
	}
	clear, err := s.keyring.Open(log.Data, entryContext(log))
	if err != nil {
		return fmt.Errorf("read log entry %d: %w", index, err)
	}
	log.Data = clear
	return nil
}

// StoreLog implements raft.LogStore.
func (s *sealedLog) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (s *sealedLog) StoreLogs(logs []*raft.Log) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.latch.error(); err != nil {
		return err
	}
	if len(logs) == 0 {
		return nil
	}

	sealed := make([]*raft.Log, len(logs))
	for i, log := range logs {
		data, err := s.keyring.Seal(log.Data, entryContext(log))
		if err != nil {
			return s.latch.fail("seal log entry", err)
		}
		one := *log // raft applies its own, in clear
		one.Data = data
		sealed[i] = &one
	}
	if err := s.wal.StoreLogs(sealed); err != nil {
		return s.latch.fail("append to the log", err)
	}
	s.last = logs[len(logs)-1].Index
	if err := s.mark.set(s.last); err != nil {
		return s.latch.fail("mark the end of the log", err)
	}
	return nil
}

// DeleteRange implements raft.LogStore.
func (s *sealedLog) DeleteRange(from, to uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.latch.error(); err != nil {
		return err
	}
	if to >= s.last && from <= s.last {
		if err := s.mark.lower(from - 1); err != nil {
			return s.latch.fail("mark the end of the log", err)
		}
	}
	if err := s.wal.DeleteRange(from, to); err != nil {
		return s.latch.fail("shorten the log", err)
	}
	last, err := s.wal.LastIndex()
	if err != nil {
		return s.latch.fail("shorten the log", err)
	}
	s.last = last
	return nil
}

// Set implements raft.StableStore.
func (s *sealedLog) Set(key, value []byte) error {
	if err := s.latch.error(); err != nil {
		return err
	}
	if err := s.wal.Set(key, value); err != nil {
		return s.latch.fail("write the vote", err)
	}
	return nil
}

// Get implements raft.StableStore.
func (s *sealedLog) Get(key []byte) ([]byte, error) { return s.wal.Get(key) }

// SetUint64 implements raft.StableStore. Raft panics when it cannot write its
// term, and would take the node's agent with it. So a failure waits here until
// raft was told to stop: then the term, which nothing uses any more, may count
// as written.
func (s *sealedLog) SetUint64(key []byte, value uint64) error {
	err := s.latch.error()
	if err == nil {
		if err = s.wal.SetUint64(key, value); err == nil {
			return nil
		}
		err = s.latch.fail("write the term", err)
	}
	if s.latch.waitStopped() && string(key) == termKey {
		return nil
	}
	return err
}

// termKey is under which raft keeps its term.
const termKey = "CurrentTerm"

// GetUint64 implements raft.StableStore.
func (s *sealedLog) GetUint64(key []byte) (uint64, error) { return s.wal.GetUint64(key) }

// entryContext binds an entry to its place in the log.
func entryContext(log *raft.Log) []byte {
	b := []byte("gitswarm log entry")
	b = binary.BigEndian.AppendUint64(b, log.Index)
	b = binary.BigEndian.AppendUint64(b, log.Term)
	return append(b, byte(log.Type))
}

// latch closes a store for good on its first failure.
type latch struct {
	mu      sync.Mutex
	err     error
	failed  chan error    // gets the failure, once
	stopped chan struct{} // closed once raft was told to stop
	stop    func()        // tells raft to stop; nil until raft runs
	running bool
}

func newLatch() *latch {
	return &latch{failed: make(chan error, 1), stopped: make(chan struct{})}
}

// error is nil until the first failure.
func (l *latch) error() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// fail latches, unless it did before, and returns the failure that counts.
func (l *latch) fail(doing string, cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = fmt.Errorf("%s: %w: %w: %s", doing, cause, ErrFailed, wayOut(cause))
		l.failed <- l.err
		l.halt()
	}
	return l.err
}

// halt tells raft to stop; it returns at once. l.mu is held.
func (l *latch) halt() {
	if l.stop == nil {
		return
	}
	stop := l.stop
	l.stop = nil
	go func() {
		stop()
		close(l.stopped)
	}()
}

// run says how raft is told to stop. If the latch failed already, it is.
func (l *latch) run(stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop, l.running = stop, true
	if l.err != nil {
		l.halt()
	}
}

// waitStopped waits until a raft that runs was told to stop. It reports false
// if none runs yet.
func (l *latch) waitStopped() bool {
	l.mu.Lock()
	running := l.running
	l.mu.Unlock()
	if running {
		<-l.stopped
	}
	return running
}

func wayOut(cause error) string {
	switch {
	case errors.Is(cause, syscall.ENOSPC), errors.Is(cause, syscall.EDQUOT):
		return "free some space on that disk, then restart gitswarm"
	case errors.Is(cause, errNewer):
		return "nothing was lost"
	default:
		return "check that disk (dmesg), then restart gitswarm; containers keep running meanwhile"
	}
}
