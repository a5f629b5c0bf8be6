package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// commits measures what a commit of one file costs in a repository of many
// stacks: from the moment at which the branch's file was written to the moment
// at which its stacks are agreed on.
func (s *stage) commits(ctx context.Context) error {
	note("one file in %d stacks", s.o.stacks)
	g, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer g.Close() //nolint:errcheck // the lab's own end complains of what is left
	tag, err := s.image()
	if err != nil {
		return err
	}
	files := make(map[string]string, s.o.stacks)
	for i := range s.o.stacks {
		files[fmt.Sprintf("stack-%04d/compose.yaml", i)] = stack(s.lab.Registry, tag, 0, "")
	}
	if err := g.repo.Write(files); err != nil {
		return err
	}
	_, whole, err := s.accepted(ctx, g)
	if err != nil {
		return err
	}
	s.row(fmt.Sprintf("first commit of %d stacks: branch moved → accepted", s.o.stacks), fmt.Sprintf("%.1f s", whole.Seconds()), "", "", "")
	if err := pause(ctx, idleBefore); err != nil {
		return err
	}

	var seen, moved samples
	for round := range 2 * s.o.rounds {
		if err := g.rested(ctx); err != nil {
			return err
		}
		name := fmt.Sprintf("stack-%04d/compose.yaml", 7*round%s.o.stacks)
		changed := stack(s.lab.Registry, tag, 0, "") + fmt.Sprintf("    environment: {ROUND: \"%d\"}\n", round)
		if err := g.repo.Write(map[string]string{name: changed}); err != nil {
			return err
		}
		fromSeen, fromMoved, err := s.accepted(ctx, g)
		if err != nil {
			return err
		}
		seen.Add(fromSeen)
		moved.Add(fromMoved)
	}
	s.row(fmt.Sprintf("one file in %d stacks: commit read → accepted", s.o.stacks), seen.Text("ms"), "", "", "")
	s.row(fmt.Sprintf("one file in %d stacks: branch moved → accepted", s.o.stacks), moved.Text("ms"), "", "", "< 100 ms")
	if err := g.rested(ctx); err != nil {
		return err
	}
	return s.weigh(g)
}

// weigh prints what the daemon needs to know so many stacks.
func (s *stage) weigh(g *side) error {
	used, err := costWithChildren(g.Daemon().PID())
	if err != nil {
		return err
	}
	s.row(fmt.Sprintf("memory of the daemon with %d stacks", s.o.stacks), fmt.Sprintf("RSS %.1f MB; with the loader PSS %.1f MB", used.rss, used.together), "", "", "")
	return nil
}

// accepted pushes what was written, and returns how long it took until the
// cluster had accepted it: from the moment at which the commit was read, as
// the daemon says, and from the moment at which the branch moved.
func (s *stage) accepted(ctx context.Context, g *side) (seen, moved time.Duration, err error) {
	commit, err := g.repo.Push("change")
	if err != nil {
		return 0, 0, err
	}
	g.pushed = time.Now()
	branch, err := os.Stat(filepath.Join(g.repo.Bare, "refs", "heads", "main"))
	if err != nil {
		return 0, 0, err
	}
	match, err := s.log.find(ctx, `time=(\S+) .*msg="commit accepted" .*`+commit+`.* took=(\S+)`)
	if err != nil {
		return 0, 0, err
	}
	at, err := time.Parse(time.RFC3339Nano, match[1])
	if err != nil {
		return 0, 0, fmt.Errorf("read the daemon's log: %w", err)
	}
	if seen, err = time.ParseDuration(match[2]); err != nil {
		return 0, 0, fmt.Errorf("read the daemon's log: %w", err)
	}
	return seen, at.Sub(branch.ModTime()), nil
}
