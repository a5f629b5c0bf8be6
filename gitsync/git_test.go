package gitsync

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// repository is a bare repository and a clone to push from, made by git itself.
type repository struct {
	t    testing.TB
	bare string
	work string
}

func newRepository(t testing.TB) *repository {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed: apt-get install git")
	}
	root := t.TempDir()
	r := &repository{t: t, bare: filepath.Join(root, "repo.git"), work: filepath.Join(root, "work")}
	r.create()
	return r
}

func (r *repository) create() {
	r.run("", "git", "init", "-q", "--bare", "-b", "main", r.bare)
	if err := os.RemoveAll(r.work); err != nil {
		r.t.Fatal(err)
	}
	r.run("", "git", "init", "-q", "-b", "main", r.work)
	r.git("remote", "add", "origin", r.bare)
}

func (r *repository) run(dir, name string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = gitEnv()
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func gitEnv() []string {
	return append(os.Environ(),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=Ana", "GIT_AUTHOR_EMAIL=ana@example.org",
		"GIT_COMMITTER_NAME=Ana", "GIT_COMMITTER_EMAIL=ana@example.org")
}

// git runs git in the clone.
func (r *repository) git(args ...string) string {
	r.t.Helper()
	return r.run(r.work, "git", args...)
}

// write puts files into the clone; an empty content removes one.
func (r *repository) write(files map[string]string) {
	r.t.Helper()
	for name, content := range files {
		full := filepath.Join(r.work, name)
		if content == "" {
			if err := os.RemoveAll(full); err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
}

// push commits files and pushes them; it returns the commit.
func (r *repository) push(subject string, files map[string]string, flags ...string) string {
	r.t.Helper()
	r.write(files)
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", subject)
	r.git(append([]string{"push", "-q", "origin", "HEAD"}, flags...)...)
	return r.git("rev-parse", "HEAD")
}

// follower is a running Watch.
type follower struct {
	t       testing.TB
	reports chan Report
	nudge   chan struct{}
	stop    func()
}

func follow(t testing.TB, s *Syncer, source swarm.Source, credential swarm.Credential) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{t: t, reports: make(chan Report, 100), nudge: make(chan struct{}, 1)}
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx, source, credential, f.nudge, func(r Report) { f.reports <- r }) }()
	stopped := false
	f.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("watch: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("watch did not end")
		}
	}
	t.Cleanup(f.stop)
	return f
}

// next waits for a report that fits.
func (f *follower) next(what string, fits func(Report) bool) Report {
	f.t.Helper()
	deadline := time.After(90 * time.Second) // of a machine that others use too
	var seen []string
	for {
		select {
		case r := <-f.reports:
			if fits(r) {
				return r
			}
			seen = append(seen, describe(r))
		case <-deadline:
			f.t.Fatalf("no report of %s; seen:\n%s", what, strings.Join(seen, "\n"))
		}
	}
}

func (f *follower) commit(id string) *Commit {
	f.t.Helper()
	r := f.next("commit "+id, func(r Report) bool { return r.Commit != nil && r.Commit.Revision.Commit() == id })
	return r.Commit
}

func (f *follower) problem(words ...string) error {
	f.t.Helper()
	r := f.next("a problem with "+strings.Join(words, ", "), func(r Report) bool {
		if r.Problem == nil {
			return false
		}
		for _, word := range words {
			if !strings.Contains(r.Problem.Error(), word) {
				return false
			}
		}
		return true
	})
	if r.Commit != nil {
		f.t.Fatal("a problem came with a commit")
	}
	return r.Problem
}

// recovery waits for a report without a problem.
func (f *follower) recovery() Report {
	f.t.Helper()
	return f.next("recovery", func(r Report) bool { return r.Problem == nil })
}

func (f *follower) ask() { f.nudge <- struct{}{} }

func describe(r Report) string {
	switch {
	case r.Problem != nil:
		return "problem: " + r.Problem.Error()
	case r.Commit != nil:
		return "commit: " + string(r.Commit.Revision)
	}
	return "seen"
}

// read returns a small file of a commit.
func read(t testing.TB, tree *Tree, path string) string {
	t.Helper()
	data, err := tree.ReadFile(path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestMain makes sure that no goroutine and no child is left by any test.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leftover(5 * time.Second); left != "" && code == 0 {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftover waits until only goroutines of the test program itself are there.
func leftover(patience time.Duration) string {
	deadline := time.Now().Add(patience)
	for {
		buf := make([]byte, 1<<20)
		stacks := bytes.Split(buf[:runtime.Stack(buf, true)], []byte("\n\n"))
		var left []string
		for _, stack := range stacks {
			if bytes.Contains(stack, []byte("gitswarm/gitsync.")) && !bytes.Contains(stack, []byte("gitsync.TestMain")) {
				left = append(left, string(stack))
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return strings.Join(left, "\n\n")
		}
		time.Sleep(20 * time.Millisecond)
	}
}
