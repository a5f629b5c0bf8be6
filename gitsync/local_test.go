package gitsync

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

func (r *repository) source() swarm.Source {
	return swarm.Source{ID: "s1", URL: "file://" + r.bare, Branch: "main"}
}

func TestSeesALocalPushAtOnce(t *testing.T) {
	r := newRepository(t)
	first := r.push("hello\n\nmore", map[string]string{"web/compose.yaml": "one"})
	f := follow(t, New(Config{Dir: t.TempDir()}), r.source(), swarm.Credential{})

	commit := f.commit(first)
	if commit.Revision != swarm.NewRevision("main", first) || commit.Author != "Ana" || commit.Subject != "hello" {
		t.Errorf("got %+v", commit)
	}
	if since := time.Since(commit.Committed); since < 0 || since > time.Minute {
		t.Errorf("committed %s ago", since)
	}

	second := r.push("two", map[string]string{"web/compose.yaml": "two"})
	pushed := time.Now()
	next := f.commit(second)
	if took := time.Since(pushed); took > 500*time.Millisecond {
		t.Errorf("seen %s after the push", took)
	}
	if got := read(t, next.Tree, "web/compose.yaml"); got != "two" {
		t.Errorf("read %q", got)
	}
	if changed, err := next.Tree.Changed(commit.Tree); err != nil || strings.Join(changed, " ") != "web/compose.yaml" {
		t.Errorf("changed: %q, %v", changed, err)
	}
}

func TestFollowsForcePushesAndPackedRepositories(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	f := follow(t, New(Config{Dir: t.TempDir()}), r.source(), swarm.Credential{})
	f.commit(first)

	r.git("commit", "-q", "--amend", "-m", "other")
	r.git("push", "-q", "--force", "origin", "main")
	amended := r.git("rev-parse", "HEAD")
	f.commit(amended)

	r.run(r.bare, "git", "gc", "-q", "--prune=now")
	third := r.push("three", map[string]string{"b": "2"})
	commit := f.commit(third)
	if got := read(t, commit.Tree, "a"); got != "1" {
		t.Errorf("read %q from a pack", got)
	}
}

func TestReportsADeletedRepositoryAndItsReturn(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	f := follow(t, New(Config{Dir: t.TempDir()}), r.source(), swarm.Credential{})
	f.commit(first)

	away := r.bare + ".away"
	if err := os.Rename(r.bare, away); err != nil {
		t.Fatal(err)
	}
	f.ask()
	f.problem(r.bare, "there is nothing at this path", "restore it")

	if err := os.Rename(away, r.bare); err != nil {
		t.Fatal(err)
	}
	f.recovery() // by itself: nobody asks

	// Another repository at the same path, with the same branch.
	if err := os.RemoveAll(r.bare); err != nil {
		t.Fatal(err)
	}
	r.create()
	f.ask()
	f.problem("the repository is empty", "push a commit to main")
	f.commit(r.push("anew", map[string]string{"b": "2"}))
}

func TestReportsADeletedBranchWithThoseThatAreThere(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	r.git("push", "-q", "origin", "HEAD:dev")
	f := follow(t, New(Config{Dir: t.TempDir()}), r.source(), swarm.Credential{})
	f.commit(first)

	r.run(r.bare, "git", "update-ref", "-d", "refs/heads/main")
	f.problem("there is no branch main", "it has dev")
	r.run(r.bare, "git", "update-ref", "refs/heads/main", first)
	f.recovery()
}

func TestWatchesTheBranchThatHEADNames(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	source := r.source()
	source.Branch = ""
	f := follow(t, New(Config{Dir: t.TempDir()}), source, swarm.Credential{})
	f.commit(first)

	r.git("checkout", "-q", "-b", "other")
	r.push("two", map[string]string{"a": "2"})
	r.run(r.bare, "git", "symbolic-ref", "HEAD", "refs/heads/other")
	commit := f.next("the other branch", func(r Report) bool { return r.Commit != nil }).Commit
	if commit.Revision.Branch() != "other" {
		t.Errorf("revision %s", commit.Revision)
	}
}

func TestReportsDamageAndNeverAnEmptyTree(t *testing.T) {
	for _, c := range []struct{ name, object string }{
		{"tree", "HEAD^{tree}"}, {"folder", "HEAD:web"}, {"file", "HEAD:web/compose.yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRepository(t)
			first := r.push("one", map[string]string{"a": "1"})
			f := follow(t, New(Config{Dir: t.TempDir()}), r.source(), swarm.Credential{})
			f.commit(first)

			r.write(map[string]string{"web/compose.yaml": "x"})
			r.git("add", "-A")
			r.git("commit", "-q", "-m", "two")
			id := r.git("rev-parse", c.object)
			second := r.git("rev-parse", "HEAD")
			r.run(r.bare, "git", "config", "receive.fsckObjects", "false")
			r.git("push", "-q", "origin", "HEAD:refs/heads/other")
			broken := filepath.Join(r.bare, "objects", id[:2], id[2:])
			whole, err := os.ReadFile(broken)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(broken); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(r.bare, "refs/heads/main"), []byte(second+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			f.problem(id, "missing or damaged", "git fsck")

			if err := os.WriteFile(broken, whole, 0o444); err != nil {
				t.Fatal(err)
			}
			f.commit(second)
		})
	}
}

func TestRefusesContentThatIsNotWhatItsNameSays(t *testing.T) {
	r := newRepository(t)
	r.push("one", map[string]string{"a": "good\n", "b": "evil\n"})
	good, evil := r.git("rev-parse", "HEAD:a"), r.git("rev-parse", "HEAD:b")
	path := func(id string) string { return filepath.Join(r.bare, "objects", id[:2], id[2:]) }
	swapped, err := os.ReadFile(path(evil))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path(good)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path(good), swapped, 0o444); err != nil {
		t.Fatal(err)
	}

	f := follow(t, New(Config{Dir: t.TempDir()}), r.source(), swarm.Credential{})
	tree := f.next("a commit", func(r Report) bool { return r.Commit != nil }).Commit.Tree
	if data, err := tree.ReadFile("a", 100); !errors.Is(err, errDamaged) {
		t.Errorf("read %q, %v", data, err)
	}
}

func TestRefusesRepositoriesOfAnotherFormat(t *testing.T) {
	r := newRepository(t)
	r.push("one", map[string]string{"a": "1"})
	alternates := filepath.Join(r.bare, "objects/info/alternates")
	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"sha256", func() error {
			return os.WriteFile(filepath.Join(r.bare, "config"), []byte("[extensions]\n\tobjectFormat = sha256\n"), 0o644)
		}, "sha256"},
		{"reftable", func() error {
			return os.WriteFile(filepath.Join(r.bare, "config"), []byte("[extensions]\n\trefStorage = reftable\n"), 0o644)
		}, "reftable"},
		{"alternates", func() error {
			return errors.Join(os.Remove(filepath.Join(r.bare, "config")), os.WriteFile(alternates, []byte("/etc\n"), 0o644))
		}, "git repack"},
		{"no repository", func() error { return os.RemoveAll(filepath.Join(r.bare, "objects")) }, "git clone"},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		f := follow(t, New(Config{Dir: t.TempDir()}), r.source(), swarm.Credential{})
		f.problem("not usable", c.want)
		f.stop()
	}
}

func TestOpensAnOlderCommitForALeaderThatBegins(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	r.push("two", map[string]string{"a": "2"})
	s := New(Config{Dir: t.TempDir()})

	commit, err := s.Commit(r.source(), swarm.NewRevision("main", first))
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, commit.Tree, "a"); got != "1" {
		t.Errorf("read %q", got)
	}
	_, err = s.Commit(r.source(), swarm.NewRevision("main", strings.Repeat("ab", 20)))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestReadsAWorkTreesOwnRepository(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	source := r.source()
	source.URL = r.work
	f := follow(t, New(Config{Dir: t.TempDir()}), source, swarm.Credential{})
	f.commit(first)
	f.stop()

	linked := filepath.Join(t.TempDir(), "linked")
	r.git("worktree", "add", "-q", "--detach", linked)
	source.URL = linked
	follow(t, New(Config{Dir: t.TempDir()}), source, swarm.Credential{}).problem("linked work tree", "git-common-dir")
}
