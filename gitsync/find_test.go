package gitsync

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
	"golang.org/x/tools/txtar"
)

// TestFindsStacks runs the stories of testdata/find. In each, the comment says
// the intent and has a line "find PATH ENVIRONMENT"; the file "found" is what
// comes out.
func TestFindsStacks(t *testing.T) {
	stories, err := filepath.Glob("testdata/find/*.txtar")
	if err != nil || len(stories) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, name := range stories {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			r := newRepository(t)
			files, want := map[string]string{}, ""
			for _, file := range archive.Files {
				if file.Name == "found" {
					want = string(file.Data)
					continue
				}
				files[file.Name] = string(file.Data) + " "
			}
			r.push("story", files)
			path, environment := question(string(archive.Comment))
			if got := answer(FindStacks(r.tree(), path, environment)); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
				if os.Getenv("UPDATE") != "" {
					rewrite(t, name, archive, got)
				}
			}
		})
	}
}

func question(comment string) (path, environment string) {
	for line := range strings.SplitSeq(comment, "\n") {
		if rest, ok := strings.CutPrefix(line, "find "); ok {
			path, environment, _ = strings.Cut(rest, " ")
			if path == "." {
				path = ""
			}
			return path, environment
		}
	}
	return "", ""
}

func answer(found []Found, findings []swarm.Finding, err error) string {
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintf(&b, "%s dir=%q files=%q", f.Name, f.Dir, f.Files)
		if len(f.EnvFiles) > 0 {
			fmt.Fprintf(&b, " env_files=%q", f.EnvFiles)
		}
		if len(f.Variables) > 0 {
			fmt.Fprintf(&b, " variables=%q", f.Variables)
		}
		fmt.Fprintf(&b, " refusals=%d\n", len(f.Findings))
	}
	var listing *ListingError
	if errors.As(err, &listing) {
		findings = listing.Findings
		b.WriteString("refused as a whole:\n")
	} else if err != nil {
		fmt.Fprintf(&b, "error: %v\n", err)
	}
	for _, f := range findings {
		fmt.Fprintf(&b, "%s:%d: [%s] %s\n", f.File, f.Line, f.Rule, f.Text)
	}
	return maskRevision(b.String())
}

func maskRevision(text string) string {
	if i := strings.Index(text, "main@"); i >= 0 {
		return text[:i] + "main@REVISION" + maskRevision(text[i+len("main@1234567"):])
	}
	return text
}

func rewrite(t *testing.T, name string, archive *txtar.Archive, got string) {
	t.Helper()
	for i := range archive.Files {
		if archive.Files[i].Name == "found" {
			archive.Files[i].Data = []byte(got)
		}
	}
	if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFindsStacksThroughLinks(t *testing.T) {
	r := newRepository(t)
	r.write(map[string]string{"base/compose.yaml": "services: {}\n"})
	for link, target := range map[string]string{"copy": "base", "away": "/etc"} {
		if err := os.Symlink(target, filepath.Join(r.work, link)); err != nil {
			t.Fatal(err)
		}
	}
	r.push("links", nil)
	found, findings, err := FindStacks(r.tree(), "", "")
	if err != nil || len(findings) != 0 || len(found) != 2 || found[1].Name != "copy" {
		t.Errorf("%+v, %+v, %v", found, findings, err)
	}
}

func TestNeverCallsAnUnreadableTreeEmpty(t *testing.T) {
	r := newRepository(t)
	r.push("one", map[string]string{"web/compose.yaml": "services: {}\n"})
	tree := r.tree()
	if err := os.RemoveAll(filepath.Join(r.bare, "objects")); err != nil {
		t.Fatal(err)
	}
	if found, _, err := FindStacks(tree, "", ""); err == nil {
		t.Errorf("found %+v", found)
	}
}

func FuzzGitswarmYAML(f *testing.F) {
	for _, seed := range []string{
		"environments: {production: {stacks: [{path: shop}]}}",
		"environments:\n  a:\n    stacks:\n      - {path: x, name: y, files: [c.yaml], env_files: [e], variables: {A: 1}}\n",
		"x: &a [*a]", "environments: &e\n  a: *e\n", "a: b: c", "[]", "", "---\n---\n", "\x00", "? {a: b}\n: c", "<<: {a: b}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all, findings := parseListing("gitswarm.yaml", data)
		if (len(findings) == 0) != (all != nil) {
			t.Fatalf("%v with %d findings", all, len(findings))
		}
		for _, finding := range findings {
			if finding.Line < 1 || finding.File == "" || finding.Text == "" || finding.Class != swarm.Refused {
				t.Fatalf("%+v", finding)
			}
		}
		for _, stacks := range all {
			for _, stack := range stacks {
				if stack.path == "" || stack.line < 1 {
					t.Fatalf("%+v", stack)
				}
			}
		}
		_ = readName(data)
	})
}
