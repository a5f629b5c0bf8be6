package compose

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/swarm"
)

// FuzzLoad renders any compose file with any files beside it, in this process:
// it never panics, never reads the machine, and what it accepts can be stored.
func FuzzLoad(f *testing.F) {
	stories, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range stories {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var seed strings.Builder
		for _, file := range archive.Files {
			if strings.HasSuffix(file.Name, "shop/compose.yaml") {
				seed.Write(file.Data)
			}
		}
		f.Add(seed.String(), "A=1\n", "services: {base: {image: base}}\n")
	}
	for _, attack := range hostile() {
		if len(attack.files) < 10_000 {
			f.Add(attack.files, "", "")
		}
	}
	table := rules(Table())
	f.Fuzz(func(t *testing.T, text, env, base string) {
		tree := memory{}
		tree.add("shop/compose.yaml", []byte(text))
		tree.add("shop/.env", []byte(env))
		tree.add("shop/base.yaml", []byte(base))
		tree.add("base.yaml", []byte(base))
		scratch := t.TempDir()
		result, err := render(t.Context(), table, confine(tree), Project{Dir: "shop"}, scratch)
		if err != nil {
			t.Fatalf("%v", err)
		}
		for _, finding := range result.Findings {
			if strings.Contains(finding.Text, "please report") {
				t.Errorf("%s", FindingText(finding))
			}
			if finding.File == "" {
				t.Errorf("names no file: %+v", finding)
			}
		}
		if result.refused() {
			return
		}
		if len(result.Stack.Services) == 0 || result.Stack.Name == "" {
			t.Errorf("accepted a stack without services or name: %+v", result.Stack)
		}
		data, err := codec.Encode(result.Stack)
		if err != nil {
			t.Fatal(err)
		}
		var again swarm.Stack
		if err := codec.DecodeStrict(data, &again); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(filepath.Dir(scratch)); len(left) > 1 {
			t.Errorf("wrote beside its folder: %v", left)
		}
	})
}

// FuzzInterpolation writes out any text: it ends, stays within its bounds, and
// a text without $ is left alone.
func FuzzInterpolation(f *testing.F) {
	for _, seed := range []string{"$A", "${A:-b}", "${A:?${B}}", "$$", "${A:+$A}", "a}b{", "${", "$1", "${NO:-${NO-${EMPTY:-x}}}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := substitute(text, values)
		if err != nil {
			if _, ok := errors.AsType[*unsetError](err); !ok && !strings.Contains(text, "$") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if !strings.Contains(text, "$") && got != text || len(got) > maxExpanded && len(text) < maxExpanded {
			t.Errorf("%q became %.100q", text, got)
		}
		if escaped, err := substitute(strings.ReplaceAll(got, "$", "$$"), values); err != nil || escaped != got {
			t.Errorf("%q: escaping does not hold: %q, %v", got, escaped, err)
		}
	})
}

// FuzzClassify classes the keys of any YAML: each key of a service has a
// class, and places are within the file.
func FuzzClassify(f *testing.F) {
	for _, attack := range hostile() {
		if len(attack.files) < 10_000 {
			f.Add(attack.files)
		}
	}
	f.Add("services:\n  web: &a\n    image: x\n    x-a: {b: c}\n    deploy: {<<: {replicas: 1}}\n  b: *a\n")
	table := rules(Table())
	f.Fuzz(func(t *testing.T, text string) {
		doc, found := parse("compose.yaml", []byte(text))
		if found != nil {
			breaks := 2
			for _, r := range text {
				if strings.ContainsRune("\n\r\u0085\u2028\u2029", r) { // YAML 1.1, section 5.4
					breaks++
				}
			}
			if found.line < 1 || found.line > breaks {
				t.Errorf("line %d: %s", found.line, found.text)
			}
			return
		}
		doc.env = values
		classes := &classification{rules: table, places: map[string]place{}}
		classes.add(doc)
		if len(classes.findings) < len(pairs(doc.top)) {
			t.Errorf("%d keys at the top, %d findings", len(pairs(doc.top)), len(classes.findings))
		}
		for _, finding := range classes.findings {
			if finding.Class == "" || finding.Line < 1 {
				t.Errorf("no class or line: %+v", finding)
			}
		}
	})
}
