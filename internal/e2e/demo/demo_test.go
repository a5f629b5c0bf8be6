package main

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
)

func TestTheDemoTellsItsStoryAndLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the demo makes containers and namespaces, which needs root")
	}
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, t.Output()); err != nil {
		t.Fatal(err)
	}
}
