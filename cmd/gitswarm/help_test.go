package main

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestEveryCommandSaysWhatItDoesWithAnExample(t *testing.T) {
	root := (&app{stdout: io.Discard, stderr: io.Discard}).root()
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		if command.Short == "" || !strings.Contains(command.Example, "gitswarm ") && command.Name() != "help" {
			t.Errorf("%s: no summary or no example", command.CommandPath())
		}
		for _, child := range command.Commands() {
			walk(child)
		}
	}
	walk(root)
}

func TestEveryListTakesAnOutputFormat(t *testing.T) {
	root := (&app{stdout: io.Discard, stderr: io.Discard}).root()
	for _, path := range []string{
		"status", "plan", "validate", "ps", "logs", "stats", "inspect", "history", "events", "doctor", "version",
		"source ls", "node ls", "node ps", "node inspect", "volume ls", "token ls", "context ls", "cluster inspect",
	} {
		command, _, err := root.Find(strings.Fields(path))
		if err != nil || command.Flags().Lookup("output") == nil {
			t.Errorf("%s has no --output: %v", path, err)
		}
	}
}
