package main

import "github.com/spf13/cobra"

func (a *app) restartCommand() *cobra.Command {
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "restart STACK | STACK/SERVICE…",
		Short: "Replace tasks one after the other, as a rollout does",
		Example: "  gitswarm restart shop/web\n" +
			"  gitswarm restart shop --wait",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			stack, services, err := splitTargets(args)
			if err != nil {
				return err
			}
			return a.act(cmd.Context(), stack, "restart", map[string]any{"services": orNone(services)}, wait)
		},
	}
	wait.add(cmd)
	return a.listFlags(cmd)
}

// orNone is an empty list for JSON, never null.
func orNone(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
