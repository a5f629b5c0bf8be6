package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

const (
	machines = 5
	managers = 3
	replicas = 10
)

// A stage is where the story is told.
type stage struct {
	out     io.Writer
	began   time.Time
	lab     *lab.Lab
	cluster *lab.Cluster
	repo    *lab.Repo
	url     string // of the repository, as machines see it

	printing sync.Mutex
	moments  []string // of the timeline
}

// set builds, opens the machines and starts their daemons.
func set(ctx context.Context, out io.Writer) (*stage, error) {
	s := &stage{out: out, began: time.Now()}
	s.say("building gitswarm and the example's web server (the first time takes minutes)")
	var err error
	if s.lab, err = lab.New(ctx, io.Discard); err != nil {
		return nil, err
	}
	if err := s.furnish(ctx); err != nil {
		return nil, errors.Join(err, s.clear())
	}
	return s, nil
}

func (s *stage) furnish(ctx context.Context) (err error) {
	if s.cluster, err = s.lab.NewCluster(machines); err != nil {
		return err
	}
	s.say("five machines n1 to n5 are at 10.88.0.1 to 10.88.0.5, a registry at %s", s.cluster.Registry)
	for _, tag := range []string{"v1", "v2"} {
		if err := s.cluster.PushApp(tag); err != nil {
			return err
		}
	}
	if s.repo, s.url, err = s.cluster.NewRepo("stacks"); err != nil {
		return err
	}
	for _, h := range s.cluster.Hosts {
		if err := h.StartDaemon(ctx); err != nil {
			return fmt.Errorf("%w\nits log:\n%s", err, h.Log(4000))
		}
	}
	s.say("on each, systemd would have started: gitswarm daemon")
	return nil
}

func (s *stage) clear() error {
	var err error
	if s.cluster != nil {
		err = s.cluster.Close()
	}
	return errors.Join(err, s.lab.Close())
}

// say prints a line with the time since the demo began.
func (s *stage) say(format string, args ...any) {
	s.printing.Lock()
	defer s.printing.Unlock()
	fmt.Fprintln(s.out, s.line(fmt.Sprintf(format, args...)))
}

func (s *stage) line(text string) string {
	return fmt.Sprintf("%6.1fs  %s", time.Since(s.began).Seconds(), text)
}

// mark says something that belongs in the timeline.
func (s *stage) mark(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.printing.Lock()
	s.moments = append(s.moments, s.line(text))
	s.printing.Unlock()
	s.say("* %s", text)
}

// timeline prints what was marked.
func (s *stage) timeline() {
	fmt.Fprintln(s.out, "\nwhat happened:")
	for _, moment := range s.moments {
		fmt.Fprintln(s.out, moment)
	}
	fmt.Fprintln(s.out)
}

// typed runs a command on a machine, and shows it and what it printed.
func (s *stage) typed(ctx context.Context) lab.Typist {
	quiet := lab.Typed(ctx)
	return func(h *lab.Host, args ...string) (string, error) {
		text, err := quiet(h, args...)
		s.say("%s$ gitswarm %s", h.Name, strings.Join(args, " "))
		for line := range strings.Lines(text) {
			s.say("  %s", strings.TrimRight(line, "\n"))
		}
		return text, err
	}
}

// push commits the service at a version, and returns the commit.
func (s *stage) push(message, version string) (string, error) {
	text := fmt.Sprintf(`services:
  web:
    image: %s/app:%s
    stop_grace_period: 2s
    healthcheck: {test: ["CMD", "/app", "health"], interval: 1s, timeout: 2s, retries: 3, start_period: 5s, start_interval: 200ms}
    deploy:
      replicas: %d
      update_config: {order: start-first, monitor: 500ms}
`, s.cluster.Registry, version, replicas)
	if err := s.repo.Write(map[string]string{filepath.Join("web", "compose.yaml"): text}); err != nil {
		return "", err
	}
	return s.repo.Push(message)
}

// where says how many containers of the web server each machine runs, by what
// the kernel says.
func (s *stage) where() (text string, total int, err error) {
	found, err := s.cluster.Containers()
	if err != nil {
		return "", 0, err
	}
	var parts []string
	for _, h := range s.cluster.Hosts {
		parts = append(parts, fmt.Sprintf("%s %d", h.Name, len(found[h])))
		total += len(found[h])
	}
	return strings.Join(parts, ", "), total, nil
}

// until waits until the containers are as they should be.
func (s *stage) until(ctx context.Context, claim string, right func(found map[*lab.Host][]lab.Process) bool) error {
	var failed error
	err := lab.Poll(ctx, time.Minute, claim, func() bool {
		found, err := s.cluster.Containers()
		failed = err
		return err != nil || right(found)
	})
	return errors.Join(err, failed)
}
