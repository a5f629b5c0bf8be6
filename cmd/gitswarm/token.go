package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/swarm"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Show and make what lets machines and users in",
		Example: "  gitswarm token worker\n  gitswarm token manager --rotate\n  gitswarm token user ci --role ci --source stacks --expires 90d",
	}
	cmd.AddCommand(a.joinTokenCommand(swarm.RoleWorker), a.joinTokenCommand(swarm.RoleManager),
		a.userTokenCommand(), a.tokenListCommand(), a.tokenRemoveCommand())
	return cmd
}

func (a *app) joinTokenCommand(role string) *cobra.Command {
	var rotate, quiet bool
	cmd := &cobra.Command{
		Use: role, Short: "Show what to type on a machine that joins as " + role, Args: cobra.NoArgs,
		Long: "Show what to type on a machine that joins as " + role + ". With --rotate the token is made anew: the old one lets\n" +
			"nobody in any more, machines that have joined stay.",
		Example: "  gitswarm token " + role + "\n  ssh w2 $(gitswarm token " + role + ")\n  gitswarm token " + role + " --rotate",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			var token api.JoinToken
			if err := client.post(cmd.Context(), "/v1/cluster/join-token", map[string]any{"role": role, "rotate": rotate}, &token); err != nil {
				return err
			}
			return a.show(token, func(bool) {
				if quiet {
					fmt.Fprintln(a.stdout, token.Token)
					return
				}
				fmt.Fprintln(a.stdout, token.Command)
			})
		},
	}
	cmd.Flags().BoolVar(&rotate, "rotate", false, "make a new one; the old one lets nobody in any more")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the token alone")
	return a.listFlags(cmd)
}

func (a *app) userTokenCommand() *cobra.Command {
	var role, source, expires string
	var quiet bool
	cmd := &cobra.Command{
		Use: "user NAME --role ROLE", Short: "Make a token for a person or a pipeline", Args: cobra.ExactArgs(1),
		Long: "Make a token for a person or a pipeline. It is shown once, and kept by nobody.\n\n" +
			"  viewer    reads; no secret is ever shown\n" +
			"  ci        and plans, and has sources synced\n" +
			"  operator  and changes nodes, stacks and sources\n" +
			"  admin     and makes tokens, keys, certificates and backups",
		Example: "  gitswarm token user ana --role operator --expires 90d\n" +
			"  gitswarm token user pipeline --role ci --source stacks --expires 365d -q > token",
		RunE: func(cmd *cobra.Command, args []string) error {
			life, err := parseSpan(expires)
			if err != nil {
				return fmt.Errorf("read --expires: %w", err)
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			request := map[string]any{"name": args[0], "role": role, "seconds": int(life.Seconds()), "host": client.usersHost()}
			if source != "" {
				request["source"] = source
			}
			var made api.MadeToken
			if err := client.post(cmd.Context(), "/v1/tokens", request, &made); err != nil {
				return err
			}
			return a.show(made, func(bool) {
				fmt.Fprintln(a.stdout, made.Secret)
				if !quiet {
					fmt.Fprintf(a.stderr, "the token of %s, good for %s; it is shown once. Where it is used, with it in FILE:\n  %s\n",
						made.Name, api.Ago(life), made.Command)
				}
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "viewer, ci, operator or admin")
	cmd.Flags().StringVar(&source, "source", "", "viewer and ci: the one source that it sees and acts on")
	cmd.Flags().StringVar(&expires, "expires", "90d", "how long it is good for; 730d at most")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the token alone")
	_ = cmd.MarkFlagRequired("role")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"viewer", "ci", "operator", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	return a.listFlags(cmd)
}

// parseSpan reads a duration that may be written in days: "90d".
func parseSpan(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 1 || n > 36500 {
			return 0, fmt.Errorf("%q is no span: write 90d or 12h", text)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second {
		return 0, fmt.Errorf("%q is no span: write 90d or 12h", text)
	}
	return d, nil
}

func (a *app) tokenListCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "ls", Short: "List users' tokens, without their secrets", Example: "  gitswarm token ls", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			tokens := []api.Token{}
			if err := client.get(cmd.Context(), "/v1/tokens", nil, &tokens); err != nil {
				return err
			}
			return a.show(tokens, func(bool) {
				list := a.table("ID", "NAME", "ROLE", "SOURCE", "CREATED", "EXPIRES")
				for _, token := range tokens {
					expires := "in " + api.Ago(time.Until(token.Expires))
					if token.Expired {
						expires = "expired"
					}
					list.add(token.ID, token.Name, token.Role, dash(token.Source), ago(time.Now(), token.Created), expires)
				}
				list.write(a.stdout)
			})
		},
	})
}

func (a *app) tokenRemoveCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "rm TOKEN…", Short: "Make users' tokens worth nothing, by id or name", Args: cobra.MinimumNArgs(1),
		Example: "  gitswarm token rm pipeline",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			return a.onEach(args, func(name string) (done api.Done, err error) {
				return done, client.call(cmd.Context(), http.MethodDelete, "/v1/tokens/"+url.PathEscape(name), nil, nil, "", &done)
			})
		},
	})
}
