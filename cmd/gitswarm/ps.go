package main

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/swarm"
)

func (a *app) psCommand() *cobra.Command {
	var all bool
	var node string
	cmd := &cobra.Command{
		Use:   "ps [STACK[/SERVICE[.SLOT]]]",
		Short: "List tasks: one container each",
		Example: "  gitswarm ps\n  gitswarm ps shop/web\n" +
			"  gitswarm ps --all shop      # ended ones too, with their exit codes",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			query := url.Values{"all": {strconv.FormatBool(all)}}
			if len(args) > 0 {
				query.Set("target", args[0])
			}
			if node != "" {
				query.Set("node", node)
			}
			tasks := []api.Task{}
			if err := client.get(cmd.Context(), "/v1/tasks", query, &tasks); err != nil {
				return err
			}
			return a.show(tasks, func(wide bool) { a.taskTable(time.Now(), tasks, wide).write(a.stdout) })
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "ended tasks too")
	cmd.Flags().StringVar(&node, "node", "", "only those on this node")
	return a.listFlags(cmd)
}

// taskTable lists tasks; wide adds ids, images and addresses.
func (a *app) taskTable(now time.Time, tasks []api.Task, wide bool) *table {
	heads := []string{"TASK", "NODE", "STATE", "DESIRED", "SINCE", "REVISION", "MESSAGE"}
	if wide {
		heads = append(heads[:6:6], "IMAGE", "SPEC", "ADDRESSES", "MESSAGE")
	}
	list := a.table(heads...)
	for _, task := range tasks {
		message := task.Message
		switch {
		case task.Excused != "":
			message = strings.TrimSpace(message + " (" + task.Excused + ")")
		case message == "" && task.Pulled > 0 && task.State == swarm.TaskPreparing.String():
			message = "pulling " + strconv.Itoa(task.Pulled) + "%"
		}
		cells := []string{task.ID, dash(task.Hostname), task.State, task.Desired, ago(now, task.Since), dash(short(task.Revision))}
		if wide {
			cells = append(cells, dash(task.Image), shortDigest(task.Spec), dash(strings.Join(task.IPs, ",")))
		}
		list.add(append(cells, dash(message))...)
	}
	return list
}
