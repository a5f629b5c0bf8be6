package seal

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
)

// unlockPrefix begins the text of a key that a person keeps; 1 is its format.
const unlockPrefix = "GSKEY-1-"

const (
	unlockSumSize = 3   // bytes of checksum: 35 bytes are 56 characters, and one typo in 16 million passes
	unlockGroup   = 8   // characters between dashes
	maxUnlockText = 256 // characters, spaces included, that are looked at
)

// crockford has no letter that reads as a digit (I, L, O) and no U.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// ErrNoKey means that a text is no key that gitswarm printed.
var ErrNoKey = errors.New("that is no key: it begins with " + unlockPrefix + " and has seven groups of eight characters after it")

// ErrTypo means that a text was a key before it was mistyped.
var ErrTypo = errors.New("the key has a typo: its characters do not fit together")

// NewUnlockKey returns a fresh key for Lock.
func NewUnlockKey() []byte {
	key := make([]byte, UnlockKeySize)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the program instead
	return key
}

// FormatUnlockKey is the text of a key that a person keeps:
//
//	GSKEY-1-XXXXXXXX-XXXXXXXX-XXXXXXXX-XXXXXXXX-XXXXXXXX-XXXXXXXX-XXXXXXXX
//
// It holds a checksum, so that a typo is told from a wrong key.
func FormatUnlockKey(key []byte) string {
	text := unlockText().EncodeToString(append(append([]byte(nil), key...), unlockSum(key)...))
	var groups []string
	for ; len(text) > unlockGroup; text = text[unlockGroup:] {
		groups = append(groups, text[:unlockGroup])
	}
	return unlockPrefix + strings.Join(append(groups, text), "-")
}

// ParseUnlockKey reads what FormatUnlockKey wrote, as a person may type it:
// small letters, O for 0, I or L for 1, spaces around, other dashes or none.
// Its errors are ErrNoKey and ErrTypo.
func ParseUnlockKey(text string) ([]byte, error) {
	if len(text) > maxUnlockText {
		return nil, fmt.Errorf("read a key of %d characters: %w", len(text), ErrNoKey)
	}
	text = strings.ToUpper(strings.Join(strings.Fields(text), ""))
	rest, ok := strings.CutPrefix(text, unlockPrefix)
	if !ok {
		return nil, fmt.Errorf("read a key: %w", ErrNoKey)
	}
	rest = strings.NewReplacer("-", "", "O", "0", "I", "1", "L", "1").Replace(rest)
	if want := unlockText().EncodedLen(UnlockKeySize + unlockSumSize); len(rest) != want {
		return nil, fmt.Errorf("read a key: %w: there are %d characters after %s, not %d", ErrTypo, len(rest), unlockPrefix, want)
	}
	decoded, err := unlockText().DecodeString(rest)
	if err != nil {
		return nil, fmt.Errorf("read a key: %w (%w)", ErrTypo, err)
	}
	key, sum := decoded[:UnlockKeySize], decoded[UnlockKeySize:]
	if string(sum) != string(unlockSum(key)) {
		return nil, fmt.Errorf("read a key: %w", ErrTypo)
	}
	return key, nil
}

func unlockText() *base32.Encoding {
	return base32.NewEncoding(crockford).WithPadding(base32.NoPadding)
}

// unlockSum is a checksum against typos; it says nothing useful of the key's
// 256 bits.
func unlockSum(key []byte) []byte {
	sum := sha256.Sum256(append([]byte(unlockPrefix), key...))
	return sum[:unlockSumSize]
}
