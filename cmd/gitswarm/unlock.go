package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gitswarm/gitswarm/manager/api"
)

// maxSecret bounds a key that is typed or read from standard input.
const maxSecret = 4096

// secret reads a key: without echo from a terminal, else all of standard input.
func (a *app) secret(prompt string) (string, error) {
	if file, ok := a.stdin.(*os.File); ok && terminal(file) {
		fmt.Fprint(a.stderr, prompt+": ")
		typed, err := term.ReadPassword(int(file.Fd()))
		fmt.Fprintln(a.stderr)
		if err != nil {
			return "", fmt.Errorf("read key: %w", err)
		}
		return strings.TrimSpace(string(typed)), nil
	}
	data, err := io.ReadAll(io.LimitReader(a.stdin, maxSecret+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read key: %w", err)
	case len(data) > maxSecret:
		return "", fmt.Errorf("read key: it is longer than %d bytes", maxSecret)
	}
	return strings.TrimSpace(string(data)), nil
}

func (a *app) unlockCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "unlock", Short: "Give this locked manager its key", Args: cobra.NoArgs,
		Long:    "Give this manager the key that autolock asks for after each start. It is typed, or read from standard input.",
		Example: "  gitswarm unlock\n  gitswarm unlock < key",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			key, err := a.secret("unlock key")
			if err != nil {
				return err
			}
			if key == "" {
				return errors.New("unlock: no key was given (gitswarm unlock-key shows it on a manager that is not locked)")
			}
			var done api.Done
			if err := client.post(cmd.Context(), "/v1/machine/unlock", map[string]any{"key": key}, &done); err != nil {
				return err
			}
			return a.show(done, func(bool) { fmt.Fprintln(a.stdout, done.Text) })
		},
	})
}

func (a *app) unlockKeyCommand() *cobra.Command {
	var rotate, quiet bool
	cmd := &cobra.Command{
		Use: "unlock-key", Short: "Show the key that managers ask for when they start", Args: cobra.NoArgs,
		Long: "Show the key that managers ask for when they start, while autolock is on. With --rotate a new one is made;\n" +
			"a manager that was away meanwhile may still ask for the old one.",
		Example: "  gitswarm unlock-key\n  gitswarm unlock-key --rotate",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			var key api.UnlockKey
			if err := client.post(cmd.Context(), "/v1/cluster/unlock-key", map[string]any{"rotate": rotate}, &key); err != nil {
				return err
			}
			if key.Key == "" {
				return errors.New("autolock is off: there is no key (gitswarm cluster set --autolock=true turns it on)")
			}
			return a.show(key, func(bool) {
				fmt.Fprintln(a.stdout, key.Key)
				if !quiet {
					fmt.Fprintln(a.stderr, keepKey)
				}
			})
		},
	}
	cmd.Flags().BoolVar(&rotate, "rotate", false, "make a new one")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the key alone")
	return a.listFlags(cmd)
}

// keepKey is said wherever an unlock key is shown.
const keepKey = "keep it where no manager's disk is: without it a manager that restarts stays locked → gitswarm unlock"
