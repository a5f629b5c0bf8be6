package store

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/gitswarm/gitswarm/swarm"
)

// Raft's timers. A follower that has not heard of its leader for patience, and
// up to half as much again, stands for election; see watch. The leader says
// that it is there every 70 to 140 ms.
const (
	patience     = 700 * time.Millisecond
	leaseTimeout = 700 * time.Millisecond // a leader whom no majority answers any more stops to lead
	electionWait = 30 * time.Second       // for Open of a manager that is alone
)

// Open opens the store in cfg.Dir, or begins one there. It reads every entry
// and the newest snapshot before raft does, and refuses what was changed or cut
// off since it was acknowledged. A manager that is alone leads when Open
// returns, and its View shows all that was acknowledged before.
func Open(cfg Config) (*Store, error) {
	s, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	return s, nil
}

func open(cfg Config) (_ *Store, err error) {
	cfg = withDefaults(cfg)
	switch {
	case cfg.Dir == "" || cfg.Node == "" || cfg.Keyring == nil:
		return nil, errors.New("Dir, Node and Keyring are required")
	case (cfg.Peers == nil) != (cfg.Address == ""), cfg.Join && cfg.Peers == nil:
		return nil, errors.New("Address and Peers belong together, and Join needs them")
	}
	var held []io.Closer // given free if something fails
	defer func() {
		for i := len(held) - 1; err != nil && i >= 0; i-- {
			err = errors.Join(err, held[i].Close())
		}
	}()

	if err := os.MkdirAll(filepath.Join(cfg.Dir, logDir), 0o700); err != nil {
		return nil, err
	}
	locked, err := lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	held = append(held, locked)
	if err := checkFormat(cfg.Dir); err != nil {
		return nil, err
	}

	incarnation, err := openIncarnation(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{node: cfg.Node, peers: cfg.Peers, latch: newLatch(), machine: &machine{}, lock: locked, closed: make(chan struct{})}
	s.machine.latch = s.latch
	if s.log, err = openLog(filepath.Join(cfg.Dir, logDir), cfg.Dir, cfg.Keyring, cfg.files(), s.latch); err != nil {
		return nil, err
	}
	held = append(held, closer(s.log.close))
	snaps := &snapshots{dir: filepath.Join(cfg.Dir, snapDir), keyring: cfg.Keyring}
	if err := recoverState(s.machine, s.log, snaps); err != nil {
		return nil, err
	}

	logger := raftLogger(cfg.Log)
	way := s.way(cfg, incarnation, logger)
	held = append(held, closer(way.(raft.WithClose).Close))
	if s.raft, err = startRaft(cfg, s.machine, s.log, snaps, way, logger); err != nil {
		return nil, err
	}
	s.stop = sync.OnceValue(s.raft.Shutdown) // raft's second Shutdown would not wait
	s.latch.run(func() { s.stop() })
	if err := s.awaitLead(cfg, way.LocalAddr()); err != nil {
		held = nil
		return nil, errors.Join(err, s.Close())
	}
	s.watching.Go(s.watch)
	return s, nil
}

// way is raft's transport: over Peers, or within this process for a manager
// that is alone.
func (s *Store) way(cfg Config, incarnation string, logger hclog.Logger) raft.Transport {
	if cfg.Peers == nil {
		_, alone := raft.NewInmemTransport(raft.ServerAddress(cfg.Node))
		return alone
	}
	s.transport = newTransport(cfg.Peers, cfg.Address, incarnation, logger)
	return s.transport
}

type closer func() error

// Close implements io.Closer.
func (c closer) Close() error { return c() }

func withDefaults(cfg Config) Config {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.SnapshotThreshold == 0 {
		cfg.SnapshotThreshold = 4096
	}
	if cfg.SnapshotInterval == 0 {
		cfg.SnapshotInterval = 2 * time.Minute
	}
	if cfg.TrailingLogs == 0 {
		cfg.TrailingLogs = 1024
	}
	return cfg
}

// recoverState reads the newest snapshot into the machine and verifies that
// the log goes on from there to the last entry that was acknowledged.
func recoverState(m *machine, log *sealedLog, snaps *snapshots) error {
	if err := snaps.clean(); err != nil {
		return err
	}
	names, err := snaps.names()
	if err != nil {
		return err
	}
	m.hold(newDB())
	taken := uint64(0)
	if len(names) > 0 {
		path := filepath.Join(snaps.dir, names[0]+snapSuffix)
		meta, db, err := snaps.read(path)
		if err == nil && meta.ID != names[0] {
			err = fmt.Errorf("it is snapshot %s", meta.ID)
		}
		if err != nil {
			return fmt.Errorf("read snapshot %s: %w: restore the directory from a backup", path, err)
		}
		m.hold(db)
		taken = meta.Index
	}
	if err := verifyLog(log, taken); err != nil {
		return fmt.Errorf("%w: restore the directory from a backup", err)
	}
	return dropOutrun(log, taken)
}

// verifyLog reads every entry. The log must begin no later than right after
// the snapshot and end no earlier than at the mark.
func verifyLog(log *sealedLog, snapshot uint64) error {
	first, err := log.FirstIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	last, err := log.LastIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if last > 0 && first > snapshot+1 {
		return fmt.Errorf("read the log: it begins at entry %d, and the newest snapshot ends at %d: a snapshot was lost", first, snapshot)
	}
	if end := max(last, snapshot); end < log.mark.index {
		return fmt.Errorf("read the log: it ends at entry %d, and entry %d was acknowledged: it was cut off or changed", end, log.mark.index)
	}
	for index := first; index <= last && last > 0; index++ {
		var entry raft.Log
		if err := log.GetLog(index, &entry); err != nil {
			return err
		}
		if entry.Type != raft.LogCommand {
			continue
		}
		if _, err := decodeEntry(entry.Data); err != nil {
			return fmt.Errorf("read log entry %d: %w", index, err)
		}
	}
	return nil
}

// startRaft starts raft on a state that was recovered, and begins a cluster
// where there is none, unless this manager is to join one.
func startRaft(cfg Config, m *machine, log *sealedLog, snaps *snapshots, way raft.Transport, logger hclog.Logger) (_ *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil { // raft panics where it cannot write its term
			err = fmt.Errorf("start raft: %v", p)
		}
	}()
	conf := raftConfig(cfg, logger)
	taken, err := snaps.names()
	if err != nil {
		return nil, err
	}
	if log.last == 0 && len(taken) == 0 && !cfg.Join {
		// An earlier beginning may have been cut off after it wrote its term.
		if err := log.SetUint64([]byte(termKey), 0); err != nil {
			return nil, err
		}
		if err := raft.BootstrapCluster(conf, log, log, snaps, way, alone(cfg.Node, way.LocalAddr())); err != nil {
			return nil, fmt.Errorf("begin a cluster: %w", err)
		}
	}
	r, err := raft.NewRaft(conf, m, log, log, snaps, way)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	return r, nil
}

// alone is the member list of a cluster with one manager.
func alone(node swarm.NodeID, address raft.ServerAddress) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(node), Address: address}}}
}

func raftConfig(cfg Config, logger hclog.Logger) *raft.Config {
	conf := raft.DefaultConfig() // with pre-vote: a follower that wakes up disturbs no leader
	conf.LocalID = raft.ServerID(cfg.Node)
	conf.Logger = logger
	conf.SnapshotThreshold = cfg.SnapshotThreshold
	conf.SnapshotInterval = cfg.SnapshotInterval
	conf.TrailingLogs = cfg.TrailingLogs
	conf.NoSnapshotRestoreOnStart = true // recoverState did
	conf.NoLegacyTelemetry = true
	conf.ShutdownOnRemove = false // the daemon ends the store of a manager that became a worker
	conf.HeartbeatTimeout = patience
	conf.ElectionTimeout = patience
	conf.LeaderLeaseTimeout = leaseTimeout
	return conf
}

// awaitLead checks that this manager is a member and, if it is alone, waits
// until it leads, has applied its log, and stands in it with its address.
func (s *Store) awaitLead(cfg Config, address raft.ServerAddress) error {
	servers := s.servers()
	own, member := s.server(cfg.Node)
	switch {
	case !member && cfg.Join:
		return nil
	case !member:
		return fmt.Errorf("it belongs to the managers %v, not to %s", servers, cfg.Node)
	case len(servers) > 1:
		return nil
	}

	deadline := time.Now().Add(electionWait)
	for s.stand(); s.raft.State() != raft.Leader; time.Sleep(time.Millisecond) {
		if err := s.latch.error(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("no leader within 30 s")
		}
	}
	if err := s.raft.Barrier(electionWait).Error(); err != nil {
		return s.reason(err)
	}
	if own.Address != address && cfg.Peers != nil {
		if err := s.raft.AddVoter(own.ID, address, 0, electionWait).Error(); err != nil {
			return s.reason(err)
		}
	}
	return s.latch.error()
}
