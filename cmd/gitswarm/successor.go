package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/gitswarm/gitswarm/internal/durable"
	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	shimName     = "gitswarm-shim"
	previous     = ".previous"      // what an upgrade adds to the name of what was there before
	versionTime  = 10 * time.Second // for a binary to say what it is
	restartGrace = 30 * time.Second // for the daemon to stop before the next build takes its place
	runningBuild = "/proc/self/exe" // also after its file was replaced
)

// errRestart ends a daemon whose successor is in place.
var errRestart = errors.New("another build takes over")

// successor finds the build that follows this one, and puts it in its place.
type successor struct {
	own     string // where this daemon was started from
	running func() (swarm.Digest, error)
	log     *slog.Logger
	turn    sync.Mutex // held by whoever replaces files
}

func newSuccessor(log *slog.Logger) (*successor, error) {
	own, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this daemon's binary: %w", err)
	}
	running := sync.OnceValues(func() (swarm.Digest, error) { return digestOf(runningBuild) })
	return &successor{own: own, running: running, log: log}, nil
}

// upgrade answers what a manager asks about a build, and installs it if that is
// asked for. The daemon that runs goes on as it is.
func (s *successor) upgrade(ctx context.Context, request swarm.UpgradeRequest) (swarm.UpgradeAnswer, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	path, answer, err := s.examine(ctx, request)
	if err != nil || !request.Install || answer.Current() {
		return answer, err
	}
	if err := s.install(path, answer.Digest); err != nil {
		return answer, fmt.Errorf("install %s: %w", path, err)
	}
	s.log.Info("another build was installed", "version", answer.Version, "level", answer.Level, "binary", s.own, "digest", answer.Digest)
	return answer, nil
}

// examine looks at a build without touching anything.
func (s *successor) examine(ctx context.Context, request swarm.UpgradeRequest) (path string, answer swarm.UpgradeAnswer, err error) {
	if path, err = trusted(cmp.Or(request.Binary, s.own)); err != nil {
		return path, answer, err
	}
	answer.Own = s.own
	if answer.Digest, err = digestOf(path); err != nil {
		return path, answer, err
	}
	if request.Digest != "" && request.Digest != answer.Digest {
		return path, answer, fmt.Errorf("%s is %s, not %s: put the right binary there", path, answer.Digest, request.Digest)
	}
	if answer.Running, err = s.running(); err != nil {
		return path, answer, err
	}
	if answer.Current() {
		answer.Version, answer.Level = label(buildVersion()), store.Level
		return path, answer, nil
	}
	build, err := askVersion(ctx, path)
	if err != nil {
		return path, answer, err
	}
	answer.Version, answer.Level = label(build), build.Level
	return path, answer, follows(build)
}

// label is a build in few words.
func label(v api.Version) string {
	if v.Build == "" || v.Build == v.Version {
		return v.Version
	}
	return v.Version + " (" + v.Build + ")"
}

// follows refuses a build that this one's state is not for.
func follows(build api.Version) error {
	switch {
	case build.Level == 0:
		return fmt.Errorf("%s does not say its level: it is older than upgrades, or no gitswarm", label(build))
	case build.Level < store.Level:
		return fmt.Errorf("%s is of level %d, this daemon of level %d: a state does not go back; gitswarm restore begins from a backup", label(build), build.Level, store.Level)
	case build.Level > store.Level+1:
		return fmt.Errorf("%s is of level %d, this daemon of level %d: upgrade to a release of level %d first", label(build), build.Level, store.Level, store.Level+1)
	}
	return nil
}

// trusted returns where the file behind a path is, if root alone could have put
// it there: the daemon runs it as root.
func trusted(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%s is no absolute path", path)
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("find the binary: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("find the binary: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("%s can't be run: it is %s", path, info.Mode())
	}
	for at := path; ; at = filepath.Dir(at) {
		if info, err = os.Stat(at); err != nil {
			return "", fmt.Errorf("find the binary: %w", err)
		}
		sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != 0 || info.Mode()&0o022 != 0 && !sticky {
			return "", fmt.Errorf("%s is not root's alone: chown root %s && chmod go-w %s", at, at, at)
		}
		if at == filepath.Dir(at) {
			return path, nil
		}
	}
}

func digestOf(path string) (swarm.Digest, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the binary: %w", err)
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return digest(sum.Sum(nil)), nil
}

func digest(sum []byte) swarm.Digest { return swarm.Digest("sha256:" + hex.EncodeToString(sum)) }

// askVersion runs a binary to hear what it is. It asks no daemon.
func askVersion(ctx context.Context, path string) (api.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "version", "-o", "json")
	cmd.Env, cmd.Dir, cmd.WaitDelay = []string{"GITSWARM_HOST=unix:///dev/null"}, "/", time.Second
	text, err := cmd.Output()
	if err != nil {
		return api.Version{}, fmt.Errorf("ask %s what it is: %w", path, errors.Join(err, ctx.Err()))
	}
	var said struct {
		Client api.Version `json:"client"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return api.Version{}, fmt.Errorf("ask %s what it is: %w", path, err)
	}
	return said.Client, nil
}

// install puts a build in the place of this one, and the shim beside it, if
// there is one, in the place of this one's. What was there stays beside.
func (s *successor) install(path string, want swarm.Digest) error {
	shim := filepath.Join(filepath.Dir(path), shimName)
	if own := filepath.Join(filepath.Dir(s.own), shimName); shim != own {
		if err := replaceShim(own, shim); err != nil {
			return err
		}
	}
	if err := copyBinary(s.own+previous, runningBuild, ""); err != nil || path == s.own {
		return err
	}
	return copyBinary(s.own, path, want)
}

func replaceShim(own, shim string) error {
	if _, err := os.Stat(shim); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	shim, err := trusted(shim)
	if err != nil {
		return err
	}
	if _, err := os.Stat(own); err == nil {
		if err := copyBinary(own+previous, own, ""); err != nil {
			return err
		}
	}
	return copyBinary(own, shim, "")
}

// copyBinary makes target a copy of source, which must have the digest unless that
// is empty. At any time the target is there as a whole.
func copyBinary(target, source string, want swarm.Digest) (err error) {
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.CreateTemp(filepath.Dir(target), ".gitswarm-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(to.Name())
		}
	}()
	defer to.Close()

	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(to, sum), from); err != nil {
		return err
	}
	if got := digest(sum.Sum(nil)); want != "" && got != want {
		return fmt.Errorf("%s was %s when it was looked at and is %s now: leave it alone while it is installed", source, want, got)
	}
	if err := errors.Join(to.Chmod(0o755), to.Sync(), to.Close()); err != nil {
		return err
	}
	if err := os.Rename(to.Name(), target); err != nil {
		return err
	}
	return durable.SyncFolder(filepath.Dir(target))
}

// stopWithin stops the daemon for the build that was installed, which takes over
// after grace even if something does not stop.
func (s *successor) stopWithin(grace time.Duration, stop context.CancelCauseFunc) {
	s.log.Info("daemon stops: the build that was installed takes over")
	time.AfterFunc(grace, func() {
		s.log.Warn("daemon did not stop; the build that was installed takes over", "after", grace)
		s.log.Error("daemon goes on as it is", "err", s.takeOver())
	})
	stop(errRestart)
}

// takeOver makes this process the build that was installed. It returns only if
// that fails.
func (s *successor) takeOver() error {
	err := syscall.Exec(s.own, os.Args, os.Environ())
	return fmt.Errorf("start %s: %w: put %s back in its place", s.own, err, s.own+previous)
}
