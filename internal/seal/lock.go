package seal

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// ErrLocked means that the keyring file is wrapped in a key that was not given.
var ErrLocked = errors.New("the keyring is locked: run `gitswarm unlock`")

// ErrUnlockKey means that the keyring file does not open with the key that was
// given. A manager that was away while the key was changed needs the one that
// was valid then.
var ErrUnlockKey = errors.New("the unlock key is wrong")

// UnlockKeySize is the length in bytes of the key that locks a keyring.
const UnlockKeySize = keySize

// wrapContext binds a wrapped keyring to its purpose.
var wrapContext = []byte("gitswarm keyring")

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
	return nil
}

// Follow makes the file locked as the cluster says: in unlock, or not at all
// where that is nil. It reports whether that was news. A new lock comes with a
// new data key, which was never on the disk in clear nor under the old lock.
func (k *Keyring) Follow(unlock []byte) (bool, error) {
	if unlock != nil && len(unlock) != UnlockKeySize {
		return false, fmt.Errorf("lock keyring %s: the key has %d bytes, not %d", k.path, len(unlock), UnlockKeySize)
	}
	k.mu.Lock()
	defer k.mu.Unlock()

	if bytes.Equal(k.unlock, unlock) {
		return false, nil
	}
	var err error
	if unlock == nil {
		err = k.save(k.state.Load(), nil)
	} else {
		err = k.rotate(unlock)
	}
	if err != nil {
		return false, fmt.Errorf("lock keyring %s: %w", k.path, err)
	}
	return true, nil
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
		return nil, fmt.Errorf("%w, or %w", ErrUnlockKey, ErrTampered)
	}
	return clear, nil
}
