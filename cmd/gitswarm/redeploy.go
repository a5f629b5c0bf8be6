package main

import "github.com/spf13/cobra"

func (a *app) redeployCommand() *cobra.Command {
	var pull bool
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "redeploy STACK | STACK/SERVICE…",
		Short: "Roll the same revision out again",
		Long: "Roll the same revision out again. A digest stays pinned while the image's name stays the same:\n" +
			"--pull resolves it anew, so that a tag that moved is followed.",
		Example:           "  gitswarm redeploy shop/web --pull\n  gitswarm redeploy shop --pull --wait",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			stack, services, err := splitTargets(args)
			if err != nil {
				return err
			}
			return a.act(cmd.Context(), stack, "redeploy", map[string]any{"services": orNone(services), "pull": pull}, wait)
		},
	}
	cmd.Flags().BoolVar(&pull, "pull", false, "resolve images anew")
	wait.add(cmd)
	return a.listFlags(cmd)
}
