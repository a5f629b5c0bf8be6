package identity

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
)

func newToken(t testing.TB, a swarm.Authority) string {
	t.Helper()
	token, err := NewToken(a)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func mustParse(t testing.TB, text string) Token {
	t.Helper()
	token, err := ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestATokenNamesItsAuthorityAndHasAFreshSecret(t *testing.T) {
	a := newAuthority(t, "c1")
	one, two := newToken(t, a), newToken(t, a)
	if !regexp.MustCompile(`^GSTKN-1-[0-9a-z]{50}-[0-9a-z]{31}$`).MatchString(one) {
		t.Errorf("token is %s", one)
	}
	if one[:58] != two[:58] || one[58:] == two[58:] {
		t.Errorf("tokens of one authority are %s and %s", one, two)
	}
	if other := newToken(t, newAuthority(t, "c1")); one[:58] == other[:58] {
		t.Error("tokens of two authorities name one")
	}
	root, err := mustParse(t, one).Root(a.Trust)
	if err != nil || !bytes.Equal(root, a.Certificate) {
		t.Errorf("root: %v", err)
	}
	if _, err := mustParse(t, one).Root(newAuthority(t, "c1").Trust); !errors.Is(err, ErrOtherAuthority) {
		t.Errorf("another authority: %v", err)
	}
}

func TestRepinningChangesTheAuthorityAndKeepsTheSecret(t *testing.T) {
	a := newAuthority(t, "c1")
	next := rotated(t, a)
	before := newToken(t, a)
	if during, err := Repin(before, next); err != nil || during != before {
		t.Errorf("while both roots are trusted %s becomes %s: %v", before, during, err)
	}
	if made := newToken(t, next); made[:58] != before[:58] {
		t.Error("a token made meanwhile names a root that not every manager has a certificate of")
	}
	after, err := Repin(before, Finish(next))
	if err != nil {
		t.Fatal(err)
	}
	if before[58:] != after[58:] || before[:58] == after[:58] {
		t.Errorf("%s became %s", before, after)
	}
	if _, err := mustParse(t, after).Root(next.Certificate); err != nil {
		t.Error(err)
	}
}

func TestATokenPrintsWithoutItsSecret(t *testing.T) {
	text := newToken(t, newAuthority(t, "c1"))
	token, secret := mustParse(t, text), text[59:]
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", token, "list", []Token{token})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&log, verb, token)
		fmt.Fprintf(&log, verb, struct{ T Token }{token})
	}
	if strings.Contains(log.String(), secret) || strings.Contains(log.String(), fmt.Sprintf("%x", secret)) {
		t.Errorf("the secret is in %s", &log)
	}
	if token.Reveal() != text {
		t.Errorf("it reveals %s, not %s", token.Reveal(), text)
	}
}

func TestOnlyAWholeTokenIsOne(t *testing.T) {
	good := newToken(t, newAuthority(t, "c1"))
	for claim, text := range map[string]string{
		"nothing":            "",
		"a prefix":           tokenPrefix,
		"a cut one":          good[:len(good)-1],
		"a longer one":       good + "0",
		"another version":    strings.Replace(good, "-1-", "-2-", 1),
		"upper case":         strings.ToUpper(good),
		"a space":            good[:70] + " " + good[71:],
		"a dash too many":    good[:20] + "-" + good[21:],
		"a dash elsewhere":   strings.Replace(good, good[56:59], good[56:58]+"0", 1),
		"Docker's":           "SWMTKN" + good[5:],
		"what is not ASCII":  good[:70] + "é" + good[72:],
		"a line behind it":   good + "\n",
		"a quote around it":  `"` + good + `"`,
		"an unlock key":      "GSKEY-1-" + good[8:],
		"a space before it":  " " + good,
		"a very long string": strings.Repeat(good, 1000),
	} {
		if _, err := ParseToken(text); !errors.Is(err, ErrToken) {
			t.Errorf("%s is taken: %v", claim, err)
		} else if strings.Contains(err.Error(), good[59:]) {
			t.Errorf("%s: the error quotes it", claim)
		}
	}
}

func TestARoleComesFromTheTokenThatMatchesWhole(t *testing.T) {
	a := newAuthority(t, "c1")
	tokens := swarm.JoinTokens{Worker: newToken(t, a), Manager: newToken(t, a)}
	for presented, role := range map[string]string{
		tokens.Worker:      swarm.RoleWorker,
		tokens.Manager:     swarm.RoleManager,
		newToken(t, a):     "",
		tokens.Worker[:80]: "",
		"":                 "",
	} {
		if got := RoleOf(tokens, presented); got != role {
			t.Errorf("role is %q, want %q", got, role)
		}
	}
	if got := RoleOf(swarm.JoinTokens{}, ""); got != "" {
		t.Errorf("of a cluster without tokens, no token gives role %q", got)
	}
}
