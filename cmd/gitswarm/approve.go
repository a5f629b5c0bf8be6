package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

func (a *app) approveCommand() *cobra.Command {
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "approve PLAN",
		Short: "Let a plan happen that waits for a person",
		Long: "Let a plan happen that waits for a person: the first sync of a source, or one that removes much.\n" +
			"`gitswarm status` names the plan.",
		Example: "  gitswarm approve 7f3a9c --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			var done api.Done
			if err := client.post(cmd.Context(), "/v1/approve", map[string]string{"plan": args[0]}, &done); err != nil {
				return err
			}
			if err := a.show(done, func(bool) { fmt.Fprintln(a.stdout, done.Text) }); err != nil || !wait.wait {
				return err
			}
			return a.await(cmd.Context(), api.Goal{}, wait.timeout)
		},
	}
	wait.add(cmd)
	return a.listFlags(cmd)
}
