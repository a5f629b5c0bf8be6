package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/swarm"
)

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "node", Short: "Show and change machines",
		Long:    "Show and change machines. A node is named by its id, the first letters of it, or its hostname.",
		Example: "  gitswarm node ls\n  gitswarm node drain w2 --wait\n  gitswarm node promote w3",
	}
	cmd.AddCommand(a.nodeListCommand(), a.nodeTasksCommand(), a.nodeInspectCommand(),
		a.nodeDrainCommand(),
		a.availabilityCommand("pause", swarm.NodePaused, "Give machines no new tasks; they keep those they have"),
		a.availabilityCommand("activate", swarm.NodeActive, "Let machines have tasks again"),
		a.roleCommand("promote", swarm.RoleManager, "Make managers of workers"),
		a.roleCommand("demote", swarm.RoleWorker, "Make workers of managers; refused where quorum would be lost"),
		a.nodeLabelCommand(), a.nodeRemoveCommand())
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
	heads := []string{"ID", "HOSTNAME", "STATUS", "AVAILABILITY", "ROLE", "TASKS", "VERSION", "ADDRESS"}
	if wide {
		heads = append(heads, "SINCE", "CPUS", "MEMORY", "PLATFORM", "LABELS")
	}
	list := a.table(heads...)
	for _, node := range nodes {
		cells := []string{
			node.ID, dash(node.Hostname), node.State, node.Availability, nodeRole(node),
			strconv.Itoa(node.Tasks), dash(node.Build), dash(node.Address),
		}
		if wide {
			cells = append(cells, ago(time.Now(), node.Since), fmt.Sprintf("%.3g", float64(node.NanoCPUs)/1e9),
				bytesText(node.Memory), node.OS+"/"+node.Arch, dash(labelsText(node.Labels)))
		}
		list.add(cells...)
	}
	list.write(a.stdout)
}

// nodeRole is leader, manager or worker.
func nodeRole(node api.Node) string {
	if node.Leader {
		return "leader"
	}
	return dash(node.Role)
}

func labelsText(labels map[string]string) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		texts = append(texts, name+"="+labels[name])
	}
	return strings.Join(texts, ",")
}

func (a *app) nodeTasksCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "ps [NODE…]", Short: "List the tasks of machines: of every one unless some are named",
		Example: "  gitswarm node ps w2\n  gitswarm node ps w1 w2 --all",
		RunE: func(cmd *cobra.Command, args []string) error {
			tasks, err := a.tasksOn(cmd.Context(), args, all)
			if err != nil {
				return err
			}
			return a.show(tasks, func(wide bool) { a.taskTable(time.Now(), tasks, wide).write(a.stdout) })
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "ended tasks too")
	return a.listFlags(cmd)
}

// tasksOn lists the tasks of nodes, node by node.
func (a *app) tasksOn(ctx context.Context, nodes []string, all bool) ([]api.Task, error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		nodes = []string{""}
	}
	tasks := []api.Task{}
	for _, node := range nodes {
		query := url.Values{"all": {strconv.FormatBool(all)}}
		if node != "" {
			query.Set("node", node)
		}
		var found []api.Task
		if err := client.get(ctx, "/v1/tasks", query, &found); err != nil {
			return nil, err
		}
		tasks = append(tasks, found...)
	}
	return tasks, nil
}

func (a *app) nodeInspectCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "inspect NODE…", Short: "Show machines and their tasks", Args: cobra.MinimumNArgs(1),
		Example: "  gitswarm node inspect w2\n  gitswarm node inspect w1 w2 -o yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			nodes := make([]api.Node, len(args))
			for i, name := range args {
				if err := client.get(cmd.Context(), "/v1/nodes/"+url.PathEscape(name), nil, &nodes[i]); err != nil {
					return err
				}
			}
			var value any = nodes
			if len(nodes) == 1 {
				value = nodes[0]
			}
			tasks, err := a.tasksOn(cmd.Context(), args, false)
			if err != nil {
				return err
			}
			return a.show(value, func(wide bool) {
				a.writeNodes(nodes, wide)
				for _, node := range nodes {
					a.writeNodeFacts(node)
				}
				fmt.Fprintln(a.stdout)
				a.taskTable(time.Now(), tasks, wide).write(a.stdout)
			})
		},
	})
}

func (a *app) writeNodeFacts(node api.Node) {
	fmt.Fprintf(a.stdout, "\n%s  %s since %s, joined %s, %s/%s, %.3g CPUs, %s\n", a.paint.bold(dash(node.Hostname)),
		a.paint.word(node.State), ago(time.Now(), node.Since), ago(time.Now(), node.Joined), node.OS, node.Arch,
		float64(node.NanoCPUs)/1e9, bytesText(node.Memory))
	for _, fact := range [][2]string{
		{"labels", labelsText(node.Labels)}, {"engine labels", labelsText(node.EngineLabels)},
		{"generic", strings.Join(node.Generic, ", ")}, {"data path", node.DataPath},
	} {
		if fact[1] != "" {
			fmt.Fprintf(a.stdout, "  %s: %s\n", fact[0], fact[1])
		}
	}
}

// onEach does an act on each of several things. With one of them its error is
// the command's; with more each is told, and the others are done all the same.
func (a *app) onEach(names []string, act func(name string) (api.Done, error)) error {
	failed := false
	for _, name := range names {
		done, err := act(name)
		switch {
		case err != nil && len(names) == 1:
			return err
		case err != nil:
			fmt.Fprintf(a.stderr, "%s %s: %v\n", a.paint.red("gitswarm:"), name, err)
			failed = true
		case a.output == "json" || a.output == "yaml":
			if err := a.encode(done, a.output); err != nil {
				return err
			}
		default:
			fmt.Fprintln(a.stdout, done.Text)
		}
	}
	if failed {
		return &exitError{code: 1}
	}
	return nil
}

// postEach posts the same body to a path of each node.
func (a *app) postEach(ctx context.Context, nodes []string, path string, body any) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	return a.onEach(nodes, func(name string) (done api.Done, err error) {
		return done, client.post(ctx, "/v1/nodes/"+url.PathEscape(name)+path, body, &done)
	})
}

func (a *app) availabilityCommand(verb string, wanted swarm.Availability, short string) *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: verb + " NODE…", Short: short, Args: cobra.MinimumNArgs(1),
		Example: "  gitswarm node " + verb + " w2",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.postEach(cmd.Context(), args, "/availability", map[string]any{"availability": wanted})
		},
	})
}

func (a *app) nodeDrainCommand() *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "drain NODE…", Short: "Move all tasks away from machines", Args: cobra.MinimumNArgs(1),
		Long: "Move all tasks away from machines: each replacement is healthy before its task stops, where order and ports\n" +
			"allow it. A slot whose volume is on the machine waits, and status says so.",
		Example: "  gitswarm node drain w2 --wait && ssh w2 reboot\n  gitswarm node activate w2",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.postEach(cmd.Context(), args, "/availability", map[string]any{"availability": swarm.NodeDrained}); err != nil || !wait {
				return err
			}
			return a.awaitEmpty(cmd.Context(), args, timeout)
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until no task runs there")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait")
	return a.listFlags(cmd)
}

// awaitEmpty waits until no task runs on nodes.
func (a *app) awaitEmpty(ctx context.Context, nodes []string, timeout time.Duration) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	ends := time.Now().Add(timeout)
	for _, name := range nodes {
		for {
			var node api.Node
			if err := client.get(ctx, "/v1/nodes/"+url.PathEscape(name), nil, &node); err != nil {
				return err
			}
			if node.Tasks == 0 {
				break
			}
			if time.Now().After(ends) {
				return &exitError{code: api.CodeTimeout, err: fmt.Errorf("drain %s: %s still run there (gitswarm node ps %s)",
					name, counted(node.Tasks, "task"), name)}
			}
			if err := sleep(ctx, watchEvery); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) roleCommand(verb, role, short string) *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: verb + " NODE…", Short: short, Args: cobra.MinimumNArgs(1),
		Example: "  gitswarm node " + verb + " w2 w3",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.postEach(cmd.Context(), args, "/role", map[string]any{"role": role})
		},
	})
}

func (a *app) nodeLabelCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "label NODE… NAME=VALUE… NAME-…", Short: "Set and remove the labels that constraints see as node.labels", Args: cobra.MinimumNArgs(2),
		Long:    "Set labels, or remove those written with a minus behind. Tasks that a label no longer suits move.",
		Example: "  gitswarm node label w2 zone=eu disk=ssd\n  gitswarm node label w1 w2 zone-",
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, set, remove, err := splitLabels(args)
			if err != nil {
				return err
			}
			return a.postEach(cmd.Context(), nodes, "/labels", map[string]any{"set": set, "remove": remove})
		},
	})
}

// splitLabels tells nodes, labels to set ("zone=eu") and labels to remove
// ("zone-") apart.
func splitLabels(args []string) (nodes []string, set map[string]string, remove []string, err error) {
	set, remove = map[string]string{}, []string{}
	for _, arg := range args {
		name, value, sets := strings.Cut(arg, "=")
		gone, removes := strings.CutSuffix(arg, "-")
		switch {
		case sets:
			set[name] = value
		case removes:
			remove = append(remove, gone)
		case len(set)+len(remove) > 0:
			return nil, nil, nil, fmt.Errorf("%q is no label: write NAME=VALUE to set one, NAME- to remove it", arg)
		default:
			nodes = append(nodes, arg)
		}
	}
	if len(nodes) == 0 || len(set)+len(remove) == 0 {
		return nil, nil, nil, fmt.Errorf("give a node and a label: gitswarm node label NODE NAME=VALUE")
	}
	return nodes, set, remove, nil
}

func (a *app) nodeRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NODE…", Short: "Forget machines that are gone", Args: cobra.MinimumNArgs(1),
		Long: "Forget machines that are gone. Their certificates are worth nothing from then on. A machine that is not down\n" +
			"is refused without --force; a manager is refused always: demote it first.",
		Example: "  gitswarm node rm w2\n  gitswarm node rm --force w3",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			query := url.Values{"force": {strconv.FormatBool(force)}}
			return a.onEach(args, func(name string) (done api.Done, err error) {
				return done, client.call(cmd.Context(), http.MethodDelete, "/v1/nodes/"+url.PathEscape(name), query, nil, "", &done)
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "although it is not down")
	return a.listFlags(cmd)
}
