package main

import "github.com/spf13/cobra"

func (a *app) retryCommand() *cobra.Command {
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "retry STACK",
		Short: "Try a revision again that failed",
		Long: "Try a stack's newest revision again although it failed: content that failed is in quarantine\n" +
			"and is not tried again until it changes or someone says so.",
		Example:           "  gitswarm retry blog --wait",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), args[0], "retry", nothing{}, wait)
		},
	}
	wait.add(cmd)
	return a.listFlags(cmd)
}

// nothing is the body of a request that says all in its path.
type nothing struct{}
