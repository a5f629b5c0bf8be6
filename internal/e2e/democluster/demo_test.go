package main

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
)

func TestTheDemoOfAClusterTellsItsStoryAndLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the demo makes machines of namespaces, which needs root")
	}
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, t.Output()); err != nil {
		t.Fatal(err)
	}
}
