package main

import (
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

func (a *app) historyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "history STACK",
		Short:             "List a stack's rollouts, newest first",
		Long:              "List a stack's rollouts, newest first. `gitswarm rollback STACK REVISION` goes back to any of them.",
		Example:           "  gitswarm history shop\n  gitswarm history shop -o json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			rollouts := []api.Rollout{}
			if err := client.get(cmd.Context(), "/v1/stacks/"+url.PathEscape(args[0])+"/history", nil, &rollouts); err != nil {
				return err
			}
			return a.show(rollouts, func(wide bool) { a.writeHistory(rollouts, wide) })
		},
	}
	return a.listFlags(cmd)
}

func (a *app) writeHistory(rollouts []api.Rollout, wide bool) {
	list := a.table("WHEN", "REVISION", "RESULT", "TOOK", "WHAT", "WHY")
	for _, rollout := range rollouts {
		when, revision := ago(time.Now(), rollout.Began), short(rollout.Revision)
		if wide {
			when, revision = rollout.Began.Local().Format(time.DateTime), rollout.Revision
		}
		list.add(when, revision, rollout.Phase, took(rollout.Began, rollout.Over), dash(whose(rollout)), dash(rollout.Why))
	}
	list.write(a.stdout)
}
