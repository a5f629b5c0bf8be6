package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

// sourceFlags say which repository to watch and how to open it.
type sourceFlags struct {
	repo, branch, path, environment     string
	user, tokenFile, sshKey, knownHosts string
	poll                                time.Duration
	yes                                 bool
	wait                                waitFlags
}

// maxKeyFile bounds the files that credentials are read from.
const maxKeyFile = 256 << 10

func (f *sourceFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.repo, "repo", "", "repository: a path, file://, http(s)://, ssh:// or user@host:path")
	flags.StringVar(&f.branch, "branch", "", "branch to follow (the remote's HEAD unless set)")
	flags.StringVar(&f.path, "path", "", "folder within the repository")
	flags.StringVar(&f.environment, "environment", "", "environment of gitswarm.yaml")
	flags.StringVar(&f.user, "git-user", "", "user for http(s)")
	flags.StringVar(&f.tokenFile, "git-token-file", "", "file with a token or password for http(s)")
	flags.StringVar(&f.sshKey, "git-ssh-key", "", "file with a private key for ssh")
	flags.StringVar(&f.knownHosts, "known-hosts", "", "file with the ssh host keys to trust")
	flags.DurationVar(&f.poll, "poll", 0, "how often to ask a remote repository (30s unless set)")
	flags.BoolVarP(&f.yes, "yes", "y", false, "act on the first sync without approval")
	f.wait.add(cmd)
}

func (a *app) initCommand() *cobra.Command {
	var flags sourceFlags
	var beginning beginFlags
	cmd := &cobra.Command{
		Use:   "init [--repo URL]",
		Short: "Begin a cluster, watch a repository and show what it would run",
		Long: "Begin a cluster on this machine, unless it is in one. With --repo watch a repository, show the stacks found and\n" +
			"the plan: nothing is started until the plan is approved; --yes approves it at once.",
		Example: "  gitswarm init --advertise 10.0.0.1\n" +
			"  gitswarm init --repo https://example.com/team/stacks.git --git-token-file token\n" +
			"  gitswarm init --repo git@example.com:team/stacks.git --git-ssh-key deploy_key --known-hosts known_hosts\n" +
			"  gitswarm init --repo /srv/git/stacks.git --environment production --yes --wait",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			begun, err := a.begin(cmd.Context(), cmd, beginning, flags.repo)
			if err != nil {
				return err
			}
			if begun != nil && flags.repo == "" {
				return a.show(*begun, func(bool) { a.writeBegun(a.stdout, *begun) })
			}
			return a.addSource(cmd.Context(), flags, begun)
		},
	}
	beginning.add(cmd)
	flags.add(cmd)
	return a.listFlags(cmd)
}

// request reads the files that the flags name.
func (f sourceFlags) request() (api.SourceRequest, error) {
	token, err1 := readSmall(f.tokenFile)
	key, err2 := readSmall(f.sshKey)
	hosts, err3 := readSmall(f.knownHosts)
	if err := errors.Join(err1, err2, err3); err != nil {
		return api.SourceRequest{}, err
	}
	return api.SourceRequest{
		URL: f.repo, Branch: f.branch, Path: f.path, Environment: f.environment, Approved: f.yes,
		PollSeconds: int(f.poll.Seconds()), Username: f.user, Password: strings.TrimSpace(token), SSHKey: key, KnownHosts: hosts,
	}, nil
}

// readSmall reads a small file; no name reads nothing.
func readSmall(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("read credential: %w", err)
	}
	if info.Size() > maxKeyFile {
		return "", fmt.Errorf("read credential %s: %d bytes, at most %d are taken", name, info.Size(), maxKeyFile)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("read credential: %w", err)
	}
	return string(data), nil
}

// began is what `init` and `source add` show: the cluster if it just began,
// and the source.
type began struct {
	Cluster *api.Beginner `json:"cluster,omitempty"`
	api.Source
}

func (a *app) addSource(ctx context.Context, flags sourceFlags, begun *api.Beginner) error {
	if begun != nil { // said at once: its key must not be lost if the repository does not answer
		a.writeBegun(a.beside(), *begun)
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	request, err := flags.request()
	if err != nil {
		return err
	}
	source, err := a.watchSource(ctx, client, request)
	if err != nil {
		return err
	}

	var page api.Status
	if err := client.get(ctx, "/v1/status", nil, &page); err != nil {
		return err
	}
	var plan api.Plan
	if !flags.yes {
		if err := client.call(ctx, http.MethodPost, "/v1/plan", url.Values{"source": {source.ID}}, nil, "", &plan); err != nil {
			return err
		}
	}
	if err := a.show(began{begun, source}, func(bool) { a.writeFound(source, page, plan, flags.yes) }); err != nil || !flags.wait.wait {
		return err
	}
	return a.await(ctx, api.Goal{}, flags.wait.timeout)
}

// watchSource adds the source and waits for its repository's first answer.
func (a *app) watchSource(ctx context.Context, c *client, request api.SourceRequest) (api.Source, error) {
	var source api.Source
	if err := c.post(ctx, "/v1/sources", request, &source); err != nil {
		return source, err
	}
	fmt.Fprintf(a.stderr, "fetching %s\n", source.URL)
	if err := c.call(ctx, http.MethodPost, "/v1/sources/"+url.PathEscape(source.ID)+"/sync", nil, nil, "", &source); err != nil {
		return source, err
	}
	if source.Problem != "" {
		return source, fmt.Errorf("source %s is watched, but it does not answer yet: %s (it is asked again by itself; gitswarm source rm %s forgets it)",
			source.ID, source.Problem, source.ID)
	}
	return source, nil
}

// writeFound prints what a new source holds and how to go on.
func (a *app) writeFound(source api.Source, page api.Status, plan api.Plan, approved bool) {
	fmt.Fprintf(a.stdout, "source %s: %s, %s: %s\n", source.ID, short(source.Head), counted(len(source.Stacks), "stack"), dash(strings.Join(source.Stacks, ", ")))
	if approved {
		fmt.Fprintln(a.stdout, "it is being rolled out → gitswarm status --watch")
		return
	}
	a.writePlan(plan)
	plans := plansToApprove(page, source.ID)
	if len(plans) == 0 && !source.Approved {
		fmt.Fprintln(a.stdout, "\nnothing is started yet → gitswarm status names the plan to approve once a stack could run")
	}
	for _, id := range plans {
		fmt.Fprintf(a.stdout, "\nnothing is started yet → %s\n", a.paint.cyan("gitswarm approve "+id))
	}
}

// plansToApprove lists the plans that a source's stacks wait for.
func plansToApprove(page api.Status, source string) []string {
	var plans []string
	listed := map[string]bool{}
	for _, stack := range page.Stacks {
		if stack.Source != source || stack.Problem == nil || stack.Problem.Plan == "" || listed[stack.Problem.Plan] {
			continue
		}
		listed[stack.Problem.Plan] = true
		plans = append(plans, stack.Problem.Plan)
	}
	return plans
}
