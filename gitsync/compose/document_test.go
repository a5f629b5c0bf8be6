package compose

import (
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/template"
)

func TestMistakesInYAMLAreFoundOnTheirLine(t *testing.T) {
	for text, want := range map[string]int{
		"a: b: c":                     1,
		"a:\n  b: c: d":               2,
		"a: 1\n\tb: 2":                2,
		"a: *nope":                    1,
		"a:\n- b\n c: d\n":            3,
		"a: 1\nb: \xff":               2,
		"s:\n  w:\n    a: [x\n  d: y": 4,
		"s:\n  w:\n    a: x\n   b: y": 4,
		"a: 1\na: 2":                  2,
		"a: 1\n---\nb: 2":             2,
		"- a":                         1,
		"":                            1,
		"# nothing":                   1,
	} {
		if _, found := parse("compose.yaml", []byte(text)); found == nil || found.line != want {
			t.Errorf("%q: got %v, want line %d", text, found, want)
		}
	}
}

func values(name string) (string, bool) {
	switch name {
	case "A":
		return "a", true
	case "EMPTY":
		return "", true
	}
	return "", false
}

func TestInterpolationIsComposes(t *testing.T) {
	for _, text := range []string{
		"", "x", "$A", "${A}", "$A$A", "x${A}y", "$$A", "$$$A", "$${A}", "${A:-b}", "${A-b}", "${EMPTY:-b}", "${EMPTY-b}", "${NO:-b}", "${NO-b}",
		"${A:+b}", "${A+b}", "${EMPTY:+b}", "${EMPTY+b}", "${NO:+b}", "${NO+b}", "${A:?no}", "${A?no}", "${EMPTY?no}",
		"${NO:-${A}}", "${NO:-${NO:-c}}", "${NO:-x${A}y}", "${NO:-$A}z", "${A:-${B:-c}}d", "${NO:-a:b-c}", "${NO:-a?b}", "${A:-}${NO-}", "a}b", "{$A}", "${NO:-{\"a\": 1}}",
	} {
		want, err := template.Substitute(text, values)
		if err != nil {
			t.Errorf("%s: compose-go: %v", text, err)
		}
		if strings.Contains(text, "{\"") {
			want = `{"a": 1}` // braces in a default are pairs
		}
		if got, err := substitute(text, values); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestInterpolationSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"$NO":                                   "variable NO is not set",
		"${NO}":                                 "variable NO is not set",
		"${NO:?say so}":                         "variable NO is not set: say so",
		"${EMPTY:?say $A}":                      "variable EMPTY is not set: say a",
		"${NO:-${B}}":                           "variable B is not set",
		"$1":                                    "a $ is not followed by a variable's name",
		"a$":                                    "a $ is not followed by a variable's name",
		"${}":                                   "${ is not followed by a variable's name",
		"${A":                                   "${A is not closed by }",
		"${A:-b":                                "${ is not closed by }",
		"${A!b}":                                "${A is not closed by }",
		"${NO:-" + strings.Repeat("${NO:-", 20): "nested deeper than 16",
	} {
		if got, err := substitute(text, values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, %v; want %s", text, got, err, want)
		}
	}
}

func TestEnvFilesRefuseWhatWouldBeLost(t *testing.T) {
	for text, want := range map[string]string{
		"A=1\nB=pa$word\n":       "x.env:2: variable word is not set",
		"A=1\nB=\"${word}\"\n":   "x.env:2: variable word is not set",
		"A B=1\n":                "x.env:1: ",
		"A='open\n":              "x.env:2: ",
		"A=\x00\n":               "x.env:1: the file holds a NUL byte",
		"A='pa$word'\n":          "",
		"A=1\nB=$A\nC=${X:-y}\n": "",
		"export A=1 # why\n":     "",
	} {
		_, found := parseEnv("x.env", []byte(text), func(string) (string, bool) { return "", false })
		if want == "" && found != nil || want != "" && (found == nil || !strings.HasPrefix(found.Error(), want)) {
			t.Errorf("%q: got %v, want %s", text, found, want)
		}
	}
}

func TestUnknownKeysAreComparedWithKnownOnes(t *testing.T) {
	root := rules(Table())
	service := root.below["services"].below["*"]
	for key, want := range map[string]string{
		"enviroment": "environment", "volume": "volumes", "network-mode": "network_mode", "helthcheck": "healthcheck", "port": "ports",
	} {
		if got := suggest(key, service); !strings.HasSuffix(got, "did you mean "+want+"?") {
			t.Errorf("%s: got %s", key, got)
		}
	}
	if got := suggest("zzzzzzzzzz", service); strings.Contains(got, "did you mean") {
		t.Errorf("got %s", got)
	}
}
