package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft-wal/types"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/durable"
	"github.com/gitswarm/gitswarm/internal/seal"
)

// walMeta keeps what the log must know of its segments, and raft's term and
// vote, in one small sealed file that is replaced whole. It is written only at
// elections and when a segment begins or goes, never for an entry.
type walMeta struct {
	keyring *seal.Keyring
	mu      sync.Mutex
	path    string
	content walMetaContent
}

type walMetaContent struct {
	State  types.PersistentState `cbor:"1,keyasint"`
	Stable map[string][]byte     `cbor:"2,keyasint"`
}

const walMetaFile = "meta"

var walMetaContext = []byte("gitswarm log meta")

// Load implements types.MetaStore. It refuses a folder with segments but
// without the file: the log would take the segments for leftovers.
func (m *walMeta) Load(dir string) (types.PersistentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()

	m.path = filepath.Join(dir, walMetaFile)
	sealed, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
		if err == nil && len(segments) > 0 {
			err = fmt.Errorf("%s is missing beside %d segments: restore the directory from a backup", m.path, len(segments))
		}
		return types.PersistentState{}, err
	}
	if err != nil {
		return types.PersistentState{}, err
	}
	clear, err := m.keyring.Open(sealed, walMetaContext)
	if err == nil {
		err = codec.Decode(clear, &m.content)
	}
	if err != nil {
		return types.PersistentState{}, fmt.Errorf("read %s: %w: restore the directory from a backup", m.path, err)
	}
	return m.content.State, nil
}

// CommitState implements types.MetaStore.
func (m *walMeta) CommitState(state types.PersistentState) error {
	m.mu.Lock()
	defer m.mu.Unlock()

	next := m.content
	next.State = state
	return m.save(next)
}

// GetStable implements types.MetaStore.
func (m *walMeta) GetStable(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.content.Stable[string(key)], nil
}

// SetStable implements types.MetaStore.
func (m *walMeta) SetStable(key, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()

	next := m.content
	next.Stable = map[string][]byte{string(key): append([]byte(nil), value...)}
	for k, v := range m.content.Stable {
		if k != string(key) {
			next.Stable[k] = v
		}
	}
	return m.save(next)
}

// Close implements types.MetaStore.
func (m *walMeta) Close() error { return nil }

func (m *walMeta) save(next walMetaContent) error {
	clear, err := codec.Encode(next)
	if err != nil {
		return err
	}
	sealed, err := m.keyring.Seal(clear, walMetaContext)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(m.path, sealed); err != nil {
		return err
	}
	m.content = next
	return nil
}
