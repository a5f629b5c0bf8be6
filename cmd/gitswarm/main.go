// Command gitswarm is the daemon and its command line in one binary: `gitswarm
// daemon` is manager and agent of one machine, every other command asks a
// daemon through its control API.
//
// It decides nothing: it reads flags, wires packages together and shows what
// they answer. A command that only asks starts none of the daemon's parts.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

// run is main with an exit code, so that tests can be the binary, too.
func run() int {
	runChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	app := newApp()
	err := app.root().ExecuteContext(ctx)
	return app.exitCode(ctx, err)
}

// exitError ends the program with a code of its own. Without an error it says
// nothing more.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitCode prints what went wrong and says how the program ends.
func (a *app) exitCode(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	code := 1
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
		if exit.err == nil {
			return code
		}
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return 130 // as shells say of SIGINT
	}
	fmt.Fprintln(a.stderr, a.paint.red("gitswarm:"), err)
	return code
}
