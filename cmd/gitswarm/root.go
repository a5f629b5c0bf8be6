package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gitswarm/gitswarm/manager/api"
)

// defaultHost is where a daemon listens unless told otherwise.
const defaultHost = "unix:///run/gitswarm/gitswarm.sock"

// app is what every command shares: where to read and write, and whom to ask.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	paint          palette
	host           string // empty: the context's, or this machine's
	context        string
	output         string
}

func newApp() *app {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	a.paint = palette(terminal(os.Stdout) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
	return a
}

// terminal reports whether a stream is one.
func terminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// The groups of the help page.
const (
	groupDaily   = "daily"
	groupOperate = "operate"
	groupMachine = "machine"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "gitswarm",
		Short: "Run what the compose files in a git repository say",
		Long: "gitswarm turns machines into a cluster that runs what the compose files in a git repository say.\n" +
			"A push is rolled out one replica at a time and goes back by itself when it fails.",
		Example: "  gitswarm init --repo https://example.com/team/stacks.git\n" +
			"  gitswarm status\n" +
			"  gitswarm logs -f shop/web",
		SilenceErrors: true, SilenceUsage: true,
	}
	root.AddGroup(
		&cobra.Group{ID: groupDaily, Title: "Every day:"},
		&cobra.Group{ID: groupOperate, Title: "Operate:"},
		&cobra.Group{ID: groupMachine, Title: "Machines, clusters and repositories:"},
	)
	root.PersistentFlags().StringVar(&a.host, "host", os.Getenv("GITSWARM_HOST"),
		"daemon to ask: unix:///path, or https://HOST:2380 with GITSWARM_TOKEN and GITSWARM_CA_PIN (GITSWARM_HOST; "+defaultHost+")")
	root.PersistentFlags().StringVar(&a.context, "context", os.Getenv("GITSWARM_CONTEXT"), "cluster to ask, by the name of its context (GITSWARM_CONTEXT)")
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (%s --help shows the flags)", err, cmd.CommandPath())
	})

	add := func(group string, commands ...*cobra.Command) {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	add(groupDaily, a.statusCommand(), a.planCommand(), a.validateCommand(), a.psCommand(), a.logsCommand(),
		a.execCommand(), a.statsCommand(), a.inspectCommand(), a.historyCommand(), a.eventsCommand())
	add(groupOperate, a.approveCommand(), a.rollbackCommand(), a.retryCommand(), a.redeployCommand(), a.restartCommand(),
		a.scaleCommand(), a.suspendCommand(), a.resumeCommand(), a.rebalanceCommand())
	add(groupMachine, a.initCommand(), a.joinCommand(), a.leaveCommand(), a.tokenCommand(), a.nodeCommand(), a.clusterCommand(),
		a.authorityCommand(), a.unlockCommand(), a.unlockKeyCommand(), a.backupCommand(), a.restoreCommand(), a.upgradeCommand(),
		a.sourceCommand(), a.volumeCommand(), a.contextCommand(), a.daemonCommand(), a.doctorCommand(), a.versionCommand())
	return root
}

// listFlags adds -o to a command that lists.
func (a *app) listFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&a.output, "output", "o", "", "json, yaml or wide")
	check := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch a.output {
		case "", "json", "yaml", "wide":
			return check(cmd, args)
		}
		return fmt.Errorf("output %q is unknown: give json, yaml or wide", a.output)
	}
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml", "wide"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// completeTargets offers stacks, and after "STACK/" its services.
func (a *app) completeTargets(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	none := cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	var page api.Status
	client, err := a.client()
	if err != nil || client.get(ctx, "/v1/status", nil, &page) != nil {
		return nil, none
	}

	var names []string
	for _, stack := range page.Stacks {
		if strings.HasPrefix(prefix, stack.Name+"/") {
			for _, service := range stack.Services {
				names = append(names, service.ID)
			}
		}
		names = append(names, stack.Name)
	}
	return names, none | cobra.ShellCompDirectiveNoSpace
}
