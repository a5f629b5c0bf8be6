package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// tell forms the cluster, and breaks it twice.
func (s *stage) tell(ctx context.Context) error {
	for _, act := range []func(context.Context) error{s.form, s.deploy, s.loseLeader, s.loseWorker, s.regainWorker} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	s.say("done")
	return nil
}

// form types what makes a cluster of five machines.
func (s *stage) form(ctx context.Context) error {
	s.say("act 1: three managers, two workers")
	if err := s.cluster.Form(managers, s.typed(ctx)); err != nil {
		return err
	}
	first := s.cluster.Hosts[0]
	if err := lab.Poll(ctx, 20*time.Second, "all machines are ready", func() bool { return s.ready(ctx, first) == machines }); err != nil {
		return err
	}
	s.mark("five machines are one cluster")
	_, err := s.typed(ctx)(first, "node", "ls")
	return err
}

// ready counts the nodes that a manager calls ready.
func (s *stage) ready(ctx context.Context, manager *lab.Host) (n int) {
	nodes, err := manager.Nodes(ctx)
	if err != nil {
		return 0
	}
	for _, node := range nodes {
		if node.State == "ready" {
			n++
		}
	}
	return n
}

// deploy brings ten replicas up.
func (s *stage) deploy(ctx context.Context) error {
	s.say("act 2: push a web service of ten replicas")
	commit, err := s.push("web: say hello", "v1")
	if err != nil {
		return err
	}
	typed := s.typed(ctx)
	if _, err := typed(s.cluster.Hosts[0], "source", "add", "--repo", s.url, "--branch", "main", "--yes"); err != nil {
		return err
	}
	if _, err := typed(s.cluster.Hosts[1], "status", "--wait", "--revision", commit, "--timeout", "60s"); err != nil {
		return err
	}
	text, total, err := s.where()
	if err == nil && total != replicas {
		err = fmt.Errorf("%d replicas run, want %d: %s", total, replicas, text)
	}
	s.mark("ten replicas run: %s", text)
	return err
}

// loseLeader kills the leader's daemon during a rollout.
func (s *stage) loseLeader(ctx context.Context) error {
	s.say("act 3: push v2, and kill -9 the leader in the middle")
	before, err := s.cluster.Containers()
	if err != nil {
		return err
	}
	leader := s.cluster.Leader(ctx)
	if leader == nil {
		return errors.New("no machine says that it leads")
	}
	next := s.cluster.Hosts[0]
	if next == leader {
		next = s.cluster.Hosts[1]
	}
	commit, err := s.push("web: say it better", "v2")
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.typed(ctx)(next, "status", "--wait", "--revision", commit, "--timeout", "90s")
		done <- err
	}()
	if err := s.until(ctx, "three replicas are new", func(found map[*lab.Host][]lab.Process) bool { return fresh(before, found) >= 3 }); err != nil {
		return errors.Join(err, <-done)
	}
	if err := s.killLeader(ctx, leader, next); err != nil {
		return errors.Join(err, <-done)
	}
	if err := <-done; err != nil {
		return err
	}
	if err := s.restart(ctx, leader); err != nil {
		return err
	}
	err = s.until(ctx, "ten new replicas run, none twice", func(found map[*lab.Host][]lab.Process) bool {
		return tenOnce(found) && fresh(before, found) == replicas
	})
	if err != nil {
		return err
	}
	text, _, err := s.where()
	s.mark("all ten are on v2: %s", text)
	return err
}

// restart starts a daemon again, as systemd would have done long before.
func (s *stage) restart(ctx context.Context, h *lab.Host) error {
	if err := h.StartDaemon(ctx); err != nil {
		return fmt.Errorf("%w\nits log:\n%s", err, h.Log(4000))
	}
	err := lab.Poll(ctx, 30*time.Second, h.Name+" is ready", func() bool { return s.ready(ctx, h) == machines })
	if err != nil {
		return err
	}
	s.mark("the daemon of %s runs again", h.Name)
	return nil
}

// killLeader expects that containers live on, and that another manager takes
// writes.
func (s *stage) killLeader(ctx context.Context, leader, next *lab.Host) error {
	leader.Kill()
	began := time.Now()
	s.mark("%s, the leader, was killed with -9 in the middle of a rollout", leader.Name)
	err := lab.Poll(ctx, 30*time.Second, "a write is accepted", func() bool {
		_, exit := next.Run(ctx, "node", "label", "n5", "seen=after")
		return exit == 0
	})
	if err != nil {
		return err
	}
	s.mark("%s took a write %.1f s later", next.Name, time.Since(began).Seconds())
	alive, err := leader.Containers()
	if err == nil && len(alive) == 0 {
		err = fmt.Errorf("the containers of %s died with its daemon", leader.Name)
	}
	return err
}

// fresh counts the containers that were not there before.
func fresh(before, after map[*lab.Host][]lab.Process) (n int) {
	for h, found := range after {
		for _, p := range found {
			if !slices.Contains(before[h], p) {
				n++
			}
		}
	}
	return n
}

// loseWorker takes the power of a worker.
func (s *stage) loseWorker(ctx context.Context) error {
	worker := s.cluster.Hosts[machines-1]
	s.say("act 4: %s loses its power", worker.Name)
	had, err := worker.Containers()
	if err != nil {
		return err
	}
	if err := worker.Crash(); err != nil {
		return err
	}
	began := time.Now()
	s.mark("%s lost its power, and %d replicas with it", worker.Name, len(had))
	if err := s.until(ctx, "ten replicas run on the others", tenOnce); err != nil {
		return err
	}
	text, _, err := s.where()
	s.mark("ten replicas run again %.1f s later: %s", time.Since(began).Seconds(), text)
	return err
}

// tenOnce reports whether every slot runs, and none twice.
func tenOnce(found map[*lab.Host][]lab.Process) bool {
	slots := make(map[string]bool)
	total := 0
	for _, its := range found {
		for _, p := range its {
			slots[p.Hostname[:strings.LastIndexByte(p.Hostname, '-')]] = true
			total++
		}
	}
	return total == replicas && len(slots) == replicas
}

// regainWorker turns the worker on again, and expects no ghosts.
func (s *stage) regainWorker(ctx context.Context) error {
	s.say("act 5: the worker comes back")
	first, worker := s.cluster.Hosts[0], s.cluster.Hosts[machines-1]
	if err := worker.Boot(); err != nil {
		return err
	}
	if err := worker.StartDaemon(ctx); err != nil {
		return fmt.Errorf("%w\nits log:\n%s", err, worker.Log(4000))
	}
	if err := lab.Poll(ctx, 30*time.Second, "all machines are ready", func() bool { return s.ready(ctx, first) == machines }); err != nil {
		return err
	}
	if err := s.until(ctx, "ten replicas run, none twice", tenOnce); err != nil {
		return err
	}
	s.mark("all five machines are ready; ten replicas run, none twice")
	typed := s.typed(ctx)
	for _, args := range [][]string{{"node", "ls"}, {"status"}} {
		if _, err := typed(first, args...); err != nil {
			return err
		}
	}
	return nil
}
