package main

import (
	"net/url"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

func (a *app) inspectCommand() *cobra.Command {
	var revision string
	cmd := &cobra.Command{
		Use:   "inspect STACK[/SERVICE[.SLOT]] | TASK",
		Short: "Show all that is known of a stack, service or task",
		Long: "Show all that is known of a stack, service or task: what people see of it, what the cluster keeps,\n" +
			"and what was rendered from the repository. As YAML unless -o json is given.",
		Example: "  gitswarm inspect shop\n  gitswarm inspect shop/web --revision 3f2c91a\n" +
			"  gitswarm inspect shop -o json | jq .record.quarantine",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			query := url.Values{"target": {args[0]}}
			if revision != "" {
				query.Set("revision", revision)
			}
			var found api.Inspection
			if err := client.get(cmd.Context(), "/v1/inspect", query, &found); err != nil {
				return err
			}
			if a.output == "" || a.output == "wide" {
				a.output = "yaml"
			}
			return a.encode(found, a.output)
		},
	}
	cmd.Flags().StringVar(&revision, "revision", "", "of the content: what runs unless set")
	return a.listFlags(cmd)
}
