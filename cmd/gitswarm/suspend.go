package main

import "github.com/spf13/cobra"

func (a *app) suspendCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:               "suspend STACK",
		Short:             "Roll out nothing new until resume",
		Long:              "Roll out nothing new of a stack until `gitswarm resume`. What runs goes on, and is restarted when it ends.",
		Example:           "  gitswarm suspend shop --reason 'sale on Friday'",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), args[0], "suspend", map[string]string{"why": why}, waitFlags{})
		},
	}
	cmd.Flags().StringVar(&why, "reason", "", "why, for those who read status")
	return a.listFlags(cmd)
}

func (a *app) resumeCommand() *cobra.Command {
	var wait waitFlags
	cmd := &cobra.Command{
		Use:               "resume STACK",
		Short:             "Follow the repository again",
		Example:           "  gitswarm resume shop --wait",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), args[0], "resume", nothing{}, wait)
		},
	}
	wait.add(cmd)
	return a.listFlags(cmd)
}
