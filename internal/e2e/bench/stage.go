package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// A stage has both sides on it.
type stage struct {
	out    io.Writer
	o      options
	lab    *lab.Lab
	log    *journal
	direct *direct
	swarm  *side // nil until a part needs it
	tags   int
}

// side is a gitswarm daemon with a repository.
type side struct {
	*lab.Lab
	*observer
	repo   *lab.Repo
	pushed time.Time // when the last push began
}

// set builds what is measured and opens the containerd that is driven
// directly.
func set(ctx context.Context, out io.Writer, o options) (_ *stage, err error) {
	fmt.Fprintln(os.Stderr, "building gitswarm and the example's web server")
	s := &stage{out: out, o: o}
	if s.log, err = openJournal(o.log); err != nil {
		return nil, err
	}
	if s.lab, err = lab.New(ctx, s.log); err != nil {
		return nil, err
	}
	if s.direct, err = openDirect(ctx, s.lab); err != nil {
		return nil, errors.Join(err, s.lab.Close())
	}
	return s, nil
}

// clear ends both sides and removes every trace.
func (s *stage) clear() error {
	var errs []error
	if s.swarm != nil {
		errs = append(errs, s.swarm.Close())
	}
	errs = append(errs, s.direct.close(), s.lab.Close())
	return errors.Join(errs...)
}

// gitswarm starts the daemon that most parts share. A first container tells
// the name of its namespace, and warms it.
func (s *stage) gitswarm(ctx context.Context) (*side, error) {
	if s.swarm != nil {
		return s.swarm, nil
	}
	g, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	s.swarm = g

	tag, err := s.image()
	if err != nil {
		return nil, err
	}
	if _, err := g.push("first", stack(s.lab.Registry, tag, 1, "")); err != nil {
		return nil, err
	}
	if err := g.find(ctx); err != nil {
		return nil, err
	}
	if err := g.empty(ctx, "first", tag); err != nil {
		return nil, err
	}
	spec, err := s.direct.spec(ctx, tag)
	if err != nil {
		return nil, err
	}
	return g, errors.Join(s.direct.start(ctx, spec, 1), s.direct.removeAll(ctx))
}

// begin starts a daemon that follows a repository of its own.
func (s *stage) begin(ctx context.Context) (*side, error) {
	fork, err := s.lab.Fork(s.log)
	if err != nil {
		return nil, err
	}
	g := &side{Lab: fork}
	if err := g.open(ctx); err != nil {
		return nil, errors.Join(err, fork.Close())
	}
	return g, nil
}

func (g *side) open(ctx context.Context) (err error) {
	if g.repo, err = g.NewRepo("repo"); err != nil {
		return err
	}
	if _, err = g.repo.Push("begin"); err != nil {
		return err
	}
	if _, err = g.StartDaemon(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	text, exit := g.Run(ctx, "init", "--repo", g.repo.Bare, "--branch", "main", "--yes")
	if exit != 0 {
		return fmt.Errorf("gitswarm init exited %d: %s", exit, text)
	}
	return nil
}

// find makes the observer once runc has a folder for the daemon's namespace.
func (g *side) find(ctx context.Context) error {
	var found []string
	err := lab.Poll(ctx, patience, "runc knows the daemon's namespace", func() bool {
		found, _ = filepath.Glob(filepath.Join(g.RunDir, "runc", "*"))
		return len(found) == 1
	})
	if err != nil {
		return err
	}
	g.observer = newObserver(filepath.Base(found[0]))
	_, err = g.untilCount(ctx, 1)
	return err
}

// empty takes all replicas of a stack away, and waits until they are gone and
// the machine is quiet.
func (g *side) empty(ctx context.Context, name, tag string) error {
	if _, err := g.push(name, stack(g.Registry, tag, 0, "")); err != nil {
		return err
	}
	if _, err := g.untilCount(ctx, 0); err != nil {
		return err
	}
	return lab.Poll(ctx, patience, "the containers' control groups are gone", func() bool {
		groups, _ := filepath.Glob(filepath.Join(g.groups, "*", "cgroup.procs"))
		return len(groups) == 0
	})
}

// stack is a compose file with one service; monitor 0 and short grace, and
// more lines of update_config.
func stack(registry, tag string, replicas int, update string) string {
	if update == "" {
		update = "{monitor: 0s}"
	}
	return fmt.Sprintf("services:\n  web:\n    image: %s/app:%s\n    stop_grace_period: %s\n    deploy:\n      replicas: %d\n      update_config: %s\n      rollback_config: {monitor: 0s}\n",
		registry, tag, grace, replicas, update)
}

// image pushes an image that no one has seen, so that both sides must pull it;
// its only layer is known after the first.
func (s *stage) image(env ...string) (tag string, err error) {
	s.tags++
	tag = fmt.Sprintf("b%d", s.tags)
	return tag, s.lab.PushApp(tag, env...)
}

// settle lets what one measurement left behind not weigh on the next.
func settle() { time.Sleep(500 * time.Millisecond) }

// note says on stderr how far it is.
func note(format string, args ...any) {
	fmt.Fprintf(os.Stderr, strings.TrimSuffix(format, "\n")+"\n", args...)
}
