package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

func (a *app) volumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "volume", Short: "Look after named volumes",
		Example: "  gitswarm volume ls\n  gitswarm volume rm shop/data",
	}
	cmd.AddCommand(
		a.volumeListCommand(),
		a.volumeActCommand("rm", "remove", "Remove a volume whose stack is gone, with its data",
			"Remove a volume whose stack is gone, with its data. Without it the volume goes 7 days after its stack."),
		a.volumeActCommand("release", "release", "Let the slots of a volume start on another node, without its data",
			"A slot stays on the node of its volume. When that node is lost, release lets the slot start elsewhere with an empty volume:\n"+
				"what the volume held is lost to it."),
	)
	return cmd
}

func (a *app) volumeListCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "ls", Short: "List named volumes and where they are", Example: "  gitswarm volume ls", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			volumes := []api.Volume{}
			if err := client.get(cmd.Context(), "/v1/volumes", nil, &volumes); err != nil {
				return err
			}
			return a.show(volumes, func(bool) {
				now := time.Now()
				list := a.table("VOLUME", "NODE", "CREATED", "KEEPS", "NOTE")
				for _, volume := range volumes {
					note := ""
					switch {
					case volume.Dropped != nil:
						note = "given up " + ago(now, *volume.Dropped) + ", its node removes it"
					case volume.Orphan != nil && volume.Removal != nil:
						note = fmt.Sprintf("its stack went %s; it is removed in %s", ago(now, *volume.Orphan), api.Ago(volume.Removal.Sub(now)))
					}
					list.add(volume.ID, dash(volume.Hostname), ago(now, volume.Created), dash(strings.Join(volume.Pins, ", ")), dash(note))
				}
				list.write(a.stdout)
			})
		},
	})
}

func (a *app) volumeActCommand(name, verb, summary, long string) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use: name + " STACK/VOLUME", Short: summary, Long: long, Args: cobra.ExactArgs(1),
		Example: "  gitswarm volume " + name + " shop/data --node w2",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			body := map[string]string{"volume": args[0]}
			if node != "" {
				body["node"] = node
			}
			var done api.Done
			if err := client.post(cmd.Context(), "/v1/volumes/"+verb, body, &done); err != nil {
				return err
			}
			return a.show(done, func(bool) { fmt.Fprintln(a.stdout, done.Text) })
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "which node's, where several have one of that name")
	return a.listFlags(cmd)
}
