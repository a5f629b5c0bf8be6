package main

import "github.com/spf13/cobra"

func (a *app) rollbackCommand() *cobra.Command {
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "rollback STACK [REVISION]",
		Short: "Go back to an earlier revision, without git",
		Long: "Go back to the last healthy revision before the one that is accepted now, or to any in `gitswarm history`.\n" +
			"The newer content is put in quarantine: it comes back with a commit that changes it, or `gitswarm retry`.",
		Example:           "  gitswarm rollback shop\n  gitswarm rollback shop b81e004 --wait",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]string{}
			if len(args) == 2 {
				body["to"] = args[1]
			}
			return a.act(cmd.Context(), args[0], "rollback", body, wait)
		},
	}
	wait.add(cmd)
	return a.listFlags(cmd)
}
