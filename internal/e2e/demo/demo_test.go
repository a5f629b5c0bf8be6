package main

import (
	"os"
	"testing"
)

func TestTheDemoTellsItsStoryAndLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the demo makes containers and namespaces, which needs root")
	}
	if err := run(t.Context(), t.Output()); err != nil {
		t.Fatal(err)
	}
}
