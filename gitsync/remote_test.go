package gitsync

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

var tokenCredential = swarm.Credential{Password: token}

func TestFetchesOverHTTPOnlyWhatIsNew(t *testing.T) {
	r := newRepository(t)
	noise := make([]byte, 300_000)
	_, _ = rand.Read(noise)
	first := r.push("one", map[string]string{"a": "1", "big": string(noise)})
	server := newGitServer(t, r)
	dir := t.TempDir()
	f := follow(t, New(Config{Dir: dir}), server.source(), tokenCredential)
	before := f.commit(first)

	f.ask()
	f.next("seen", func(r Report) bool { return r.Commit == nil && r.Problem == nil })
	if n := server.packs.Load(); n != 1 {
		t.Errorf("%d fetches for one commit", n)
	}

	second := r.push("two", map[string]string{"a": "2"})
	f.ask()
	commit := f.commit(second)
	if got := read(t, commit.Tree, "a"); got != "2" {
		t.Errorf("read %q", got)
	}
	if got := read(t, commit.Tree, "big"); got != string(noise) {
		t.Error("the first fetch's file is gone")
	}
	if changed, err := commit.Tree.Changed(before.Tree); err != nil || strings.Join(changed, " ") != "a" {
		t.Errorf("changed: %q, %v", changed, err)
	}
	if size := diskUse(t, dir); size > 320_000 {
		t.Errorf("%d bytes kept for two commits", size)
	}
}

func TestFetchesOneChangedLineOfALongFileAsADifference(t *testing.T) {
	r := newRepository(t)
	noise := make([]byte, 200_000)
	_, _ = rand.Read(noise)
	long := fmt.Sprintf("%x", noise)
	first := r.push("one", map[string]string{"long": long})
	server := newGitServer(t, r)
	var sent atomic.Int64
	server.meddle(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, req)
			for key, values := range answer.Header() {
				w.Header()[key] = values
			}
			sent.Store(int64(answer.Body.Len()))
			_, _ = w.Write(answer.Body.Bytes())
		})
	})
	f := follow(t, New(Config{Dir: t.TempDir()}), server.source(), tokenCredential)
	f.commit(first)
	second := r.push("two", map[string]string{"long": long + "one more line"})
	f.ask()
	if got := read(t, f.commit(second).Tree, "long"); got != long+"one more line" {
		t.Error("the file is not what was pushed")
	}
	if n := sent.Load(); n > 5000 {
		t.Errorf("%d bytes were sent for one line", n)
	}
}

func diskUse(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func TestGoesOnAfterARestartWithoutFetching(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	server := newGitServer(t, r)
	dir := t.TempDir()
	f := follow(t, New(Config{Dir: dir}), server.source(), tokenCredential)
	f.commit(first)
	f.stop()

	s := New(Config{Dir: dir})
	kept, err := s.Commit(server.source(), swarm.NewRevision("main", first))
	if err != nil || read(t, kept.Tree, "a") != "1" {
		t.Fatalf("kept commit: %v", err)
	}
	f = follow(t, s, server.source(), tokenCredential)
	f.commit(first)
	if n := server.packs.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

func TestFetchesAnewWhatTheDiskSpoilt(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"bit rot": func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data[len(data)/2] ^= 1
			_ = os.Remove(path)
			return os.WriteFile(path, data, 0o600)
		},
		"cut off": func(path string) error { return os.Truncate(path, 20) },
		"gone":    os.Remove,
	} {
		for _, ext := range []string{"pack", "idx"} {
			t.Run(name+" "+ext, func(t *testing.T) {
				r := newRepository(t)
				first := r.push("one", map[string]string{"a": "1"})
				server := newGitServer(t, r)
				dir := t.TempDir()
				f := follow(t, New(Config{Dir: dir}), server.source(), tokenCredential)
				f.commit(first)
				f.stop()

				files, err := filepath.Glob(filepath.Join(dir, "*/g*/objects/pack/*."+ext))
				if err != nil || len(files) != 1 {
					t.Fatalf("%q, %v", files, err)
				}
				if err := spoil(files[0]); err != nil {
					t.Fatal(err)
				}
				commit := follow(t, New(Config{Dir: dir}), server.source(), tokenCredential).commit(first)
				if got := read(t, commit.Tree, "a"); got != "1" {
					t.Errorf("read %q", got)
				}
			})
		}
	}
}

func TestFetchesAnewWhatIsFoundSpoiltWhileItRuns(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	server := newGitServer(t, r)
	dir := t.TempDir()
	f := follow(t, New(Config{Dir: dir}), server.source(), tokenCredential)
	commit := f.commit(first)

	files, _ := filepath.Glob(filepath.Join(dir, "*/g*/objects/pack/*.pack"))
	if err := os.Truncate(files[0], 30); err != nil {
		t.Fatal(err)
	}
	if data, err := commit.Tree.ReadFile("a", 100); !errors.Is(err, errDamaged) {
		t.Fatalf("read %q, %v", data, err)
	}
	f.ask()
	if got := read(t, f.commit(first).Tree, "a"); got != "1" {
		t.Errorf("read %q", got)
	}
}

func TestStaysSmallOverManyCommits(t *testing.T) {
	r := newRepository(t)
	server := newGitServer(t, r)
	dir := t.TempDir()
	r.push("zero", map[string]string{"a": "0", "same": "same"})
	f := follow(t, New(Config{Dir: dir}), server.source(), tokenCredential)
	var before *Commit
	for i := range maxFetches + 5 {
		id := r.push("more", map[string]string{"a": fmt.Sprint(i + 1)})
		f.ask()
		commit := f.commit(id)
		if before != nil {
			if changed, err := commit.Tree.Changed(before.Tree); err != nil || len(changed) != 1 {
				t.Fatalf("commit %d: %q, %v", i, changed, err)
			}
		}
		before = commit
	}
	if packs, _ := filepath.Glob(filepath.Join(dir, "*/g000002/objects/pack/*.pack")); len(packs) == 0 || len(packs) > 6 {
		t.Errorf("%d packs in the second generation", len(packs))
	}
	if got := read(t, before.Tree, "same"); got != "same" {
		t.Errorf("read %q", got)
	}
	id := r.push("back", map[string]string{"a": ""})
	f.ask()
	f.commit(id)
}

func TestFollowsAForcePushToAnotherHistoryAndBack(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	second := r.push("two", map[string]string{"a": "2"})
	server := newGitServer(t, r)
	f := follow(t, New(Config{Dir: t.TempDir()}), server.source(), tokenCredential)
	f.commit(second)

	r.git("reset", "-q", "--hard", first)
	r.git("push", "-q", "--force", "origin", "main")
	f.ask()
	if got := read(t, f.commit(first).Tree, "a"); got != "1" {
		t.Errorf("read %q", got)
	}

	r.git("checkout", "-q", "--orphan", "new")
	r.git("branch", "-q", "-D", "main")
	r.git("branch", "-q", "-m", "main")
	r.write(map[string]string{"a": "", "b": "3"})
	third := r.push("three", nil, "--force")
	r.run(r.bare, "git", "gc", "-q", "--prune=now")
	f.ask()
	if got := read(t, f.commit(third).Tree, "b"); got != "3" {
		t.Errorf("read %q", got)
	}
}

func TestSaysWhatIsWrongWithARemoteAndRecovers(t *testing.T) {
	r := newRepository(t)
	server := newGitServer(t, r)
	source := server.source()
	f := follow(t, New(Config{Dir: t.TempDir(), PollEvery: time.Second}), source, tokenCredential)
	f.problem(source.URL, "the repository is empty", "push a commit to main")
	first := r.push("one", map[string]string{"a": "1"})
	f.ask()
	f.commit(first)

	status := func(code int) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		}
	}
	for _, c := range []struct {
		meddle func(http.Handler) http.Handler
		want   string
	}{
		{status(401), "refuses the credentials"},
		{status(403), "renew the token"},
		{status(404), "no such repository"},
		{status(503), "asked again later"},
		{status(200), "is not git"},
	} {
		server.meddle(c.meddle)
		f.ask()
		f.problem(c.want)
	}
	server.meddle(nil)
	if report := f.recovery(); report.Commit != nil {
		t.Errorf("recovery brought %s again", report.Commit.Revision)
	}

	source.Branch = "prod"
	g := follow(t, New(Config{Dir: t.TempDir()}), source, tokenCredential)
	g.problem("there is no branch prod", "it has main")
	g.stop()
	g = follow(t, New(Config{Dir: t.TempDir()}), server.source(), swarm.Credential{})
	g.problem("--git-token-file")
	g.stop()

	server.Close()
	f.ask()
	f.problem("is the server up?")
}
