package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-memdb"
	"github.com/hashicorp/raft"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// Export writes the whole state as this manager has it now, in clear, and
// returns its index. Equal states give equal bytes.
func (s *Store) Export(to io.Writer) (uint64, error) {
	view := s.View()
	if err := writeState(to, view.txn); err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	return view.Index(), nil
}

// Imported is what Import made.
type Imported struct {
	Index   uint64 // of the state now; beyond every index that its cluster ever had
	Cluster swarm.Cluster
}

// Import begins a store in cfg.Dir, which must not be there or be empty, with
// a state that Export wrote. This manager leads alone; all other nodes are
// workers. The index goes far ahead: agents and managers of that cluster may
// have seen later ones than the exported, and take no earlier one.
func Import(cfg Config, from io.Reader, now time.Time) (Imported, error) {
	imported, err := load(cfg, from, now)
	if err != nil {
		return Imported{}, fmt.Errorf("import into store %s: %w", cfg.Dir, err)
	}
	return imported, nil
}

func load(cfg Config, from io.Reader, now time.Time) (Imported, error) {
	if cfg.Dir == "" || cfg.Node == "" || cfg.Keyring == nil {
		return Imported{}, errors.New("Dir, Node and Keyring are required")
	}
	if entries, err := os.ReadDir(cfg.Dir); err == nil && len(entries) > 0 {
		return Imported{}, errors.New("it is not empty: `gitswarm leave --force` removes what this machine has of a cluster")
	}
	db, err := readState(from)
	if err != nil {
		return Imported{}, err
	}
	view := afresh(db, cfg.Node, now)
	if err := begin(cfg, view); err != nil {
		return Imported{}, err
	}
	cluster, _ := view.Cluster()
	return Imported{Index: view.Index(), Cluster: cluster}, nil
}

// afresh makes a state one that a manager goes on from alone, whatever its
// cluster did after it was written.
func afresh(db *memdb.MemDB, node swarm.NodeID, now time.Time) *View {
	txn := db.Txn(true)
	old, _ := get[meta](txn, tableMeta, tableMeta)
	ch := &change{txn: txn, meta: old, index: beyond(old.Index, now), now: old.Now}
	if now.After(ch.now) {
		ch.now = now
	}
	for _, other := range list[swarm.Node](txn, tableNodes, byID) {
		if other.Role == swarm.RoleManager && other.ID != node {
			other.Role = swarm.RoleWorker
			put(txn, tableNodes, other)
		}
	}
	ch.event(swarm.Event{Kind: "operator", Node: node, Text: fmt.Sprintf(
		"one manager goes on alone with the state of %s (index %d)", old.Now.UTC().Format(time.RFC3339), old.Index)})
	ch.meta.Index, ch.meta.Now = ch.index, ch.now
	put(txn, tableMeta, ch.meta)
	txn.Commit()
	return newView(db)
}

// beyond is an index that no log which this one was part of has reached, or
// will: no cluster writes 2^20 entries a second. It stays below 2^53, what
// programs keep in a float, until the year 2242.
func beyond(index uint64, now time.Time) uint64 {
	const aSecond = 1 << 20 // entries
	return max(index+3600*aSecond, uint64(max(now.Unix(), 0))*aSecond)
}

// begin writes a folder that holds a state as its only snapshot.
func begin(cfg Config, view *View) error {
	if err := os.MkdirAll(filepath.Join(cfg.Dir, logDir), 0o700); err != nil {
		return err
	}
	return whileClosed(cfg, func(log *sealedLog, snaps *snapshots) error {
		const term = 1
		if err := log.SetUint64([]byte(termKey), term); err != nil {
			return err
		}
		if err := snaps.clean(); err != nil {
			return err
		}
		only := alone(cfg.Node, raft.ServerAddress(cfg.Node)) // Open puts the address right
		sink, err := snaps.Create(raft.SnapshotVersionMax, view.Index(), term, only, 1, nil)
		if err != nil {
			return err
		}
		if err := writeState(sink, view.txn); err != nil {
			return errors.Join(err, sink.Cancel())
		}
		return sink.Close()
	})
}

// Keys are the data keys that log and snapshots are sealed with, see
// seal.Keyring.Retire.
func (s *Store) Keys() (map[seal.KeyID]bool, error) {
	keys := make(map[seal.KeyID]bool)
	if err := s.log.keys(keys); err != nil {
		return nil, fmt.Errorf("find the keys of the log: %w", err)
	}
	dir := filepath.Dir(s.log.mark.file.Name())
	snapshots, err := filepath.Glob(filepath.Join(dir, snapDir, "*"+snapSuffix))
	if err != nil {
		return nil, fmt.Errorf("find the keys of snapshots: %w", err)
	}
	for _, path := range append(snapshots, filepath.Join(dir, logDir, walMetaFile)) {
		if err := keyOfFile(keys, path); err != nil && !errors.Is(err, os.ErrNotExist) { // a snapshot may go meanwhile
			return nil, fmt.Errorf("find the key of %s: %w", path, err)
		}
	}
	return keys, nil
}

func keyOfFile(keys map[seal.KeyID]bool, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	header := make([]byte, seal.HeaderSize)
	if _, err := io.ReadFull(f, header); err != nil {
		return err
	}
	key, err := seal.KeyOf(header)
	if err != nil {
		return err
	}
	keys[key] = true
	return nil
}

// keys adds those of all entries.
func (s *sealedLog) keys(keys map[seal.KeyID]bool) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	for index := first; index <= last && last > 0; index++ {
		var entry raft.Log
		err := s.wal.GetLog(index, &entry)
		if errors.Is(err, raft.ErrLogNotFound) { // the log was shortened meanwhile
			continue
		}
		if err != nil {
			return fmt.Errorf("read log entry %d: %w", index, err)
		}
		key, err := seal.KeyOf(entry.Data)
		if err != nil {
			return fmt.Errorf("log entry %d: %w", index, err)
		}
		keys[key] = true
	}
	return nil
}
