package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

func (a *app) sourceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "source", Short: "Watch repositories",
		Example: "  gitswarm source ls\n  gitswarm source add --repo https://example.com/team/more.git\n  gitswarm source sync stacks",
	}
	cmd.AddCommand(a.sourceListCommand(), a.sourceAddCommand(), a.sourceInspectCommand(), a.sourceSyncCommand(), a.sourceRemoveCommand())
	return cmd
}

func (a *app) sourceListCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "ls", Short: "List watched repositories", Example: "  gitswarm source ls -o wide", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			sources := []api.Source{}
			if err := client.get(cmd.Context(), "/v1/sources", nil, &sources); err != nil {
				return err
			}
			return a.show(sources, func(wide bool) { a.writeSources(sources, wide) })
		},
	})
}

func (a *app) writeSources(sources []api.Source, wide bool) {
	heads := []string{"SOURCE", "HEAD", "SEEN", "STACKS", "PROBLEM", "URL"}
	if wide {
		heads = append(heads, "BRANCH", "PATH", "ENVIRONMENT", "POLL", "APPROVED")
	}
	list := a.table(heads...)
	for _, source := range sources {
		problem := source.Problem
		switch {
		case source.Suspended != "":
			problem = "suspended: " + source.Suspended
		case problem == "" && !source.Approved:
			problem = "its first sync waits for approval"
		}
		cells := []string{
			source.ID, dash(short(source.Head)), ago(time.Now(), source.Seen), strconv.Itoa(len(source.Stacks)),
			dash(firstLine([]byte(problem))), source.URL,
		}
		if wide {
			cells = append(cells, dash(source.Branch), dash(source.Path), dash(source.Environment), dash(source.Poll), strconv.FormatBool(source.Approved))
		}
		list.add(cells...)
	}
	list.write(a.stdout)
}

func (a *app) sourceAddCommand() *cobra.Command {
	var flags sourceFlags
	cmd := &cobra.Command{
		Use: "add --repo URL", Short: "Watch one more repository",
		Example: "  gitswarm source add --repo git@example.com:team/more.git --git-ssh-key deploy_key --known-hosts known_hosts",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.addSource(cmd.Context(), flags, nil) },
	}
	flags.add(cmd)
	_ = cmd.MarkFlagRequired("repo")
	return a.listFlags(cmd)
}

func (a *app) sourceInspectCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "inspect SOURCE", Short: "Show a watched repository and what is wrong with it", Args: cobra.ExactArgs(1),
		Example: "  gitswarm source inspect stacks",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.sourceAnswer(cmd, http.MethodGet, "/v1/sources/"+url.PathEscape(args[0]))
		},
	})
}

func (a *app) sourceSyncCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "sync SOURCE", Short: "Fetch now and show what the repository answered", Args: cobra.ExactArgs(1),
		Example: "  gitswarm source sync stacks",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.sourceAnswer(cmd, http.MethodPost, "/v1/sources/"+url.PathEscape(args[0])+"/sync")
		},
	})
}

func (a *app) sourceAnswer(cmd *cobra.Command, method, path string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	var source api.Source
	if err := client.call(cmd.Context(), method, path, nil, nil, "", &source); err != nil {
		return err
	}
	if a.output == "" {
		a.output = "yaml"
	}
	if err := a.show(source, func(wide bool) { a.writeSources([]api.Source{source}, wide) }); err != nil {
		return err
	}
	if method == http.MethodPost && source.Problem != "" {
		return fmt.Errorf("sync source %s: %s", source.ID, source.Problem)
	}
	return nil
}

func (a *app) sourceRemoveCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "rm SOURCE", Short: "Stop watching a repository; its stacks keep running", Args: cobra.ExactArgs(1),
		Example: "  gitswarm source rm stacks",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			var done api.Done
			if err := client.call(cmd.Context(), http.MethodDelete, "/v1/sources/"+url.PathEscape(args[0]), nil, nil, "", &done); err != nil {
				return err
			}
			return a.show(done, func(bool) { fmt.Fprintln(a.stdout, done.Text) })
		},
	})
}
