package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-memdb"
	"github.com/hashicorp/raft"

	"github.com/gitswarm/gitswarm/swarm"
)

// Recover makes a closed store that of the only manager, for when the majority
// of a cluster is lost for good. What was in its log counts as accepted, also
// what had not been agreed yet. The index goes far ahead, as with Import, and
// the other managers' nodes are workers from then on; if one of them comes back
// with its old store, neither takes part in the other's cluster.
func Recover(cfg Config, now time.Time) error {
	if err := recoverAlone(cfg, now); err != nil {
		return fmt.Errorf("recover store %s: %w", cfg.Dir, err)
	}
	return nil
}

func recoverAlone(cfg Config, now time.Time) error {
	if cfg.Dir == "" || cfg.Node == "" || cfg.Keyring == nil {
		return errors.New("Dir, Node and Keyring are required")
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, formatFile)); err != nil {
		return fmt.Errorf("there is no store to recover: %w", err)
	}
	return whileClosed(cfg, func(log *sealedLog, snaps *snapshots) error {
		db, err := settled(log, snaps)
		if err != nil {
			return err
		}
		return goOnAlone(cfg, afresh(db, cfg.Node, now), log, snaps)
	})
}

// whileClosed opens the log and the snapshots of a store that nobody has open.
func whileClosed(cfg Config, do func(*sealedLog, *snapshots) error) (err error) {
	locked, err := lock(cfg.Dir)
	if err != nil {
		return err
	}
	defer locked.Close()
	if err := checkFormat(cfg.Dir); err != nil {
		return err
	}
	log, err := openLog(filepath.Join(cfg.Dir, logDir), cfg.Dir, cfg.Keyring, cfg.files(), newLatch())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.close()) }()
	return do(log, &snapshots{dir: filepath.Join(cfg.Dir, snapDir), keyring: cfg.Keyring})
}

// settled is the state with all that the log holds, agreed or not.
func settled(log *sealedLog, snaps *snapshots) (*memdb.MemDB, error) {
	m := &machine{latch: log.latch}
	if err := recoverState(m, log, snaps); err != nil {
		return nil, err
	}
	db := m.db.Load()
	return db, replay(db, log)
}

// replay applies what the log holds beyond the state.
func replay(db *memdb.MemDB, log *sealedLog) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	for index := max(first, newView(db).Index()+1); index <= log.last && log.last > 0; index++ {
		var entry raft.Log
		if err := log.GetLog(index, &entry); err != nil {
			return err
		}
		if entry.Type != raft.LogCommand {
			continue
		}
		c, err := decodeEntry(entry.Data)
		if err != nil {
			return fmt.Errorf("read log entry %d: %w", index, err)
		}
		_, _ = apply(db, index, c) // what it refuses was refused before
	}
	return nil
}

// goOnAlone puts a state in the place of all that a folder holds. Cut off at
// any moment, the folder is either as it was or recovered.
func goOnAlone(cfg Config, view *View, log *sealedLog, snaps *snapshots) error {
	term, err := log.GetUint64([]byte(termKey))
	if err != nil {
		return fmt.Errorf("read the term: %w", err)
	}
	if _, err := newIncarnation(cfg.Dir); err != nil {
		return err
	}
	sink, err := snaps.Create(raft.SnapshotVersionMax, view.Index(), term, alone(cfg.Node, raft.ServerAddress(cfg.Node)), 1, nil)
	if err != nil {
		return err
	}
	if err := writeState(sink, view.txn); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	return dropOutrun(log, view.Index())
}

// dropOutrun empties a log that ends before the snapshot does: nothing could
// be appended to it. Such a log is left by a crash after a snapshot came in.
func dropOutrun(log *sealedLog, snapshot uint64) error {
	if log.last == 0 || log.last >= snapshot {
		return nil
	}
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	return log.DeleteRange(first, log.last)
}

// ClusterIn reads a closed store's cluster: what its log holds counts as
// accepted. It reports false where the store is of a build that knew none; then
// the cluster has an id alone.
func ClusterIn(cfg Config) (cluster swarm.Cluster, known bool, err error) {
	err = whileClosed(cfg, func(log *sealedLog, snaps *snapshots) error {
		db, err := settled(log, snaps)
		if err != nil {
			return err
		}
		view := newView(db)
		if cluster, known = view.Cluster(); !known {
			cluster.ID = view.ClusterID()
		}
		return nil
	})
	if err != nil {
		return cluster, false, fmt.Errorf("read the cluster in store %s: %w", cfg.Dir, err)
	}
	return cluster, known, nil
}
