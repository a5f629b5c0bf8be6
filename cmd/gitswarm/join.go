package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

// reachFlags say where this machine is reached and listens.
type reachFlags struct{ advertise, listen, dataPath string }

func (f *reachFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.advertise, "advertise", "", "host[:port] that other machines dial (the address of the route to them, port 2377, unless set)")
	cmd.Flags().StringVar(&f.listen, "listen", "", "host[:port] to listen on (every address, port 2377, unless set)")
	cmd.Flags().StringVar(&f.dataPath, "data-path", "", "address for containers' traffic between machines (--advertise's unless set)")
}

func (f reachFlags) reach() api.Reach {
	return api.Reach{Advertise: f.advertise, Listen: f.listen, DataPath: f.dataPath}
}

func (a *app) joinCommand() *cobra.Command {
	var flags reachFlags
	var token, tokenFile, availability string
	cmd := &cobra.Command{
		Use:   "join --token TOKEN HOST[:PORT]",
		Short: "Join this machine to a cluster",
		Long: "Join this machine to a cluster, as the role that the token is for. HOST is any manager. Its certificate\n" +
			"authority is checked by the token before the token's secret is sent.",
		Example: "  gitswarm join --token GSTKN-1-… 10.0.0.1\n" +
			"  gitswarm join --token-file token 10.0.0.1:2377 --advertise 10.0.0.7 --availability drained",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if tokenFile != "" {
				read, err := readSmall(tokenFile)
				if err != nil {
					return err
				}
				token = read
			}
			if token == "" {
				return errors.New("join: no token was given: a manager shows the whole line with gitswarm token worker")
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			var place api.Place
			err = client.post(cmd.Context(), "/v1/machine/join", api.JoinRequest{
				Reach: flags.reach(), Token: token, Manager: args[0], Availability: availability,
			}, &place)
			if err != nil {
				return err
			}
			return a.show(place, func(bool) {
				fmt.Fprintf(a.stdout, "joined cluster %s as %s %s\n", dash(place.Cluster), place.Membership, dash(place.Node))
			})
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&token, "token", "", "join token")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with the join token")
	cmd.Flags().StringVar(&availability, "availability", "", "active, paused or drained")
	return a.listFlags(cmd)
}
