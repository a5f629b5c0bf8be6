package main

import (
	"context"
	"fmt"
	"time"
)

// starts measures from `git push` to all replicas running, beside pulling and
// starting as many containers.
func (s *stage) starts(ctx context.Context) error {
	g, err := s.gitswarm(ctx)
	if err != nil {
		return err
	}
	for _, n := range []int{1, 10, 50, 100} {
		var ours, theirs, pushes samples
		for round := range s.o.rounds {
			note("start %d, round %d of %d", n, round+1, s.o.rounds)
			tag, err := s.image()
			if err != nil {
				return err
			}
			turns := []func() error{
				func() error { return s.startOurs(ctx, g, n, tag, &ours, &pushes) },
				func() error { return s.startTheirs(ctx, n, tag, &theirs) },
			}
			if err := alternate(round, turns); err != nil {
				return err
			}
		}
		s.pair(fmt.Sprintf("`git push` → %d running", n), ours, theirs, "≤ 1.3×")
		s.row("of that, `git push` itself", pushes.Text("ms"), "", "", "")
	}
	return nil
}

// alternate lets the other side begin in every second round.
func alternate(round int, turns []func() error) error {
	for i := range turns {
		if err := turns[(round+i)%len(turns)](); err != nil {
			return err
		}
		settle()
	}
	return nil
}

func (s *stage) startOurs(ctx context.Context, g *side, n int, tag string, ours, pushes *samples) error {
	if err := g.rested(ctx); err != nil {
		return err
	}
	name := "stack-" + tag
	pushed := make(chan error, 1)
	began, err := g.pushing(name, stack(s.lab.Registry, tag, n, ""), pushes, pushed)
	if err != nil {
		return err
	}
	over, err := g.untilCount(ctx, n)
	if err != nil {
		return err
	}
	ours.Add(over.Sub(began))
	if err := <-pushed; err != nil {
		return err
	}
	return g.empty(ctx, name, tag)
}

func (s *stage) startTheirs(ctx context.Context, n int, tag string, theirs *samples) error {
	started := make(chan error, 1)
	began := time.Now()
	go func() {
		spec, err := s.direct.spec(ctx, tag)
		if err == nil {
			err = s.direct.start(ctx, spec, n)
		}
		started <- err
	}()
	over, err := s.direct.untilCount(ctx, n)
	if err != nil {
		return err
	}
	theirs.Add(over.Sub(began))
	if err := <-started; err != nil {
		return err
	}
	return s.direct.removeAll(ctx)
}
