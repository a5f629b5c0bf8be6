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

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/gitswarm/gitswarm/internal/durable"
	"github.com/gitswarm/gitswarm/swarm"
)

// ErrLocked means that the keyring file is wrapped in a key that was not given.
var ErrLocked = errors.New("the keyring is locked: run `gitswarm unlock`")

// UnlockKeySize is the length in bytes of the key that locks a keyring.
const UnlockKeySize = keySize

const (
	idSize        = 4
	keyringFormat = 1
	kindClear     = 1
	kindWrapped   = 2
	maxKeyring    = 1 << 20 // bytes of the file
)

// wrapContext binds a wrapped keyring to its purpose.
var wrapContext = []byte("gitswarm keyring")

// Keyring holds the data keys of one manager and the cluster's key for naming
// secrets. It is safe for concurrent use.
type Keyring struct {
	path   string
	mu     sync.Mutex // held while the file is replaced
	unlock []byte     // wraps the file; nil means that the file is in clear
	state  atomic.Pointer[keys]
}

// keys is a keyring's content; a change replaces it whole.
type keys struct {
	cluster []byte    // names secrets, see SecretDigest
	data    []dataKey // oldest first; the last one seals
}

// dataKey is a key and its id, which is derived from it.
type dataKey struct {
	ID     keyID
	Secret []byte
}

type keyID [idSize]byte

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

	next, err := withNewKey(k.state.Load())
	if err == nil {
		err = k.save(next, k.unlock)
	}
	if err != nil {
		return fmt.Errorf("rotate keyring %s: %w", k.path, err)
	}
	return nil
}

// Lock wraps the file in a key of UnlockKeySize bytes that only a person keeps;
// nil takes the wrapping away.
func (k *Keyring) Lock(unlock []byte) error {
	if unlock != nil && len(unlock) != UnlockKeySize {
		return fmt.Errorf("lock keyring %s: the key has %d bytes, not %d", k.path, len(unlock), UnlockKeySize)
	}
	k.mu.Lock()
	defer k.mu.Unlock()

	if err := k.save(k.state.Load(), unlock); err != nil {
		return fmt.Errorf("lock keyring %s: %w", k.path, err)
	}
	k.unlock = unlock
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

// save writes the file so that it is wholly old or wholly new, and then uses it.
func (k *Keyring) save(state *keys, unlock []byte) error {
	data, err := state.format(unlock)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(k.path, data); err != nil {
		return err
	}
	k.state.Store(state)
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

func idOf(secret []byte) keyID {
	sum := sha256.Sum256(append([]byte("gitswarm key id\x00"), secret...))
	return keyID(sum[:idSize])
}

func wrap(clear, unlock []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(unlock)
	if err != nil {
		return nil, err
	}
	nonce, err := randomBytes(nonceSize)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nonce, nonce, clear, wrapContext), nil
}

func unwrap(wrapped, unlock []byte) ([]byte, error) {
	if unlock == nil {
		return nil, ErrLocked
	}
	aead, err := chacha20poly1305.NewX(unlock)
	if err != nil {
		return nil, err
	}
	if len(wrapped) < nonceSize+tagSize {
		return nil, ErrTruncated
	}
	clear, err := aead.Open(nil, wrapped[:nonceSize], wrapped[nonceSize:], wrapContext)
	if err != nil {
		return nil, fmt.Errorf("the unlock key is wrong, or %w", ErrTampered)
	}
	return clear, nil
}

func randomBytes(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := rand.Read(b)
	return b, err
}
