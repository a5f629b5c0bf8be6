package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

func (a *app) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cluster", Short: "Show and change what all machines share",
		Example: "  gitswarm cluster inspect\n  gitswarm cluster set --autolock=true",
	}
	cmd.AddCommand(a.clusterInspectCommand(), a.clusterSetCommand())
	return cmd
}

func (a *app) clusterInspectCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "inspect", Short: "Show what all machines share", Example: "  gitswarm cluster inspect -o yaml", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			var cluster api.Cluster
			if err := client.get(cmd.Context(), "/v1/cluster", nil, &cluster); err != nil {
				return err
			}
			return a.show(cluster, func(bool) { a.writeCluster(cluster) })
		},
	})
}

func (a *app) writeCluster(cluster api.Cluster) {
	pool := "built in"
	if len(cluster.AddressPool) > 0 {
		pool = strings.Join(cluster.AddressPool, ", ")
	}
	authority := dash(strings.Join(cluster.Pins, ", "))
	if len(cluster.Pins) > 1 {
		authority += " (being rotated)"
	}
	for _, line := range [][2]string{
		{"cluster", dash(cluster.ID)},
		{"machines", fmt.Sprintf("%s, %s", counted(cluster.Managers, "manager"), counted(cluster.Nodes, "node"))},
		{"autolock", onOff(cluster.Autolock)},
		{"certificate expiry", cluster.CertExpiry},
		{"authority", authority},
		{"task history", counted(cluster.TaskHistory, "ended task") + " for each slot"},
		{"snapshot interval", fmt.Sprintf("%d log entries", cluster.SnapshotInterval)},
		{"heartbeat", cluster.Heartbeat},
		{"address pool", pool},
	} {
		fmt.Fprintf(a.stdout, "%-18s  %s\n", line[0], line[1])
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func (a *app) clusterSetCommand() *cobra.Command {
	var autolock bool
	var expiry, heartbeat time.Duration
	var history int
	var snapshots uint64
	cmd := &cobra.Command{
		Use: "set", Short: "Change what all machines share", Args: cobra.NoArgs,
		Long: "Change what all machines share. With --autolock=true a key is made and shown: managers ask for it each time\n" +
			"they start, and their disks are worth nothing without it.",
		Example: "  gitswarm cluster set --autolock=true\n  gitswarm cluster set --cert-expiry 720h --task-history 10",
		RunE: func(cmd *cobra.Command, _ []string) error {
			request := map[string]any{}
			for flag, set := range map[string]func(){
				"autolock":          func() { request["autolock"] = autolock },
				"cert-expiry":       func() { request["certExpiry"] = expiry.String() },
				"heartbeat":         func() { request["heartbeat"] = heartbeat.String() },
				"task-history":      func() { request["taskHistory"] = history },
				"snapshot-interval": func() { request["snapshotInterval"] = snapshots },
			} {
				if cmd.Flags().Changed(flag) {
					set()
				}
			}
			if len(request) == 0 {
				return errors.New("cluster set: nothing to change was given (gitswarm cluster set --help shows the flags)")
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			var configured api.Configured
			if err := client.post(cmd.Context(), "/v1/cluster", request, &configured); err != nil {
				return err
			}
			return a.show(configured, func(bool) {
				a.writeCluster(configured.Cluster)
				if configured.UnlockKey != "" {
					fmt.Fprintf(a.stdout, "\nunlock key: %s\n%s\n", configured.UnlockKey, keepKey)
				}
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&autolock, "autolock", false, "managers ask for a key when they start")
	f.DurationVar(&expiry, "cert-expiry", 0, "life of nodes' certificates, 1h at least")
	f.IntVar(&history, "task-history", 0, "ended tasks kept for each slot")
	f.Uint64Var(&snapshots, "snapshot-interval", 0, "log entries between snapshots")
	f.DurationVar(&heartbeat, "heartbeat", 0, "how often nodes say that they are there, 100ms at least; three missed ones mean down")
	return a.listFlags(cmd)
}

func (a *app) authorityCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "Look after the certificate authority", Example: "  gitswarm ca rotate"}
	cmd.AddCommand(a.listFlags(&cobra.Command{
		Use: "rotate", Short: "Replace the certificate authority, without downtime", Args: cobra.NoArgs,
		Long: "Replace the certificate authority, without downtime: nodes get new certificates within minutes, and the old\n" +
			"authority is dropped once all have. Join tokens and users' pins name the new one from then on.",
		Example: "  gitswarm ca rotate",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, "/v1/cluster/rotate-ca", nil)
		},
	}))
	return cmd
}

func (a *app) rebalanceCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "rebalance [STACK]", Short: "Move replicas to emptier machines, one at a time", Args: cobra.MaximumNArgs(1),
		Long: "Move replicas to emptier machines, one at a time, as a rollout does: after a machine has joined or come back.\n" +
			"Services with x-gitswarm: {rebalance: auto} are moved without being asked.",
		Example:           "  gitswarm rebalance\n  gitswarm rebalance shop",
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, "/v1/rebalance", map[string]any{"stack": append(args, "")[0]})
		},
	})
}

// ask posts a request and says what was done.
func (a *app) ask(cmd *cobra.Command, path string, request any) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	var done api.Done
	if request == nil {
		err = client.call(cmd.Context(), http.MethodPost, path, nil, nil, "", &done)
	} else {
		err = client.post(cmd.Context(), path, request, &done)
	}
	if err != nil {
		return err
	}
	return a.show(done, func(bool) { fmt.Fprintln(a.stdout, done.Text) })
}
