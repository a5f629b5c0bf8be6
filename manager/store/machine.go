package store

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"
	"github.com/hashicorp/raft"
)

// machine is raft's state machine: it gives each entry to apply.
type machine struct {
	progress
	db    atomic.Pointer[memdb.MemDB]
	hub   hub
	latch *latch
}

// Apply implements raft.FSM. An entry that this build does not understand
// stops the manager: from there on its state would differ from the others'.
func (m *machine) Apply(entry *raft.Log) any {
	if err := m.latch.error(); err != nil {
		return err
	}
	c, err := decodeEntry(entry.Data)
	if err != nil {
		return m.latch.fail(fmt.Sprintf("apply log entry %d", entry.Index), err)
	}
	touched, err := apply(m.db.Load(), entry.Index, c)
	m.reach(entry.Index)
	m.hub.touch(entry.Index, touched)
	if err != nil {
		return err
	}
	return nil
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.latch.error(); err != nil {
		return nil, err
	}
	return stateSnapshot{m.db.Load().Txn(false)}, nil
}

// Restore implements raft.FSM.
func (m *machine) Restore(from io.ReadCloser) error {
	defer from.Close()
	db, err := readState(from)
	if err != nil {
		return err
	}
	m.hold(db)
	return nil
}

// hold makes db the state.
func (m *machine) hold(db *memdb.MemDB) {
	m.db.Store(db)
	index := newView(db).Index()
	m.reach(index)
	m.hub.touch(index, marks{everything: true})
}

// stateSnapshot is the state at one index, on its way to a file.
type stateSnapshot struct{ txn *memdb.Txn }

// Persist implements raft.FSMSnapshot.
func (s stateSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := writeState(sink, s.txn); err != nil {
		return err // raft cancels the sink
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (stateSnapshot) Release() {}
