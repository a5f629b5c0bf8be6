package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// replicasRolled is how many replicas a rollout has.
const replicasRolled = 10

// rolls measures from `git push` to ten replicas replaced one after the other,
// beside stopping and starting ten containers one after the other.
func (s *stage) rolls(ctx context.Context) error {
	var ours, theirs samples
	err := s.withTen(ctx, "roll", func(g *side, _ string) error {
		for round := range s.o.rounds {
			note("roll, round %d of %d", round+1, s.o.rounds)
			tag, err := s.image()
			if err != nil {
				return err
			}
			turns := []func() error{
				func() error { return s.rollOurs(ctx, g, tag, &ours) },
				func() error { return s.rollTheirs(ctx, tag, &theirs) },
			}
			if err := alternate(round, turns); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.pair("`git push` → 10 replaced one by one, monitor 0", ours, theirs, "≤ 1.3×")
	return nil
}

// withTen calls measure while both sides run ten replicas of one image, and
// takes those away.
func (s *stage) withTen(ctx context.Context, name string, measure func(g *side, tag string) error) error {
	g, err := s.gitswarm(ctx)
	if err != nil {
		return err
	}
	tag, err := s.image()
	if err != nil {
		return err
	}
	commit, err := g.settled(ctx, name, stack(s.lab.Registry, tag, replicasRolled, ""))
	if err != nil {
		return fmt.Errorf("bring up %s: %w", commit, err)
	}
	spec, err := s.direct.spec(ctx, tag)
	if err == nil {
		err = s.direct.start(ctx, spec, replicasRolled)
	}
	if err != nil {
		return err
	}
	settle()
	if err := measure(g, tag); err != nil {
		return err
	}
	return errors.Join(s.direct.removeAll(ctx), g.empty(ctx, name, tag))
}

func (s *stage) rollOurs(ctx context.Context, g *side, tag string, ours *samples) error {
	if err := g.rested(ctx); err != nil {
		return err
	}
	before := g.look()
	pushed := make(chan error, 1)
	began, err := g.pushing("roll", stack(s.lab.Registry, tag, replicasRolled, ""), nil, pushed)
	if err != nil {
		return err
	}
	over, err := g.untilNew(ctx, replicasRolled, before)
	if err != nil {
		return err
	}
	ours.Add(over.Sub(began))
	return <-pushed
}

func (s *stage) rollTheirs(ctx context.Context, tag string, theirs *samples) error {
	before, old := s.direct.look(), append([]swarm.TaskID(nil), s.direct.ids...)
	rolled := make(chan error, 1)
	began := time.Now()
	go func() {
		spec, err := s.direct.spec(ctx, tag)
		for range replicasRolled {
			if err == nil {
				err = s.direct.replace(ctx, spec)
			}
		}
		rolled <- err
	}()
	over, err := s.direct.untilNew(ctx, replicasRolled, before)
	if err != nil {
		return err
	}
	theirs.Add(over.Sub(began))
	return errors.Join(<-rolled, s.direct.remove(ctx, old))
}

// rollbacks measures from a new replica's death to the old one running again
// in its place and to the rollout's end, beside starting the old container
// again once the new one has died.
func (s *stage) rollbacks(ctx context.Context) error {
	var ours, ended, theirs samples
	err := s.withTen(ctx, "fall", func(g *side, tag string) error {
		for round := range s.o.rounds {
			note("rollback, round %d of %d", round+1, s.o.rounds)
			bad, err := s.image("APP_EXIT_AFTER=1s", "APP_EXIT_CODE=3")
			if err != nil {
				return err
			}
			turns := []func() error{
				func() error { return s.fallOurs(ctx, g, bad, &ours, &ended) },
				func() error { return s.fallTheirs(ctx, tag, bad, &theirs) },
			}
			if err := alternate(round, turns); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.pair("a replica's death → the old one runs again", ours, theirs, "")
	s.row("a replica's death → `status --wait` says rolled back", ended.Text("ms"), "", "", "")
	return nil
}

func (s *stage) fallOurs(ctx context.Context, g *side, bad string, ours, ended *samples) error {
	if err := g.rested(ctx); err != nil {
		return err
	}
	before := g.look()
	commit, err := g.commit("fall", stack(s.lab.Registry, bad, replicasRolled, "{monitor: 5s}"))
	if err != nil {
		return err
	}
	g.pushed = time.Now()
	if err := g.repo.Send(); err != nil {
		return err
	}
	waited := make(chan time.Time, 1)
	var exit int
	go func() {
		_, exit = g.Run(ctx, "status", "--wait", "--revision", commit, "--timeout", "90s")
		waited <- time.Now()
	}()
	died, again, err := g.watchFall(ctx, before)
	if err != nil {
		return err
	}
	over := <-waited
	if exit != 2 {
		return fmt.Errorf("gitswarm status --wait exited %d, want 2", exit)
	}
	ours.Add(again.Sub(died))
	ended.Add(over.Sub(died))
	return nil
}

func (s *stage) fallTheirs(ctx context.Context, good, bad string, theirs *samples) error {
	fell := make(chan error, 1)
	before := s.direct.look()
	go func() { fell <- s.fall(ctx, good, bad) }()
	died, again, err := s.direct.watchFall(ctx, before)
	if err != nil {
		return err
	}
	theirs.Add(again.Sub(died))
	return <-fell
}

// fall replaces a container by one that dies, and that by one like the first.
func (s *stage) fall(ctx context.Context, good, bad string) error {
	badSpec, err := s.direct.spec(ctx, bad)
	if err != nil {
		return err
	}
	goodSpec, err := s.direct.spec(ctx, good)
	if err != nil {
		return err
	}
	oldest := s.direct.ids[0]
	if err := s.direct.replace(ctx, badSpec); err != nil {
		return err
	}
	dead := s.direct.ids[len(s.direct.ids)-1]
	if err := s.direct.exited(ctx, dead); err != nil {
		return err
	}
	if err := s.direct.startOne(ctx, s.direct.next(), goodSpec); err != nil {
		return err
	}
	return s.direct.remove(ctx, []swarm.TaskID{oldest, dead})
}

// watchFall returns when a new replica died, and when another ran in its
// place.
func (o *observer) watchFall(ctx context.Context, before map[string]bool) (died, again time.Time, err error) {
	var bad map[string]bool
	if _, err = o.until(ctx, "a new replica runs", func(running map[string]bool) bool {
		bad = running
		return countNew(running, before) == 1
	}); err != nil {
		return died, again, err
	}
	seen := make(map[string]bool, len(before)+len(bad))
	for _, containers := range []map[string]bool{before, bad} {
		for container := range containers {
			seen[container] = true
		}
	}
	if died, err = o.until(ctx, "the new replica died", func(running map[string]bool) bool { return countNew(running, before) == 0 }); err != nil {
		return died, again, err
	}
	again, err = o.until(ctx, "the old version runs again", func(running map[string]bool) bool {
		return len(running) == replicasRolled && countNew(running, seen) == 1
	})
	return died, again, err
}
