package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/figures"
	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// begun starts what a person types, and returns when that was; its end goes to
// done.
func begun(ctx context.Context, apply func(context.Context) error) (began time.Time, done <-chan error) {
	ended := make(chan error, 1)
	began = time.Now()
	go func() { ended <- apply(ctx) }()
	return began, ended
}

// run applies a workload and waits until its containers run; it returns how
// long that took.
func (w *watched) run(ctx context.Context, load workload) (time.Duration, error) {
	apply, err := w.prepare(load)
	if err != nil {
		return 0, err
	}
	began, done := begun(ctx, apply)
	over, err := w.untilRun(ctx, load.replicas, load.version)
	return over.Sub(began), errors.Join(err, <-done)
}

// with measures while a workload runs, and takes that away.
func (w *watched) with(ctx context.Context, load workload, measure func() (time.Duration, error)) (time.Duration, error) {
	if _, err := w.run(ctx, load); err != nil {
		return 0, err
	}
	time.Sleep(2 * time.Second) // what a start costs is over
	took, err := measure()
	if err != nil {
		return 0, err
	}
	return took, w.gone(ctx, load)
}

func (w *watched) gone(ctx context.Context, load workload) error {
	if err := w.remove(ctx, load); err != nil {
		return err
	}
	_, err := w.until(ctx, "no container runs", func(found map[string]container) bool { return len(found) == 0 })
	return err
}

// leaders measures from a leader's death to the next write that is accepted.
func (s *stage) leaders(ctx context.Context) error {
	ours, theirs, err := s.rounds("leader killed", func(w *watched) (time.Duration, error) {
		leader, err := w.leader(ctx)
		if err != nil {
			return 0, err
		}
		next := s.cluster.Hosts[0]
		if next == leader {
			next = s.cluster.Hosts[1]
		}
		if err := w.kill(leader); err != nil {
			return 0, err
		}
		began := time.Now()
		err = lab.Poll(ctx, patience, "a write is accepted", func() bool { return w.write(ctx, next, strconv.FormatInt(began.UnixNano(), 36)) == nil })
		if err != nil {
			return 0, err
		}
		took := time.Since(began)
		if err := w.start(ctx, leader); err != nil {
			return 0, err
		}
		return took, w.whole(ctx, next)
	})
	if err == nil {
		s.pair("leader killed → next write accepted", ours, theirs, "≤ 1500 ms")
	}
	return err
}

// workers measures from a worker's death until its ten tasks run elsewhere.
func (s *stage) workers(ctx context.Context) error {
	const replicas = 20
	dead, first := s.cluster.Hosts[machines-1], s.cluster.Hosts[0]
	ours, theirs, err := s.rounds("worker killed", func(w *watched) (time.Duration, error) {
		load := workload{name: s.name(), replicas: replicas, version: "1", workers: true}
		return w.with(ctx, load, func() (time.Duration, error) {
			if n := count(w.look(), func(c container) bool { return c.host == dead }); n != replicas/2 {
				return 0, fmt.Errorf("%d tasks run on %s, want %d", n, dead.Name, replicas/2)
			}
			if err := w.kill(dead); err != nil {
				return 0, err
			}
			began := time.Now()
			over, err := w.until(ctx, "all run elsewhere", func(found map[string]container) bool {
				return count(found, func(c container) bool { return c.host != dead }) == replicas
			})
			if err != nil {
				return 0, err
			}
			err = errors.Join(w.start(ctx, dead), w.whole(ctx, first))
			if err == nil {
				_, err = w.untilRun(ctx, replicas, load.version)
			}
			return over.Sub(began), err
		})
	})
	if err == nil {
		s.pair("worker killed → its 10 tasks run elsewhere", ours, theirs, "≤ 5000 ms")
	}
	return err
}

// deploys measures from what a person types to all replicas running.
func (s *stage) deploys(ctx context.Context) error {
	for _, n := range []int{10, 50, 100} {
		what := fmt.Sprintf("deploy of %d, until all run", n)
		ours, theirs, err := s.rounds(what, func(w *watched) (time.Duration, error) {
			load := workload{name: s.name(), replicas: n, version: "1"}
			took, err := w.run(ctx, load)
			if err != nil {
				return 0, err
			}
			return took, w.gone(ctx, load)
		})
		if err != nil {
			return err
		}
		s.pair(what, ours, theirs, "≤ 0.7×")
	}
	return nil
}

// replaces measures until ten replicas of a new version have taken the place of
// ten.
func (s *stage) replaces(ctx context.Context) error {
	for order, goal := range map[string]string{"stop-first": "≤ 0.15×", "start-first": "≤ 0.7×"} {
		what := "replace 10, " + order + ", monitor 0"
		ours, theirs, err := s.rounds(what, func(w *watched) (time.Duration, error) {
			load := workload{name: s.name(), replicas: 10, version: "1", order: order, monitor: "0s"}
			return w.with(ctx, load, func() (time.Duration, error) {
				load.version = "2"
				return w.run(ctx, load)
			})
		})
		if err != nil {
			return err
		}
		s.pair(what, ours, theirs, goal)
	}
	return nil
}

// rollbacks measures from a change that dies to all ten running as before.
func (s *stage) rollbacks(ctx context.Context) error {
	ours, theirs, err := s.rounds("failed change", func(w *watched) (time.Duration, error) {
		load := workload{name: s.name(), replicas: 10, version: "1", monitor: "5s"}
		return w.with(ctx, load, func() (time.Duration, error) {
			changed := load
			changed.version, changed.bad = "2", true
			apply, err := w.prepare(changed)
			if err != nil {
				return 0, err
			}
			began, done := begun(ctx, apply)
			if _, err := w.until(ctx, "a changed container runs", func(found map[string]container) bool { return count(found, ofVersion("2")) > 0 }); err != nil {
				return 0, err
			}
			over, err := w.untilRun(ctx, 10, "1")
			return over.Sub(began), errors.Join(err, <-done)
		})
	})
	if err == nil {
		s.pair("failed change → all 10 as before", ours, theirs, "≤ 0.3×")
	}
	return err
}

// drains measures until five of ten tasks have moved, and counts the replicas
// that were missing meanwhile.
func (s *stage) drains(ctx context.Context) error {
	drained := s.cluster.Hosts[machines-1]
	fewest := map[*watched]int{s.ours: 10, s.theirs: 10}
	ours, theirs, err := s.rounds("drain", func(w *watched) (time.Duration, error) {
		load := workload{name: s.name(), replicas: 10, version: "1", workers: true}
		return w.with(ctx, load, func() (time.Duration, error) {
			began, done := begun(ctx, func(ctx context.Context) error { return w.drain(ctx, drained, true) })
			over, err := w.until(ctx, "ten run elsewhere", func(found map[string]container) bool {
				fewest[w] = min(fewest[w], len(found))
				elsewhere := count(found, func(c container) bool { return c.host != drained })
				return elsewhere == 10 && len(found) == 10
			})
			return over.Sub(began), errors.Join(err, <-done, w.drain(ctx, drained, false))
		})
	})
	if err == nil {
		s.pair("drain, 5 of 10 tasks move", ours, theirs, "≤ 0.7×")
		fmt.Fprintln(s.out, figures.Row("replicas that ran at the fewest while draining", strconv.Itoa(fewest[s.ours]), strconv.Itoa(fewest[s.theirs]), "", "10"))
	}
	return err
}

// idle weighs each node's daemons with nothing to do.
func (s *stage) idle(ctx context.Context) error {
	note("idle for 30 s")
	select {
	case <-time.After(30 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, kind := range []struct{ key, name, goal string }{{"Rss:", "RSS", "≤ 0.6×"}, {"Pss:", "PSS", ""}} {
		ours, err := s.weigh(s.ours, kind.key)
		if err != nil {
			return err
		}
		theirs, err := s.weigh(s.theirs, kind.key)
		if err != nil {
			return err
		}
		fmt.Fprintln(s.out, figures.Row("idle memory of a node's daemons, "+kind.name, ours.Text("MB"), theirs.Text("MB"), figures.Ratio(ours, theirs), kind.goal))
	}
	return nil
}

// weigh sums the memory of each host's daemons, in MB.
func (s *stage) weigh(w *watched, key string) (weights figures.Samples, err error) {
	for _, h := range s.cluster.Hosts {
		pids, err := w.daemons(h)
		if err != nil {
			return nil, err
		}
		sum := 0.0
		for _, pid := range pids {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
			if err != nil {
				return nil, fmt.Errorf("weigh process %d: %w", pid, err)
			}
			for line := range strings.Lines(string(text)) {
				if fields := strings.Fields(line); len(fields) > 1 && fields[0] == key {
					kib, err := strconv.ParseFloat(fields[1], 64)
					if err != nil {
						return nil, err
					}
					sum += kib * 1024 / 1e6
				}
			}
		}
		weights = append(weights, sum)
	}
	return weights, nil
}
