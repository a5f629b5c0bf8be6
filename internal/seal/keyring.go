package seal

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gitswarm/gitswarm/internal/durable"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	idSize        = 4
	keyringFormat = 1
	kindClear     = 1
	kindWrapped   = 2
	maxKeyring    = 1 << 20 // bytes of the file
)

// Keyring holds the data keys of one manager and the cluster's key for naming
// secrets. It is safe for concurrent use.
type Keyring struct {
	path   string
	mu     sync.Mutex          // held while the file is replaced
	unlock []byte              // wraps the file; nil means that the file is in clear
	former map[KeyID]time.Time // when keys of this process ceased to seal
	state  atomic.Pointer[keys]
}

// keys is a keyring's content; a change replaces it whole.
type keys struct {
	cluster []byte    // names secrets, see SecretDigest
	data    []dataKey // oldest first; the last one seals
}

// dataKey is a key and its id, which is derived from it.
type dataKey struct {
	ID     KeyID
	Secret []byte
}

func (s *keys) current() dataKey { return s.data[len(s.data)-1] }

// Create makes a keyring file with fresh keys. It never overwrites one: what
// was sealed with lost keys is lost.
func Create(path string) (*Keyring, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("create keyring %s: a file is there already; move it away if its keys are not needed", path)
	}
	cluster, err := randomBytes(keySize)
	if err != nil {
		return nil, fmt.Errorf("create keyring %s: %w", path, err)
	}
	first, err := withNewKey(&keys{cluster: cluster})
	if err != nil {
		return nil, fmt.Errorf("create keyring %s: %w", path, err)
	}

	k := &Keyring{path: path}
	if err := k.save(first, nil); err != nil {
		return nil, fmt.Errorf("create keyring %s: %w", path, err)
	}
	return k, nil
}

// Of returns a keyring without a file that holds one given data key, for what
// is not a manager's own: a backup. Nothing in it can be changed.
func Of(key []byte) (*Keyring, error) {
	if len(key) != keySize {
		return nil, fmt.Errorf("use a key: it has %d bytes, not %d", len(key), keySize)
	}
	secret := bytes.Clone(key)
	k := &Keyring{}
	k.state.Store(&keys{cluster: secret, data: []dataKey{{ID: idOf(secret), Secret: secret}}})
	return k, nil
}

// Open reads the keyring file. The unlock key is nil unless Lock was called
// with one. Its errors are fs.ErrNotExist, ErrLocked, ErrTampered (a wrong
// unlock key looks the same), ErrTruncated and ErrFormat.
func Open(path string, unlock []byte) (*Keyring, error) {
	state, err := read(path, unlock)
	if err != nil {
		return nil, fmt.Errorf("open keyring %s: %w", path, err)
	}
	k := &Keyring{path: path, unlock: unlock}
	k.state.Store(state)
	return k, nil
}

func read(path string, unlock []byte) (*keys, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others can read it (mode %o): run `chmod 600 %s`", info.Mode().Perm(), path)
	}
	if info.Size() > maxKeyring {
		return nil, fmt.Errorf("it has %d bytes: %w", info.Size(), ErrTampered)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parse(data, unlock)
}

// parse reads a keyring file:
//
//	format (1) | clear (1) | SHA-256 of the keys | keys
//	format (1) | wrapped (1) | nonce | sealed keys
//
// where keys are the cluster's key and one or more data keys.
func parse(data, unlock []byte) (*keys, error) {
	if len(data) < 2 {
		return nil, ErrTruncated
	}
	format, kind, rest := data[0], data[1], data[2:]
	switch {
	case format > keyringFormat:
		return nil, fmt.Errorf("format %d: %w", format, ErrFormat)
	case format < 1:
		return nil, ErrTampered
	}

	switch kind {
	case kindWrapped:
		clear, err := unwrap(rest, unlock)
		if err != nil {
			return nil, err
		}
		return split(clear)
	case kindClear:
		if len(rest) < sha256.Size+2*keySize || len(rest)%keySize != 0 {
			return nil, ErrTruncated
		}
		sum, clear := rest[:sha256.Size], rest[sha256.Size:]
		if want := sha256.Sum256(clear); !bytes.Equal(sum, want[:]) {
			return nil, ErrTampered
		}
		return split(clear)
	}
	return nil, ErrTampered
}

// split cuts the clear keys apart.
func split(clear []byte) (*keys, error) {
	if len(clear) < 2*keySize || len(clear)%keySize != 0 {
		return nil, ErrTampered
	}
	state := &keys{cluster: clear[:keySize]}
	for at := keySize; at < len(clear); at += keySize {
		secret := clear[at : at+keySize]
		state.data = append(state.data, dataKey{ID: idOf(secret), Secret: secret})
	}
	return state, nil
}

// format is the inverse of parse.
func (s *keys) format(unlock []byte) ([]byte, error) {
	clear := bytes.Clone(s.cluster)
	for _, key := range s.data {
		clear = append(clear, key.Secret...)
	}
	if unlock == nil {
		sum := sha256.Sum256(clear)
		return slices.Concat([]byte{keyringFormat, kindClear}, sum[:], clear), nil
	}
	wrapped, err := wrap(clear, unlock)
	if err != nil {
		return nil, err
	}
	return slices.Concat([]byte{keyringFormat, kindWrapped}, wrapped), nil
}

// Rotate makes a new data key the current one. Older keys stay, for what was
// sealed with them.
func (k *Keyring) Rotate() error {
	k.mu.Lock()
	defer k.mu.Unlock()

	if err := k.rotate(k.unlock); err != nil {
		return fmt.Errorf("rotate keyring %s: %w", k.path, err)
	}
	return nil
}

// rotate saves the keyring with a further key, wrapped in unlock.
func (k *Keyring) rotate(unlock []byte) error {
	state := k.state.Load()
	next, err := withNewKey(state)
	if err != nil {
		return err
	}
	if err := k.save(next, unlock); err != nil {
		return err
	}
	k.noteFormer(state.current().ID)
	return nil
}

// SecretDigest names a secret: "hmac-sha256:" and the HMAC under the cluster's
// key, so that a name cannot be guessed from a guessed secret.
func (k *Keyring) SecretDigest(secret []byte) swarm.Digest {
	mac := hmac.New(sha256.New, k.state.Load().cluster)
	mac.Write(secret)
	return swarm.Digest(SecretPrefix + hex.EncodeToString(mac.Sum(nil)))
}

// SecretPrefix begins the digest of every secret.
const SecretPrefix = "hmac-sha256:"

// ClusterKey is the key that names secrets, 32 bytes: all managers of a
// cluster must hold the same one.
func (k *Keyring) ClusterKey() []byte { return bytes.Clone(k.state.Load().cluster) }

// SetCluster makes key the one that names secrets. A manager that joins gives
// the cluster's before it keeps its first secret. Setting the key that is set
// already costs nothing.
func (k *Keyring) SetCluster(key []byte) error {
	if len(key) != keySize {
		return fmt.Errorf("set the cluster's key in keyring %s: it has %d bytes, not %d", k.path, len(key), keySize)
	}
	k.mu.Lock()
	defer k.mu.Unlock()

	state := k.state.Load()
	if bytes.Equal(state.cluster, key) {
		return nil
	}
	if err := k.save(&keys{cluster: bytes.Clone(key), data: state.data}, k.unlock); err != nil {
		return fmt.Errorf("set the cluster's key in keyring %s: %w", k.path, err)
	}
	return nil
}

// save writes the file, wrapped in unlock unless that is nil, so that it is
// wholly old or wholly new, and then uses it. k.mu is held.
func (k *Keyring) save(state *keys, unlock []byte) error {
	data, err := state.format(unlock)
	if err != nil {
		return err
	}
	if k.path == "" {
		return errors.New("it was made for one use and has no file")
	}
	if err := durable.WriteFile(k.path, data); err != nil {
		return err
	}
	k.state.Store(state)
	k.unlock = bytes.Clone(unlock)
	return nil
}

// withNewKey returns the keys with a further one, which seals from now on.
func withNewKey(state *keys) (*keys, error) {
	for {
		secret, err := randomBytes(keySize)
		if err != nil {
			return nil, err
		}
		id := idOf(secret)
		if _, err := state.find(id[:]); err == nil {
			continue // an id of 4 bytes may repeat
		}
		next := &keys{cluster: state.cluster, data: slices.Clone(state.data)}
		next.data = append(next.data, dataKey{ID: id, Secret: secret})
		return next, nil
	}
}

func idOf(secret []byte) KeyID {
	sum := sha256.Sum256(append([]byte("gitswarm key id\x00"), secret...))
	return KeyID(sum[:idSize])
}

func randomBytes(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := rand.Read(b)
	return b, err
}
