// Command bench measures gitswarm beside containerd driven directly, on this
// machine and for real, and prints a table in Markdown: from git push to
// replicas that run, rolling replacement, rollback, what an idle daemon costs,
// and what one commit costs among a thousand stacks.
//
// Both sides take turns in one run, so that a busy machine slows both. "Driven
// directly" is nodeagent/runtime alone, which is a thin layer over the same
// embedded containerd with the same snapshotter, shim and number of starts at
// once; it makes no network, which gitswarm does. Both are judged from outside:
// by the processes in the containers' control groups.
//
// It judges no figure: whoever reads the table does. It needs root, and leaves
// nothing behind.
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

	"github.com/gitswarm/gitswarm/nodeagent/runtime"
)

// options is what the command line says.
type options struct {
	rounds int
	only   string
	stacks int
	log    string
}

func main() {
	runtime.Main()
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often each pair is measured")
	flag.StringVar(&o.only, "only", "idle,commit,start,roll,rollback", "which parts")
	flag.IntVar(&o.stacks, "stacks", 1000, "of the repository in which one file changes")
	flag.StringVar(&o.log, "log", "", "file that keeps the daemons' logs")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
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
		{"idle", s.idles}, // first: another daemon would share its pages and look like thrift
		{"commit", s.commits},
		{"start", s.starts},
		{"roll", s.rolls},
		{"rollback", s.rollbacks},
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
