package main

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

func (a *app) upgradeCommand() *cobra.Command {
	var digest string
	var nodes []string
	cmd := &cobra.Command{
		Use: "upgrade [BINARY|URL]", Short: "Replace the daemons, machine by machine", Args: cobra.MaximumNArgs(1),
		Long: "Replace the daemons, machine by machine, the leader last. Containers go on. The next machine is begun when the\n" +
			"last one is ready again. A build that skips a release is refused. Without a binary it shows what would happen.",
		Example: "  gitswarm upgrade\n  gitswarm upgrade /usr/local/bin/gitswarm.new\n" +
			"  gitswarm upgrade https://example.com/gitswarm --digest sha256:…",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			request := map[string]any{"binary": append(args, "")[0], "digest": digest}
			if len(nodes) > 0 {
				request["nodes"] = nodes
			}
			return client.streamFrom(cmd.Context(), http.MethodPost, "/v1/cluster/upgrade", nil, request, func(data []byte) error {
				var line api.UpgradeLine
				if err := json.Unmarshal(data, &line); err != nil {
					return fmt.Errorf("read progress: %w", err)
				}
				fmt.Fprintln(a.stdout, line.Text)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&digest, "digest", "", "sha256:… of the binary; asked for with a URL")
	cmd.Flags().StringSliceVar(&nodes, "node", nil, "machines to upgrade (every one unless set)")
	return cmd
}
