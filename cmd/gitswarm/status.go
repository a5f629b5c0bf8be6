package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/swarm"
)

// waitFlags are those of every command that may wait for a rollout.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

func (f *waitFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.wait, "wait", false, "show the rollout until it ends; its end is the exit code (see gitswarm status --help)")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 30*time.Minute, "how long to wait")
}

func (a *app) statusCommand() *cobra.Command {
	var all, watch bool
	var revision string
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "status [STACK]",
		Short: "Show the cluster on one page, or one stack",
		Long: "Show the cluster on one page: problems first, each with the command to type, then the stacks.\n" +
			"RUNTIME is how a stack runs; SYNC is how that relates to what git says.\n\n" +
			"With --wait it ends when the rollouts end, and its exit code says how:\n" +
			"  0 healthy\n  1 usage, or the daemon is not reachable\n  2 failed or rolled back\n  3 timed out\n" +
			"  4 refused\n  5 superseded by a newer commit\n  6 awaiting approval, a window or resume\n" +
			"Without --wait it is 0 if the daemon answered, and 1 where no manager leads: the page is stale then, and says so.",
		Example: "  gitswarm status\n  gitswarm status shop\n  gitswarm status --watch\n" +
			"  gitswarm status shop --wait --revision $(git rev-parse HEAD)",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeTargets,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		stack := append(args, "")[0]
		switch {
		case revision != "" && !wait.wait:
			return fmt.Errorf("--revision belongs to --wait: gitswarm status %s --wait --revision %s", stack, revision)
		case wait.wait && watch:
			return fmt.Errorf("--wait and --watch exclude one another")
		case wait.wait:
			return a.await(cmd.Context(), api.Goal{Stack: swarm.StackName(stack), Revision: revision}, wait.timeout)
		case watch:
			return a.watch(cmd.Context(), func() error { return a.showStatus(cmd.Context(), stack, all) })
		}
		return a.showStatus(cmd.Context(), stack, all)
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list every stack, also those that are healthy and synced")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show the page again whenever something changes")
	cmd.Flags().StringVar(&revision, "revision", "", "with --wait: the commit to fetch and wait for")
	wait.add(cmd)
	return a.listFlags(cmd)
}

func (a *app) showStatus(ctx context.Context, stack string, all bool) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	var page api.Status
	if err := client.get(ctx, "/v1/status", nil, &page); err != nil {
		return err
	}
	if stack == "" || page.Machine != nil {
		err := a.show(page, func(wide bool) { a.writeStatus(a.stdout, page, all || wide) })
		if err == nil && page.Leaderless != nil {
			return &exitError{code: api.CodeError}
		}
		return err
	}

	var one api.Stack
	if err := client.get(ctx, "/v1/stacks/"+url.PathEscape(stack), nil, &one); err != nil {
		return err
	}
	var tasks []api.Task
	if err := client.get(ctx, "/v1/tasks", url.Values{"target": {stack}}, &tasks); err != nil {
		return err
	}
	return a.show(one, func(bool) { a.writeStack(a.stdout, page, one, tasks) })
}

// watchEvery is how often a page is shown again at most.
const watchEvery = time.Second

// watch shows a page again and again: in place on a terminal, one after the
// other elsewhere.
func (a *app) watch(ctx context.Context, show func() error) error {
	for {
		if terminal(a.stdout) {
			fmt.Fprint(a.stdout, "\x1b[H\x1b[2J")
		}
		if err := show(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			fmt.Fprintln(a.stderr, a.paint.red("gitswarm:"), err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
		if !terminal(a.stdout) {
			fmt.Fprintln(a.stdout)
		}
	}
}

// writeOutcome prints how a wait ended.
func (a *app) writeOutcome(w io.Writer, outcome api.Outcome) error {
	if a.output == "json" || a.output == "yaml" {
		return a.encode(outcome, a.output)
	}
	word := a.paint.word(outcome.Word)
	if outcome.Code != api.CodeHealthy {
		word = a.paint.red(outcome.Word)
	}
	fmt.Fprintf(w, "%s  %s\n", word, outcome.Text)
	return nil
}
