package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/go-memdb"
	"github.com/hashicorp/raft"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/durable"
	"github.com/gitswarm/gitswarm/internal/seal"
)

// snapshots keeps raft's snapshots: one sealed file each, DIR/INDEX-TERM.snap.
// A file is read back whole before raft may drop the log that it replaces. What
// lies in the folder under such a name must open: raft would pass over a
// snapshot that does not, and lose what the log no longer holds.
type snapshots struct {
	dir     string
	keyring *seal.Keyring
}

const (
	snapSuffix    = ".snap"
	snapFormat    = 1
	keptSnapshots = 2
	maxSnapHeader = 1 << 20 // bytes
)

var snapContext = []byte("gitswarm snapshot")

// snapHeader is what stands in front of the state in a snapshot.
type snapHeader struct {
	Format             int                `cbor:"1,keyasint,omitempty"`
	Index              uint64             `cbor:"2,keyasint,omitempty"`
	Term               uint64             `cbor:"3,keyasint,omitempty"`
	Version            int                `cbor:"4,keyasint,omitempty"` // of raft's own meta
	Configuration      raft.Configuration `cbor:"5,keyasint,omitempty"`
	ConfigurationIndex uint64             `cbor:"6,keyasint,omitempty"`
}

func snapshotName(index, term uint64) string { return fmt.Sprintf("%020d-%020d", index, term) }

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	header, err := codec.Encode(snapHeader{
		Format: snapFormat, Index: index, Term: term, Version: int(version),
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	})
	if err != nil {
		return nil, fmt.Errorf("create snapshot %d: %w", index, err)
	}
	f, err := os.CreateTemp(s.dir, "new-*")
	if err != nil {
		return nil, fmt.Errorf("create snapshot %d: %w", index, err)
	}
	sink := &snapshotSink{store: s, file: f, id: snapshotName(index, term)}
	if sink.sealed, err = s.keyring.NewWriter(f, snapContext); err == nil {
		_, err = sink.sealed.Write(append(binary.AppendUvarint(nil, uint64(len(header))), header...))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create snapshot %d: %w", index, err), sink.Cancel())
	}
	return sink, nil
}

// snapshotSink writes one snapshot.
type snapshotSink struct {
	store  *snapshots
	file   *os.File
	sealed *seal.Writer
	id     string
	done   bool
}

// ID implements raft.SnapshotSink.
func (s *snapshotSink) ID() string { return s.id }

// Write implements io.Writer.
func (s *snapshotSink) Write(p []byte) (int, error) { return s.sealed.Write(p) }

// Cancel implements raft.SnapshotSink. After Close it does nothing.
func (s *snapshotSink) Cancel() error {
	if s.done {
		return nil
	}
	s.done = true
	return errors.Join(s.file.Close(), os.Remove(s.file.Name()))
}

// Close makes the snapshot safe on disk, reads it back, and gives it its name.
func (s *snapshotSink) Close() error {
	if s.done {
		return nil
	}
	if err := s.finish(); err != nil {
		return errors.Join(fmt.Errorf("keep snapshot %s: %w", s.id, err), s.Cancel())
	}
	s.done = true
	return s.store.prune()
}

func (s *snapshotSink) finish() error {
	if err := s.sealed.Close(); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	if _, err := s.store.check(s.file.Name()); err != nil {
		return fmt.Errorf("read it back: %w", err)
	}
	if err := os.Rename(s.file.Name(), filepath.Join(s.store.dir, s.id+snapSuffix)); err != nil {
		return err
	}
	return errors.Join(s.file.Close(), durable.SyncFolder(s.store.dir))
}

// read verifies a whole snapshot file and returns its meta, without Size, and
// its state.
func (s *snapshots) read(path string) (*raft.SnapshotMeta, *memdb.MemDB, error) {
	meta, content, err := s.open(path)
	if err != nil {
		return nil, nil, err
	}
	defer content.Close()
	db, err := readState(content)
	return meta, db, err
}

// check verifies a whole snapshot file, without room for its state in memory,
// and returns its meta.
func (s *snapshots) check(path string) (*raft.SnapshotMeta, error) {
	meta, content, err := s.open(path)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	meta.Size, err = checkState(content)
	return meta, err
}

// open begins to read a snapshot file: its meta, without Size, and its state.
func (s *snapshots) open(path string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	header, content, err := s.header(f)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	meta := &raft.SnapshotMeta{
		Version: raft.SnapshotVersion(header.Version), ID: snapshotName(header.Index, header.Term),
		Index: header.Index, Term: header.Term,
		Configuration: header.Configuration, ConfigurationIndex: header.ConfigurationIndex,
	}
	return meta, content, nil
}

func (s *snapshots) header(f *os.File) (snapHeader, io.ReadCloser, error) {
	sealed, err := s.keyring.NewReader(f, snapContext)
	if err != nil {
		return snapHeader{}, nil, err
	}
	clear := bufio.NewReader(sealed)
	length, err := binary.ReadUvarint(clear)
	if err != nil {
		return snapHeader{}, nil, err
	}
	if length > maxSnapHeader {
		return snapHeader{}, nil, fmt.Errorf("its header has %d bytes", length)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(clear, data); err != nil {
		return snapHeader{}, nil, err
	}
	var header snapHeader
	if err := codec.Decode(data, &header); err != nil {
		return snapHeader{}, nil, err
	}
	if header.Format > snapFormat {
		return snapHeader{}, nil, fmt.Errorf("format %d: %w", header.Format, errNewer)
	}
	return header, struct {
		io.Reader
		io.Closer
	}{clear, f}, nil
}

// List implements raft.SnapshotStore. It gives the newest snapshot alone:
// raft falls back on an older one only where the newest fails, and then the
// log has a gap.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	names, err := s.names()
	if err != nil || len(names) == 0 {
		return nil, err
	}
	meta, content, err := s.open(filepath.Join(s.dir, names[0]+snapSuffix))
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s: %w", names[0], err)
	}
	return []*raft.SnapshotMeta{meta}, content.Close()
}

// Open implements raft.SnapshotStore. The file is read twice, so that not a
// byte of a damaged snapshot is given out.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	path := filepath.Join(s.dir, id+snapSuffix)
	meta, err := s.check(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	_, content, err := s.open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	return meta, content, nil
}

// names are the ids of all snapshots, newest first.
func (s *snapshots) names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(entry.Name(), snapSuffix); ok {
			names = append(names, name)
		}
	}
	slices.Reverse(names)
	return names, nil
}

// prune removes all but the newest snapshots.
func (s *snapshots) prune() error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, name := range names[min(len(names), keptSnapshots):] {
		if err := os.Remove(filepath.Join(s.dir, name+snapSuffix)); err != nil {
			return fmt.Errorf("remove snapshot %s: %w", name, err)
		}
	}
	return nil
}

// clean makes the folder, and removes what interrupted snapshots left in it.
func (s *snapshots) clean() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "new-*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
