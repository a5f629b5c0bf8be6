package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// says is a program that answers `version -o json` as a build of that level.
func says(level int) string {
	return fmt.Sprintf("#!/bin/sh\n[ \"$*\" = 'version -o json' ] || exit 3\necho '{\"client\": {\"version\": \"v9\", \"build\": \"abc\", \"level\": %d}}'\n", level)
}

// newTestSuccessor is of a daemon whose binary is own/gitswarm, with a shim
// beside it.
func newTestSuccessor(t *testing.T) (s *successor, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a binary that is not root's is refused")
	}
	dir = t.TempDir()
	for name, text := range map[string]string{"own/gitswarm": "old daemon", "own/gitswarm-shim": "old shim"} {
		writeProgram(t, filepath.Join(dir, name), text)
	}
	running := func() (swarm.Digest, error) { return "sha256:running", nil }
	return &successor{own: filepath.Join(dir, "own/gitswarm"), running: running, log: slog.New(slog.DiscardHandler)}, dir
}

func writeProgram(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o755))
	must(t, os.Chmod(path, 0o755))
}

func TestInstallsABuildAndItsShimAndKeepsWhatWasThere(t *testing.T) {
	s, dir := newTestSuccessor(t)
	next := filepath.Join(dir, "new", "gitswarm")
	writeProgram(t, next, says(store.Level+1))
	writeProgram(t, filepath.Join(dir, "new", "gitswarm-shim"), "new shim")

	looked, err := s.upgrade(t.Context(), swarm.UpgradeRequest{Binary: next})
	must(t, err)
	if looked.Version != "v9 (abc)" || looked.Level != store.Level+1 || looked.Own != s.own || looked.Current() {
		t.Errorf("the build is %+v", looked)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "own", "*")); len(left) != 2 {
		t.Errorf("a look left %q", left)
	}

	_, err = s.upgrade(t.Context(), swarm.UpgradeRequest{Binary: next, Digest: looked.Digest, Install: true})
	must(t, err)
	for name, want := range map[string]string{"gitswarm": says(store.Level + 1), "gitswarm-shim": "new shim", "gitswarm-shim.previous": "old shim"} {
		path := filepath.Join(dir, "own", name)
		text, err := os.ReadFile(path)
		if err != nil || string(text) != want {
			t.Errorf("%s holds %q (%v), want %q", name, text, err, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	kept, err := digestOf(s.own + previous)
	must(t, err)
	if this, err := digestOf(runningBuild); err != nil || kept != this {
		t.Errorf("what was kept is %s, what runs %s (%v)", kept, this, err)
	}
}

func TestWhatAPackageManagerPutInPlaceIsTaken(t *testing.T) {
	s, _ := newTestSuccessor(t)
	writeProgram(t, s.own, says(store.Level))
	answer, err := s.upgrade(t.Context(), swarm.UpgradeRequest{Install: true})
	must(t, err)
	if text, _ := os.ReadFile(s.own); string(text) != says(store.Level) || answer.Current() {
		t.Errorf("the binary holds %q, the answer is %+v", text, answer)
	}
	if _, err := os.Stat(s.own + previous); err != nil {
		t.Error(err)
	}
}

func TestTheBuildThatRunsIsNotInstalledAgain(t *testing.T) {
	s, dir := newTestSuccessor(t)
	same := filepath.Join(dir, "same")
	writeProgram(t, same, says(store.Level))
	digest, err := digestOf(same)
	must(t, err)
	s.running = func() (swarm.Digest, error) { return digest, nil }
	answer, err := s.upgrade(t.Context(), swarm.UpgradeRequest{Binary: same, Install: true})
	if _, missing := os.Stat(s.own + previous); err != nil || !answer.Current() || missing == nil {
		t.Errorf("%+v, %v; kept: %v", answer, err, missing)
	}
}

func TestRefusesABuildThatIsNotFitToRun(t *testing.T) {
	s, dir := newTestSuccessor(t)
	next := filepath.Join(dir, "next")
	for _, c := range []struct {
		claim, text, binary string
		digest              swarm.Digest
		spoil               func()
		want                string
	}{
		{claim: "that is not there", binary: dir + "/nothing", want: "no such file"},
		{claim: "of no absolute path", binary: "next", want: "no absolute path"},
		{claim: "that is a folder", binary: dir, want: "can't be run"},
		{claim: "that can't be run", spoil: func() { must(t, os.Chmod(next, 0o644)) }, want: "can't be run"},
		{claim: "that others may write", spoil: func() { must(t, os.Chmod(next, 0o777)) }, want: "not root's alone"},
		{claim: "of another user", spoil: func() { must(t, os.Chown(next, 65534, 65534)) }, want: "not root's alone"},
		{claim: "in a folder that others may write", spoil: func() { must(t, os.Chmod(dir, 0o777)) }, want: "not root's alone: chown root " + dir},
		{claim: "of another digest", digest: "sha256:other", want: "put the right binary there"},
		{claim: "that fails", text: "#!/bin/sh\nexit 1\n", want: "exit status 1"},
		{claim: "that is no gitswarm", text: "#!/bin/sh\necho hello\n", want: "ask " + next + " what it is"},
		{claim: "that says no level", text: says(0), want: "does not say its level"},
		{claim: "that goes back", text: says(store.Level - 1), want: "does not go back"},
		{claim: "that skips a level", text: says(store.Level + 2), want: fmt.Sprintf("upgrade to a release of level %d first", store.Level+1)},
	} {
		must(t, os.Chmod(dir, 0o755))
		must(t, os.RemoveAll(next))
		if c.text == "" {
			c.text = says(store.Level)
		}
		writeProgram(t, next, c.text)
		if c.binary == "" {
			c.binary = next
		}
		if c.spoil != nil {
			c.spoil()
		}
		_, err := s.upgrade(t.Context(), swarm.UpgradeRequest{Binary: c.binary, Digest: c.digest, Install: true})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("a build %s: %v, want %q", c.claim, err, c.want)
		}
	}
	if text, err := os.ReadFile(s.own); string(text) != "old daemon" {
		t.Errorf("the daemon's binary holds %q (%v)", text, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "own", "*")); len(left) != 2 {
		t.Errorf("a refused build left %q", left)
	}
}
