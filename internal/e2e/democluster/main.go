// Command democluster shows what a cluster of five machines is for, on this
// machine and for real: it gives each of five daemons a network, a hostname and
// processes of its own, forms the cluster as a person would, kills the leader
// during a rollout, takes a worker's power, and prints what happens as it
// happens and, at the end, a timeline. It removes every trace, and exits 1 if
// anything happens that should not.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// limit is how long the story may take, once all is built.
const limit = 3 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "democluster:", err)
		os.Exit(1)
	}
}

// run tells the story on a stage of its own and clears that away, also when
// the story is interrupted.
func run(ctx context.Context, out io.Writer) (err error) {
	s, err := set(ctx, out)
	if err != nil {
		return err
	}
	defer func() {
		s.say("clearing away: containers, machines, registry, repository")
		err = errors.Join(err, s.clear())
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("the demo took longer than "+limit.String()))
	defer cancel()
	if err := s.tell(ctx); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	s.timeline()
	return nil
}
