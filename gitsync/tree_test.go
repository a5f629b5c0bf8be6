package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// tree opens what the clone's HEAD holds.
func (r *repository) tree() *Tree {
	r.t.Helper()
	l := newLocal(r.bare, "main", nil)
	if err := l.open(); err != nil {
		r.t.Fatal(err)
	}
	commit, err := l.kept(swarm.NewRevision("main", r.git("rev-parse", "HEAD")))
	if err != nil {
		r.t.Fatal(err)
	}
	return commit.Tree
}

func TestFollowsLinksOnlyInsideTheTree(t *testing.T) {
	r := newRepository(t)
	r.write(map[string]string{"base/compose.yaml": "base", "base/deep/x": "x"})
	for link, target := range map[string]string{
		"prod": "base", "base/deep/up": "../compose.yaml", "base/again": "../prod/deep/up",
		"out": "../../etc/passwd", "abs": "/etc/passwd", "sly": "base/../../etc/passwd", "ring": "gnir", "gnir": "ring", "lost": "nowhere",
	} {
		if err := os.Symlink(target, filepath.Join(r.work, link)); err != nil {
			t.Fatal(err)
		}
	}
	r.push("links", nil)
	tree := r.tree()

	for _, path := range []string{"prod/compose.yaml", "base/deep/up", "base/again", "./base//compose.yaml", "base/deep/../compose.yaml", "prod/deep/../compose.yaml"} {
		if got := read(t, tree, path); got != "base" {
			t.Errorf("%s: read %q", path, got)
		}
		if real, err := tree.Real(path); err != nil || real != "base/compose.yaml" {
			t.Errorf("%s: really %q, %v", path, real, err)
		}
	}
	for path, want := range map[string]error{
		"out": ErrEscapes, "abs": ErrEscapes, "sly": ErrEscapes, "../x": ErrEscapes, "/base/compose.yaml": ErrEscapes, "base/../../x": ErrEscapes,
		"lost": fs.ErrNotExist, "none": fs.ErrNotExist, "base/compose.yaml/x": fs.ErrNotExist,
	} {
		if data, err := tree.ReadFile(path, 1000); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: read %q, %v", path, data, err)
		}
	}
	if _, err := tree.ReadFile("ring", 1000); err == nil || !strings.Contains(err.Error(), "too many links") {
		t.Errorf("ring: %v", err)
	}
	for _, path := range []string{"base", "a\x00b", strings.Repeat("a/", 3000)} {
		if _, err := tree.ReadFile(path, 1000); err == nil {
			t.Errorf("%.20q was read", path)
		}
	}
}

func TestNamesSubmodulesAndTheRemedy(t *testing.T) {
	r := newRepository(t)
	id := r.push("one", map[string]string{"a": "1"})
	r.git("update-index", "--add", "--cacheinfo", "160000,"+id+",sub")
	r.git("commit", "-q", "-m", "sub")
	r.git("push", "-q", "origin", "HEAD")
	tree := r.tree()
	for _, path := range []string{"sub", "sub/compose.yaml"} {
		if _, err := tree.ReadFile(path, 100); !errors.Is(err, ErrSubmodule) {
			t.Errorf("%s: %v", path, err)
		}
	}
	entries, err := tree.ReadDir("")
	if err != nil || len(entries) != 2 || entries[1].Mode != fs.ModeIrregular {
		t.Errorf("%+v, %v", entries, err)
	}
	if err := tree.check(context.Background(), nil); err != nil {
		t.Errorf("a submodule makes the tree unreadable: %v", err)
	}
}

func TestDescribesEntries(t *testing.T) {
	r := newRepository(t)
	r.write(map[string]string{"file": "12345", "run": "#!/bin/sh\n", "dir/x": "x"})
	if err := errors.Join(os.Chmod(filepath.Join(r.work, "run"), 0o755), os.Symlink("dir/x", filepath.Join(r.work, "link"))); err != nil {
		t.Fatal(err)
	}
	r.push("entries", nil)
	entries, err := r.tree().ReadDir("")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprintf("%s %s %d %s", e.Name, e.Mode, e.Size, e.Target))
	}
	want := "dir drwxr-xr-x 0 |file -rw-r--r-- 5 |link Lrwxrwxrwx 0 dir/x|run -rwxr-xr-x 10 "
	if strings.Join(got, "|") != want {
		t.Errorf("got %q", got)
	}
}

func TestTellsWhatChangedByPath(t *testing.T) {
	r := newRepository(t)
	r.push("one", map[string]string{"a": "1", "dir/b": "2", "dir/deep/c": "3", "swap": "file", "same/x": "x"})
	before := r.tree()
	if all, err := before.Changed(nil); err != nil || strings.Join(all, " ") != "a dir/b dir/deep/c same/x swap" {
		t.Errorf("all: %q, %v", all, err)
	}
	if none, err := before.Changed(before); err != nil || len(none) != 0 {
		t.Errorf("none: %q, %v", none, err)
	}

	r.write(map[string]string{"a": "", "dir/deep": "", "swap": "", "new/d": "4", "dir/b": "5"})
	r.write(map[string]string{"swap/inner": "now a folder"})
	r.push("two", nil)
	changed, err := r.tree().Changed(before)
	if err != nil || strings.Join(changed, " ") != "a dir/b dir/deep/c new/d swap swap/inner" {
		t.Errorf("changed: %q, %v", changed, err)
	}
	same, err := before.Hash("same")
	if err != nil {
		t.Fatal(err)
	}
	if now, err := r.tree().Hash("same"); err != nil || now != same {
		t.Errorf("hash %q became %q, %v", same, now, err)
	}
}

func TestLooksAtTheSizeBeforeTheContent(t *testing.T) {
	r := newRepository(t)
	huge := filepath.Join(r.work, "huge")
	if err := os.WriteFile(huge, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 128<<20); err != nil {
		t.Fatal(err)
	}
	for _, packed := range []bool{false, true} {
		t.Run(fmt.Sprintf("packed=%t", packed), func(t *testing.T) {
			if packed {
				r.run(r.bare, "git", "gc", "-q")
			} else {
				r.push("huge", map[string]string{"small": "s"})
			}
			tree := r.tree()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			_, err := tree.ReadFile("huge", 1<<20)
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "134217728 bytes") {
				t.Errorf("got %v", err)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 || took > time.Second {
				t.Errorf("%d bytes and %s to refuse a file", used, took)
			}
			if got := read(t, tree, "small"); got != "s" {
				t.Errorf("read %q", got)
			}
		})
	}
}

func TestFetchesAHugeFileWithoutHoldingIt(t *testing.T) {
	r := newRepository(t)
	if err := errors.Join(os.WriteFile(filepath.Join(r.work, "huge"), nil, 0o644), os.Truncate(filepath.Join(r.work, "huge"), 128<<20)); err != nil {
		t.Fatal(err)
	}
	id := r.push("huge", map[string]string{"small": "s"})
	server := newGitServer(t, r)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f := follow(t, New(Config{Dir: t.TempDir()}), server.source(), tokenCredential)
	commit := f.commit(id)
	runtime.ReadMemStats(&after)
	if got := read(t, commit.Tree, "small"); got != "s" {
		t.Errorf("read %q", got)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
		t.Errorf("%d MiB allocated", used>>20)
	}
}

func TestRefusesTreesThatAreMalformed(t *testing.T) {
	id := strings.Repeat("\x01", 20)
	for name, data := range map[string]string{
		"dots":      "40000 ..\x00" + id,
		"slash":     "100644 a/b\x00" + id,
		"empty":     "100644 \x00" + id,
		"twice":     "100644 a\x00" + id + "40000 a\x00" + id,
		"mode":      "140000 a\x00" + id,
		"cut off":   "100644 a\x00" + id[:10],
		"no name":   "100644 a",
		"no spaces": "garbage",
	} {
		if entries, err := parseFolder([]byte(data)); err == nil {
			t.Errorf("%s: %+v", name, entries)
		}
	}
}

func TestBoundsTreesThatMultiplyThemselves(t *testing.T) {
	r := newRepository(t)
	hash := func(kind, content string) string {
		name := filepath.Join(t.TempDir(), "object")
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return r.git("hash-object", "-w", "--literally", "-t", kind, name)
	}
	raw := func(id string) string {
		var b strings.Builder
		for i := 0; i < len(id); i += 2 {
			var c int
			_, _ = fmt.Sscanf(id[i:i+2], "%02x", &c)
			b.WriteByte(byte(c))
		}
		return b.String()
	}
	tree := hash("tree", "100644 f\x00"+raw(hash("blob", "x")))
	for range 12 { // 10^12 files
		var b strings.Builder
		for i := range 10 {
			fmt.Fprintf(&b, "40000 d%d\x00%s", i, raw(tree))
		}
		tree = hash("tree", b.String())
	}
	id := r.git("commit-tree", "-m", "bomb", tree)
	r.git("push", "-q", "origin", id+":refs/heads/main")
	f := follow(t, New(Config{Dir: t.TempDir()}), r.source(), swarm.Credential{})
	bomb := f.commit(id).Tree
	if _, err := bomb.Changed(nil); err == nil || !strings.Contains(err.Error(), "more than 1000000 files") {
		t.Errorf("got %v", err)
	}
	if got := read(t, bomb, strings.Repeat("d7/", 12)+"f"); got != "x" {
		t.Errorf("read %q", got)
	}
}
