package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// A join token is written GSTKN-1-<SHA-256 of the root, base 36>-<secret, base 36>.
const (
	tokenPrefix = "GSTKN-1-"
	digestWidth = 50 // digits of 32 bytes
	secretWidth = 31 // digits of 20 bytes: 160 bits of chance
	secretBytes = 20
	digits      = "0123456789abcdefghijklmnopqrstuvwxyz"
)

// Token is a join token. It is secret: it prints without its last part.
type Token struct {
	digest, secret string
}

// ErrToken is of a text that is no join token.
var ErrToken = errors.New("it is not a join token: copy the whole of it, as `gitswarm token worker` printed it")

// ErrOtherAuthority is of a cluster whose certificate the token does not name.
var ErrOtherAuthority = errors.New("the token names another certificate authority than the one that answered: its cluster has rotated it (ask a manager for a new token), or this is not a manager of that cluster")

// NewToken makes a token with a new secret. It names the oldest root that is
// trusted, which every manager can prove itself to, whatever certificate it
// has.
func NewToken(a swarm.Authority) (string, error) {
	secret := make([]byte, secretBytes)
	if _, err := rand.Read(secret); err != nil {
		return "", fmt.Errorf("make join token: %w", err)
	}
	digest, err := digestOf(a.Trust)
	return tokenPrefix + digest + "-" + base36(secret), err
}

// Repin gives a token the name of the oldest root that is trusted and keeps its
// secret. The name changes with Finish alone, so that is when tokens are
// repinned.
func Repin(token string, a swarm.Authority) (string, error) {
	t, err := ParseToken(token)
	if err != nil {
		return "", err
	}
	digest, err := digestOf(a.Trust)
	return tokenPrefix + digest + "-" + t.secret, err
}

// digestOf is of the first root.
func digestOf(roots []byte) (string, error) {
	der, err := firstBlock(roots, blockCertificate)
	if err != nil {
		return "", fmt.Errorf("make join token: read authority: %w", err)
	}
	sum := sha256.Sum256(der)
	return base36(sum[:]), nil
}

// ParseToken reads a token. Error: ErrToken, which quotes nothing.
func ParseToken(text string) (Token, error) {
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(rest) != digestWidth+1+secretWidth || rest[digestWidth] != '-' {
		return Token{}, ErrToken
	}
	t := Token{digest: rest[:digestWidth], secret: rest[digestWidth+1:]}
	if strings.ContainsFunc(t.digest+t.secret, func(c rune) bool { return !strings.ContainsRune(digits, c) }) {
		return Token{}, ErrToken
	}
	return t, nil
}

// Reveal writes the whole token, secret included.
func (t Token) Reveal() string { return tokenPrefix + t.digest + "-" + t.secret }

// String leaves the secret out.
func (t Token) String() string { return tokenPrefix + t.digest + "-…" }

// Format leaves the secret out under every verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, t.String()) }

// LogValue leaves the secret out.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Root finds the root that the token names among those that somebody nobody
// knows yet says are trusted. Error: ErrOtherAuthority.
func (t Token) Root(trust []byte) ([]byte, error) {
	roots, err := parseCertificates(trust)
	if err != nil {
		return nil, fmt.Errorf("read what the manager says is trusted: %w", err)
	}
	for _, root := range roots {
		one := encodeCertificate(root.Raw)
		if digest, err := digestOf(one); err == nil && digest == t.digest {
			return bytes.Clone(one), nil
		}
	}
	return nil, ErrOtherAuthority
}

// RoleOf returns the role that a token gives: empty for one that is not, or no
// longer, the cluster's. It takes equally long for every token.
func RoleOf(tokens swarm.JoinTokens, presented string) string {
	worker, manager := same(tokens.Worker, presented), same(tokens.Manager, presented)
	switch {
	case manager:
		return swarm.RoleManager
	case worker:
		return swarm.RoleWorker
	}
	return ""
}

func same(want, got string) bool {
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(got))
	return want != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
