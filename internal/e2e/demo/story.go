package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// tell pushes v1, v2, v3 and v4.
func (s *stage) tell(ctx context.Context) error {
	for _, act := range []func(context.Context) error{s.first, s.roll, s.fail, s.fix} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	s.say("done")
	return nil
}

// noneFailed says how many requests were answered since it was last asked, and
// expects that none failed.
func (s *stage) noneFailed() error {
	answered, failed, first := s.visitors.tally()
	s.say("%d requests were answered meanwhile, %d failed", answered, failed)
	if failed > 0 {
		return fmt.Errorf("%d requests failed; the first: %w", failed, first)
	}
	return nil
}

// first brings v1 up.
func (s *stage) first(ctx context.Context) error {
	s.say("act 1: push v1, three replicas behind port %d", s.port)
	commit, err := s.push("web: say hello", "v1")
	if err != nil {
		return err
	}
	if err := s.command(ctx, 0, "init", "--repo", s.repo.Bare, "--branch", "main", "--yes"); err != nil {
		return err
	}
	if err := s.command(ctx, 0, "status", "--wait", "--revision", commit, "--timeout", "60s"); err != nil {
		return err
	}
	if err := s.answers("v1", 3); err != nil {
		return err
	}
	s.visitors.start(ctx, s.url())
	return nil
}

// roll replaces v1 by v2, one replica at a time.
func (s *stage) roll(ctx context.Context) error {
	s.say("act 2: push v2; each replica must be healthy for 3 s before the next is touched")
	commit, err := s.push("web: say it better", "v2")
	if err != nil {
		return err
	}
	if err := s.command(ctx, 0, "status", "--wait", "--revision", commit, "--timeout", "90s"); err != nil {
		return err
	}
	if err := s.answers("v2", 3); err != nil {
		return err
	}
	return s.noneFailed()
}

// fail pushes v3, which dies, and expects to be back on v2.
func (s *stage) fail(ctx context.Context) error {
	s.say("act 3: push v3, which exits 3 after 2 s; it must cost one replica at most and be taken back")
	before, err := s.healthyTasks(ctx)
	if err != nil {
		return err
	}
	commit, err := s.push("web: try something", "v3")
	if err != nil {
		return err
	}
	if err := s.command(ctx, 2, "status", "--wait", "--revision", commit, "--timeout", "60s"); err != nil {
		return err
	}
	after, err := s.healthyTasks(ctx)
	if err != nil {
		return err
	}
	kept := 0
	for _, task := range after {
		if slices.Contains(before, task) {
			kept++
		}
	}
	s.say("%d of 3 replicas were never touched", kept)
	if kept != 2 {
		return fmt.Errorf("%d replicas were left alone, want 2: before %v, after %v", kept, before, after)
	}
	if err := s.answers("v2", 3); err != nil {
		return err
	}
	// v3 passed its health check before it died: who was connected to it then
	// was cut off, and who called in the moment before that was known, refused.
	answered, failed, _ := s.visitors.tally()
	s.say("%d requests were answered meanwhile; %d came in the moment when v3 died", answered, failed)
	return s.command(ctx, 0, "status")
}

// fix pushes v4, which works.
func (s *stage) fix(ctx context.Context) error {
	s.say("act 4: push v4, the fix")
	commit, err := s.push("web: fix it", "v4")
	if err != nil {
		return err
	}
	if err := s.command(ctx, 0, "status", "--wait", "--revision", commit, "--timeout", "90s"); err != nil {
		return err
	}
	if err := s.answers("v4", 3); err != nil {
		return err
	}
	s.visitors.stop()
	if err := s.noneFailed(); err != nil {
		return err
	}
	return s.command(ctx, 0, "history", "web")
}

// healthyTasks lists the ids of the tasks that are healthy now.
func (s *stage) healthyTasks(ctx context.Context) ([]string, error) {
	text, exit := s.lab.Run(ctx, "ps", "web", "-o", "json")
	if exit != 0 {
		return nil, errors.New(text)
	}
	var tasks []struct {
		ID    string `json:"id"`
		State string `json:"state"`
	}
	if err := json.Unmarshal([]byte(text), &tasks); err != nil {
		return nil, fmt.Errorf("read `gitswarm ps`: %w\n%s", err, text)
	}
	var ids []string
	for _, task := range tasks {
		if task.State == "healthy" {
			ids = append(ids, task.ID)
		}
	}
	return ids, nil
}

// answers asks the published port until it has heard from that many replicas,
// all of the version given.
func (s *stage) answers(version string, replicas int) error {
	heard := make(map[string]int)
	for range 10 * replicas {
		text, err := get(s.url())
		if err != nil {
			return err
		}
		heard[text]++
		if !strings.HasPrefix(text, "hello from "+version+" ") {
			return fmt.Errorf("port %d answers %q, want %s", s.port, text, version)
		}
	}
	for text, n := range heard {
		s.say("  %2d × %s", n, text)
	}
	if len(heard) != replicas {
		return fmt.Errorf("%d replicas answer, want %d", len(heard), replicas)
	}
	return nil
}
