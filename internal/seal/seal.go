// Package seal encrypts what managers keep on disk: log entries, snapshots and
// blobs, with XChaCha20-Poly1305 and random nonces. It decides nothing about
// who may read and never writes a key anywhere but into its keyring file.
//
// Sealed bytes are
//
//	format (1) | key id (4) | nonce (24) | ciphertext and tag
//
// and can be opened only with the same additional data, which says what they
// are: an entry moved to another index, or a blob under another name, does not
// open.
package seal

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Reasons why sealed bytes do not open.
var (
	ErrUnknownKey = errors.New("the keyring does not hold the key it was sealed with")
	ErrTruncated  = errors.New("it is cut off")
	ErrTampered   = errors.New("it was changed after it was sealed")
	ErrFormat     = errors.New("its format is newer than this build")
)

const (
	formatOnce   = 1 // sealed at once
	formatStream = 2 // sealed in chunks

	keySize   = chacha20poly1305.KeySize
	nonceSize = chacha20poly1305.NonceSizeX
	tagSize   = chacha20poly1305.Overhead
	onceSize  = 1 + idSize + nonceSize // what stands before the ciphertext
)

// Overhead is by how many bytes Seal makes its input longer.
const Overhead = onceSize + tagSize

// Seal encrypts plain with the current key. Open needs the same context.
func (k *Keyring) Seal(plain, context []byte) ([]byte, error) {
	key := k.state.Load().current()

	sealed := make([]byte, onceSize, onceSize+len(plain)+tagSize)
	sealed[0] = formatOnce
	copy(sealed[1:], key.ID[:])
	nonce := sealed[1+idSize : onceSize]
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}

	aead, err := chacha20poly1305.NewX(key.Secret)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return aead.Seal(sealed, nonce, plain, bind(sealed[:1+idSize], context)), nil
}

// Open decrypts what Seal made with the same context. Its errors are
// ErrUnknownKey, ErrTruncated, ErrTampered and ErrFormat.
func (k *Keyring) Open(sealed, context []byte) ([]byte, error) {
	if len(sealed) < 1 {
		return nil, fmt.Errorf("open sealed bytes: %w", ErrTruncated)
	}
	if sealed[0] != formatOnce {
		return nil, fmt.Errorf("open sealed bytes: format %d: %w", sealed[0], ErrFormat)
	}
	if len(sealed) < Overhead {
		return nil, fmt.Errorf("open sealed bytes: %w", ErrTruncated)
	}

	key, err := k.state.Load().find(sealed[1 : 1+idSize])
	if err != nil {
		return nil, fmt.Errorf("open sealed bytes: %w", err)
	}
	aead, err := chacha20poly1305.NewX(key.Secret)
	if err != nil {
		return nil, fmt.Errorf("open sealed bytes: %w", err)
	}
	plain, err := aead.Open(nil, sealed[1+idSize:onceSize], sealed[onceSize:], bind(sealed[:1+idSize], context))
	if err != nil {
		return nil, fmt.Errorf("open sealed bytes: %w", ErrTampered)
	}
	return plain, nil
}

// bind is the additional data: the clear header, then the caller's context.
func bind(header, context []byte) []byte {
	bound := make([]byte, 0, len(header)+len(context))
	return append(append(bound, header...), context...)
}

// find returns the key of that id.
func (s *keys) find(id []byte) (dataKey, error) {
	for _, key := range s.data {
		if string(key.ID[:]) == string(id) {
			return key, nil
		}
	}
	return dataKey{}, fmt.Errorf("key %s: %w", hex.EncodeToString(id), ErrUnknownKey)
}
