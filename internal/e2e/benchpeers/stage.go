package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/figures"
	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

const (
	machines = 5
	managers = 3
	patience = 3 * time.Minute // how long anything may take
)

// A workload is what a side is told to run: one service on the hosts' network.
type workload struct {
	name     string // of its stack
	replicas int
	version  string // containers have it in their environment
	bad      bool   // containers die with code 1 after 200 ms
	order    string // stop-first or start-first
	monitor  string
	workers  bool // on workers only
}

// A side is one of the two that are compared.
type side interface {
	form(ctx context.Context) error
	// prepare does what comes before the clock starts; apply is what a person
	// types then, to its end.
	prepare(w workload) (apply func(ctx context.Context) error, err error)
	remove(ctx context.Context, w workload) error
	groups(h *lab.Host) string // folder that holds a control group for each container
	daemons(h *lab.Host) ([]int, error)
	leader(ctx context.Context) (*lab.Host, error)
	ready(ctx context.Context, at *lab.Host) (int, error)        // nodes
	write(ctx context.Context, at *lab.Host, value string) error // something small
	drain(ctx context.Context, h *lab.Host, on bool) error
	kill(h *lab.Host) error // as if it lost its power, but only for this side
	start(ctx context.Context, h *lab.Host) error
}

// A stage has both sides on it.
type stage struct {
	out     io.Writer
	o       options
	lab     *lab.Lab
	cluster *lab.Cluster
	ours    *watched
	theirs  *watched
	names   int
}

// watched is a side and who looks at its containers.
type watched struct {
	side
	*observer
}

// set opens the hosts and forms both clusters.
func set(ctx context.Context, out io.Writer, o options) (_ *stage, err error) {
	note("building gitswarm and the example's web server")
	s := &stage{out: out, o: o}
	if s.lab, err = lab.New(ctx, io.Discard); err != nil {
		return nil, err
	}
	if s.cluster, err = s.lab.NewCluster(machines); err != nil {
		return nil, errors.Join(err, s.lab.Close())
	}
	ours := &gitswarm{cluster: s.cluster}
	theirs := &docker{cluster: s.cluster, engine: o.engine}
	s.ours, s.theirs = &watched{ours, newObserver(s.cluster, ours.groups)}, &watched{theirs, newObserver(s.cluster, theirs.groups)}
	if err := errors.Join(s.cluster.PushApp("v1"), s.form(ctx)); err != nil {
		return nil, errors.Join(err, s.clear())
	}
	return s, nil
}

func (s *stage) form(ctx context.Context) error {
	for _, w := range []*watched{s.ours, s.theirs} {
		if err := w.form(ctx); err != nil {
			return err
		}
		if err := w.whole(ctx, s.cluster.Hosts[0]); err != nil {
			return err
		}
	}
	return nil
}

// whole waits until all nodes are ready, by a manager's word.
func (w *watched) whole(ctx context.Context, manager *lab.Host) error {
	return lab.Poll(ctx, patience, "all nodes are ready", func() bool {
		n, err := w.ready(ctx, manager)
		return err == nil && n == machines
	})
}

// clear ends both sides and removes every trace.
func (s *stage) clear() error {
	note("clearing away")
	return errors.Join(s.theirs.side.(*docker).removeGroups(), s.cluster.Close(), s.lab.Close())
}

func (s *stage) header() {
	fmt.Fprintf(s.out, "%d rounds, %d cores, load %s at the start; %s; medians (least–most)\n\n", s.o.rounds, runtime.NumCPU(), figures.Load(), s.theirs.side.(*docker).version)
	fmt.Fprintln(s.out, "| what | gitswarm | Docker Swarm | ratio | goal |")
	fmt.Fprintln(s.out, "|---|---|---|---|---|")
}

func (s *stage) footer() { fmt.Fprintf(s.out, "\nload %s at the end\n", figures.Load()) }

// pair prints a row with a ratio.
func (s *stage) pair(what string, ours, theirs figures.Samples, goal string) {
	fmt.Fprintln(s.out, figures.Row(what, ours.Text("ms"), theirs.Text("ms"), figures.Ratio(ours, theirs), goal))
}

// name returns the name of a stack that no one has seen.
func (s *stage) name() string {
	s.names++
	return fmt.Sprintf("s%d", s.names)
}

// rounds measures both sides so often, each beginning in every second round.
func (s *stage) rounds(what string, measure func(w *watched) (time.Duration, error)) (ours, theirs figures.Samples, err error) {
	for round := range s.o.rounds {
		note("%s, round %d of %d", what, round+1, s.o.rounds)
		order := []*watched{s.ours, s.theirs}
		if round%2 == 1 {
			order[0], order[1] = order[1], order[0]
		}
		for _, w := range order {
			took, err := measure(w)
			if err != nil {
				return nil, nil, fmt.Errorf("%s by %T: %w", what, w.side, err)
			}
			if w == s.ours {
				ours.Add(took)
			} else {
				theirs.Add(took)
			}
			time.Sleep(time.Second) // so that what it left behind does not weigh on the next
		}
	}
	return ours, theirs, nil
}

// note says on stderr how far it is.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
