// Command benchpeers measures a cluster of gitswarm beside one of Docker Swarm
// on the same five hosts of this machine, in one run, taking turns, and prints
// a table in Markdown: what a lost leader and a lost worker cost, deploying,
// replacing, rolling back, draining, and what an idle node holds.
//
// Both are told by their own command lines, with services on the hosts'
// network, and judged from outside: by the processes in the containers' control
// groups. A node that is killed sends nothing more: its side's ports are
// silenced before its processes get SIGKILL.
//
// It judges no figure: whoever reads the table does. It needs root, Debian's
// docker.io (scripts/setup --peers), and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// options is what the command line says.
type options struct {
	rounds int
	only   string
	engine string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "how often each pair is measured")
	flag.StringVar(&o.only, "only", "idle,leader,worker,deploy,replace,rollback,drain", "which parts")
	flag.StringVar(&o.engine, "engine", "", "folder with another dockerd, containerd, runc and shim, put first in PATH")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "benchpeers:", err)
		os.Exit(1)
	}
}

// run measures the parts that were asked for.
func run(ctx context.Context, out io.Writer, o options) (err error) {
	s, err := set(ctx, out, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.clear()) }()

	s.header()
	parts := []struct {
		name    string
		measure func(context.Context) error
	}{
		{"idle", s.idle},
		{"leader", s.leaders},
		{"worker", s.workers},
		{"deploy", s.deploys},
		{"replace", s.replaces},
		{"rollback", s.rollbacks},
		{"drain", s.drains},
	}
	for _, part := range parts {
		if !strings.Contains(","+o.only+",", ","+part.name+",") {
			continue
		}
		if err := part.measure(ctx); err != nil {
			return fmt.Errorf("measure %s: %w", part.name, err)
		}
	}
	s.footer()
	return nil
}
