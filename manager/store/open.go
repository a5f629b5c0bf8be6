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
)

// Raft's timers. A manager that is alone does not wait for its election, see
// electAlone, and then only looks at its own lease every aloneTimeout.
const (
	aloneTimeout    = 2 * time.Second
	electionTimeout = time.Second
	leaseTimeout    = 500 * time.Millisecond
	electionWait    = 30 * time.Second // for Open of a manager that is alone
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
	if cfg.Dir == "" || cfg.Node == "" || cfg.Keyring == nil {
		return nil, errors.New("Dir, Node and Keyring are required")
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

	l, logger := newLatch(), raftLogger(cfg.Log)
	log, err := openLog(filepath.Join(cfg.Dir, logDir), cfg.Dir, cfg.Keyring, cfg.vfs, l)
	if err != nil {
		return nil, err
	}
	held = append(held, closer(log.close))
	snaps := &snapshots{dir: filepath.Join(cfg.Dir, snapDir), keyring: cfg.Keyring}
	m := &machine{latch: l}
	if err := recoverState(m, log, snaps); err != nil {
		return nil, err
	}

	r, err := startRaft(cfg, m, log, snaps, logger)
	if err != nil {
		return nil, err
	}
	s := &Store{
		raft: r, machine: m, log: log, latch: l, lock: locked, closed: make(chan struct{}),
		stop: sync.OnceValue(r.Shutdown), // raft's second Shutdown would not wait
	}
	l.run(func() { s.stop() })
	if err := s.awaitLead(cfg); err != nil {
		held = nil
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
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
	if cfg.transport == nil {
		_, cfg.transport = raft.NewInmemTransport(raft.ServerAddress(cfg.Node))
	}
	if cfg.servers == nil {
		cfg.servers = []raft.Server{{ID: raft.ServerID(cfg.Node), Address: cfg.transport.LocalAddr()}}
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
	m.db.Store(newDB())
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
		m.db.Store(db)
		taken = meta.Index
	}
	if err := verifyLog(log, taken); err != nil {
		return fmt.Errorf("%w: restore the directory from a backup", err)
	}
	return nil
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
// where there is none.
func startRaft(cfg Config, m *machine, log *sealedLog, snaps *snapshots, logger hclog.Logger) (_ *raft.Raft, err error) {
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
	if log.last == 0 && len(taken) == 0 {
		// An earlier beginning may have been cut off after it wrote its term.
		if err := log.SetUint64([]byte(termKey), 0); err != nil {
			return nil, err
		}
		first := raft.Configuration{Servers: cfg.servers}
		if err := raft.BootstrapCluster(conf, log, log, snaps, cfg.transport, first); err != nil {
			return nil, fmt.Errorf("begin a cluster: %w", err)
		}
	}
	r, err := raft.NewRaft(conf, m, log, log, snaps, cfg.transport)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	return r, nil
}

func raftConfig(cfg Config, logger hclog.Logger) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(cfg.Node)
	conf.Logger = logger
	conf.SnapshotThreshold = cfg.SnapshotThreshold
	conf.SnapshotInterval = cfg.SnapshotInterval
	conf.TrailingLogs = cfg.TrailingLogs
	conf.NoSnapshotRestoreOnStart = true // recoverState did
	conf.NoLegacyTelemetry = true
	conf.HeartbeatTimeout = electionTimeout
	conf.ElectionTimeout = electionTimeout
	conf.LeaderLeaseTimeout = leaseTimeout
	if len(cfg.servers) == 1 {
		conf.HeartbeatTimeout = aloneTimeout
		conf.ElectionTimeout = aloneTimeout
		conf.LeaderLeaseTimeout = aloneTimeout
	}
	return conf
}

// awaitLead checks that this manager is a member and, if it is alone, waits
// until it leads and has applied its log.
func (s *Store) awaitLead(cfg Config) error {
	future := s.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return s.reason(err)
	}
	servers := future.Configuration().Servers
	member := false
	for _, server := range servers {
		member = member || server.ID == raft.ServerID(cfg.Node)
	}
	if !member {
		return fmt.Errorf("it belongs to the managers %v, not to %s", servers, cfg.Node)
	}
	if len(servers) > 1 {
		return nil
	}

	if err := electAlone(cfg); err != nil {
		return err
	}
	deadline := time.Now().Add(electionWait)
	for s.raft.State() != raft.Leader {
		if err := s.latch.error(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("no leader within 30 s")
		}
		time.Sleep(time.Millisecond)
	}
	if err := s.raft.Barrier(electionWait).Error(); err != nil {
		return s.reason(err)
	}
	return s.latch.error()
}

// electAlone tells the one manager there is to stand for election at once, as
// a leader that hands over does: raft would wait for its timers first.
func electAlone(cfg Config) error {
	own, ok := cfg.transport.(*raft.InmemTransport)
	if !ok {
		return nil
	}
	_, caller := raft.NewInmemTransport("")
	defer caller.Close()
	caller.Connect(own.LocalAddr(), own)
	var answer raft.TimeoutNowResponse
	request := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	if err := caller.TimeoutNow(raft.ServerID(cfg.Node), own.LocalAddr(), request, &answer); err != nil {
		return fmt.Errorf("stand for election: %w", err)
	}
	return nil
}
