package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

// beginFlags say how a cluster begins.
type beginFlags struct {
	reachFlags
	autolock, forceNew bool
	certExpiry         time.Duration
	heartbeat          time.Duration
	taskHistory        int
	snapshotInterval   uint64
	addressPool        []string
}

func (f *beginFlags) add(cmd *cobra.Command) {
	f.reachFlags.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.autolock, "autolock", false, "managers ask for a key when they start; it is shown once")
	flags.BoolVar(&f.forceNew, "force-new-cluster", false, "after most managers are lost for good: go on with this one's state alone")
	flags.DurationVar(&f.certExpiry, "cert-expiry", 0, "life of nodes' certificates (2160h unless set)")
	flags.DurationVar(&f.heartbeat, "heartbeat", 0, "how often nodes say that they are there (800ms unless set)")
	flags.IntVar(&f.taskHistory, "task-history", 0, "ended tasks kept for each slot (5 unless set)")
	flags.Uint64Var(&f.snapshotInterval, "snapshot-interval", 0, "log entries between snapshots (4096 unless set)")
	flags.StringSliceVar(&f.addressPool, "address-pool", nil, "addresses that networks get their subnets from, CIDR")
}

// given names a flag of a cluster's beginning that was set.
func (f *beginFlags) given(cmd *cobra.Command) string {
	for _, name := range []string{
		"advertise", "listen", "data-path", "autolock", "cert-expiry", "heartbeat", "task-history",
		"snapshot-interval", "address-pool", "force-new-cluster",
	} {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

func (f *beginFlags) request() api.BeginRequest {
	request := api.BeginRequest{
		Reach: f.reach(), Autolock: f.autolock, ForceNew: f.forceNew, TaskHistory: f.taskHistory,
		SnapshotInterval: f.snapshotInterval, AddressPool: f.addressPool,
	}
	if f.certExpiry > 0 {
		request.CertExpiry = f.certExpiry.String()
	}
	if f.heartbeat > 0 {
		request.Heartbeat = f.heartbeat.String()
	}
	return request
}

// begin begins a cluster if this machine is in none, or anew if that is
// forced. It returns nil where there is nothing to begin.
func (a *app) begin(ctx context.Context, cmd *cobra.Command, flags beginFlags, repo string) (*api.Beginner, error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	var place api.Place
	if err := client.get(ctx, "/v1/machine", nil, &place); err != nil {
		return nil, err
	}
	set := flags.given(cmd)
	switch {
	case flags.forceNew && set != "force-new-cluster":
		return nil, fmt.Errorf("init: --force-new-cluster goes on with what the cluster has, --%s is for a new one", set)
	case place.Membership == "none" && flags.forceNew:
		return nil, errors.New("init: this machine has no state of a cluster to go on with (gitswarm restore begins again from a backup)")
	case place.Membership == "none" || flags.forceNew:
	case place.Membership != "manager":
		return nil, fmt.Errorf("init: %s", place.Text)
	case set != "":
		return nil, fmt.Errorf("init: this machine is a manager already, --%s is for a new cluster (gitswarm cluster set changes what can be changed)", set)
	case repo == "":
		return nil, errors.New("init: this machine is a manager already (--repo URL watches a repository; gitswarm token worker shows how another machine joins)")
	default:
		return nil, nil
	}
	var begun api.Beginner
	if err := client.post(ctx, "/v1/machine/begin", flags.request(), &begun); err != nil {
		return nil, err
	}
	return &begun, nil
}

// writeBegun says what began and how other machines join.
func (a *app) writeBegun(w io.Writer, begun api.Beginner) {
	fmt.Fprintf(w, "cluster %s: this machine is manager %s at %s\n", begun.Cluster, begun.Node, dash(begun.Address))
	if begun.UnlockKey != "" {
		fmt.Fprintf(w, "unlock key: %s\n%s\n", begun.UnlockKey, keepKey)
	}
	fmt.Fprintf(w, "another machine joins with what %s prints\n", a.paint.cyan("gitswarm token worker"))
}

// beside is where a person reads what belongs to no answer in JSON or YAML.
func (a *app) beside() io.Writer {
	if a.output == "json" || a.output == "yaml" {
		return a.stderr
	}
	return a.stdout
}
