package main

import (
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Show machines", Example: "  gitswarm node ls\n  gitswarm node inspect w2"}
	cmd.AddCommand(a.nodeListCommand(), a.nodeInspectCommand())
	return cmd
}

func (a *app) nodeListCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "ls", Short: "List machines", Example: "  gitswarm node ls -o wide", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			nodes := []api.Node{}
			if err := client.get(cmd.Context(), "/v1/nodes", nil, &nodes); err != nil {
				return err
			}
			return a.show(nodes, func(wide bool) { a.writeNodes(nodes, wide) })
		},
	})
}

func (a *app) writeNodes(nodes []api.Node, wide bool) {
	heads := []string{"NODE", "ROLE", "STATE", "SINCE", "AVAILABILITY", "TASKS", "CPUS", "MEMORY"}
	if wide {
		heads = append(heads, "ID", "PLATFORM", "ADDRESS", "BUILD")
	}
	list := a.table(heads...)
	for _, node := range nodes {
		cells := []string{
			dash(node.Hostname), dash(node.Role), node.State, ago(time.Now(), node.Since), node.Availability,
			strconv.Itoa(node.Tasks), fmt.Sprintf("%.3g", float64(node.NanoCPUs)/1e9), bytesText(node.Memory),
		}
		if wide {
			cells = append(cells, node.ID, node.OS+"/"+node.Arch, dash(node.Address), dash(node.Build))
		}
		list.add(cells...)
	}
	list.write(a.stdout)
}

func (a *app) nodeInspectCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "inspect NODE", Short: "Show a machine and its tasks", Args: cobra.ExactArgs(1),
		Example: "  gitswarm node inspect w2",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			var node api.Node
			if err := client.get(cmd.Context(), "/v1/nodes/"+url.PathEscape(args[0]), nil, &node); err != nil {
				return err
			}
			tasks := []api.Task{}
			if err := client.get(cmd.Context(), "/v1/tasks", url.Values{"node": {node.ID}}, &tasks); err != nil {
				return err
			}
			return a.show(node, func(wide bool) {
				a.writeNodes([]api.Node{node}, wide)
				fmt.Fprintln(a.stdout)
				a.taskTable(time.Now(), tasks, wide).write(a.stdout)
			})
		},
	})
}
