package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/swarm"
)

func (a *app) leaveCommand() *cobra.Command {
	var flags daemonFlags
	var force bool
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Remove all that gitswarm runs and keeps on this machine",
		Long: "Remove all that gitswarm runs and keeps on this machine: containers, networks, volumes,\n" +
			"the cluster's log. The daemon must not run. This machine is the whole cluster: what is\n" +
			"only here is lost, so --force is asked for.",
		Example: "  systemctl disable --now gitswarm && gitswarm leave --force",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force {
				return errors.New("leave: this removes the only manager, its log, every container and every volume; give --force if that is meant")
			}
			flags.config, flags.level = defaultConfigFile, "error"
			config, err := flags.read(cmd)
			if err != nil {
				return err
			}
			return leave(cmd.Context(), config)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.dataDir, "data-dir", defaultDataDir, "the daemon's --data-dir")
	f.StringVar(&flags.runDir, "run-dir", defaultRunDir, "the daemon's --run-dir")
	f.StringVar(&flags.containerd, "containerd", "", "the daemon's --containerd")
	f.BoolVar(&force, "force", false, "lose what is only here")
	return cmd
}

func leave(ctx context.Context, config daemonConfig) error {
	unlock, err := config.lock()
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	defer unlock()
	config.Log = slog.New(slog.DiscardHandler)
	containers, links, err := openNode(ctx, config)
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	found, err := containers.List(ctx)
	if err != nil {
		return fmt.Errorf("leave: list containers: %w", err)
	}
	var errs []error
	for _, container := range found {
		errs = append(errs, containers.Remove(ctx, container.ID))
	}
	errs = append(errs, containers.Sweep(ctx, func(swarm.TaskID) bool { return false }), links.Destroy(ctx), containers.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return errors.Join(os.RemoveAll(config.RunDir), os.RemoveAll(config.DataDir))
}
