package backup

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/gitswarm/gitswarm/internal/seal"
)

// A file begins, in clear, with
//
//	"gitswarm backup\n" | format (1) | kind of key (1) | time (4) | memory in KiB (4) | salt (16)
//
// where time and memory are Argon2id's costs for a passphrase (RFC 9106), and
// 0 for a key. The stream after it opens only with exactly this header.
const (
	magic      = "gitswarm backup\n"
	fileFormat = 1

	kindKey        = 1 // 256 bits of chance: GSKEY-1-…
	kindPassphrase = 2

	saltSize   = 16
	headerSize = len(magic) + 2 + 4 + 4 + saltSize
)

// Argon2id's costs: the second choice of RFC 9106, and what is still tried for
// a file that another build wrote.
const (
	argonTime      = 3
	argonMemory    = 64 << 10 // KiB
	argonLanes     = 4
	maxArgonTime   = 16
	maxArgonMemory = 512 << 10
)

// minPassphrase is the least length of a passphrase in bytes.
const minPassphrase = 12

var keyContext = []byte("gitswarm backup key")

// Key opens a backup.
type Key struct {
	kind   byte
	secret []byte
}

// ParseKey reads what a person gave: a key that gitswarm printed (GSKEY-1-…),
// or a passphrase of 12 bytes or more. Its errors are seal.ErrTypo, and that a
// passphrase is too short.
func ParseKey(text string) (Key, error) {
	text = strings.TrimSpace(text)
	key, err := seal.ParseUnlockKey(text)
	switch {
	case err == nil:
		return Key{kind: kindKey, secret: key}, nil
	case !errors.Is(err, seal.ErrNoKey):
		return Key{}, err
	case len(text) < minPassphrase:
		return Key{}, fmt.Errorf("read the backup's key: a passphrase has %d characters at least", minPassphrase)
	}
	return Key{kind: kindPassphrase, secret: []byte(text)}, nil
}

// keyHeader is the clear beginning of a file.
type keyHeader struct {
	kind         byte
	time, memory uint32
	salt         [saltSize]byte
}

func (h keyHeader) bytes() []byte {
	b := append([]byte(magic), fileFormat, h.kind)
	b = binary.BigEndian.AppendUint32(b, h.time)
	b = binary.BigEndian.AppendUint32(b, h.memory)
	return append(b, h.salt[:]...)
}

func readKeyHeader(from io.Reader) (keyHeader, error) {
	b := make([]byte, headerSize)
	if n, err := io.ReadFull(from, b); err != nil {
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return keyHeader{}, err
		}
		if n < len(magic) || string(b[:len(magic)]) != magic {
			return keyHeader{}, ErrNoBackup
		}
		return keyHeader{}, ErrTruncated
	}
	if string(b[:len(magic)]) != magic {
		return keyHeader{}, ErrNoBackup
	}
	b = b[len(magic):]
	if b[0] > fileFormat {
		return keyHeader{}, ErrNewer
	}
	h := keyHeader{kind: b[1], time: binary.BigEndian.Uint32(b[2:]), memory: binary.BigEndian.Uint32(b[6:]), salt: [saltSize]byte(b[10:])}
	costs := h.kind == kindKey && h.time == 0 && h.memory == 0 ||
		h.kind == kindPassphrase && h.time > 0 && h.time <= maxArgonTime && h.memory > 0 && h.memory <= maxArgonMemory
	if b[0] < 1 || !costs {
		return keyHeader{}, ErrDamaged
	}
	return h, nil
}

// keyring derives the key of one file.
func (h keyHeader) keyring(key Key) (*seal.Keyring, error) {
	if key.kind != h.kind {
		return nil, ErrKey
	}
	if h.kind == kindPassphrase {
		return seal.Of(argon2.IDKey(key.secret, h.salt[:], h.time, h.memory, argonLanes, seal.UnlockKeySize))
	}
	mac := hmac.New(sha256.New, key.secret)
	mac.Write(keyContext)
	mac.Write(h.salt[:])
	return seal.Of(mac.Sum(nil))
}

// newSealedWriter begins a file.
func newSealedWriter(to io.Writer, key Key) (*seal.Writer, error) {
	h := keyHeader{kind: key.kind}
	switch key.kind {
	case kindKey:
	case kindPassphrase:
		h.time, h.memory = argonTime, argonMemory
	default:
		return nil, errors.New("it has no key")
	}
	_, _ = rand.Read(h.salt[:]) // never fails: crypto/rand ends the program instead
	keyring, err := h.keyring(key)
	if err != nil {
		return nil, err
	}
	if _, err := to.Write(h.bytes()); err != nil {
		return nil, err
	}
	return keyring.NewWriter(to, h.bytes())
}

// newSealedReader opens a file.
func newSealedReader(from io.Reader, key Key) (*seal.Reader, error) {
	h, err := readKeyHeader(from)
	if err != nil {
		return nil, err
	}
	keyring, err := h.keyring(key)
	if err != nil {
		return nil, err
	}
	r, err := keyring.NewReader(from, h.bytes())
	if err != nil {
		return nil, reason(err)
	}
	return r, nil
}
