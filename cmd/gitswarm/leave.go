package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
)

func (a *app) leaveCommand() *cobra.Command {
	var flags daemonFlags
	var force bool
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take this machine out of its cluster",
		Long: "Take this machine out of its cluster: what it runs is stopped, what it knows of the cluster is forgotten. A manager\n" +
			"is refused without --force: demote it first, so that the others keep their quorum.\n\n" +
			"While the daemon does not run, --force removes all that gitswarm keeps here: containers, networks, volumes and the\n" +
			"cluster's log. What is only here is lost.",
		Example: "  gitswarm leave\n  systemctl disable --now gitswarm && gitswarm leave --force",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags.config, flags.level = defaultConfigFile, "error"
			config, err := flags.read(cmd)
			if err != nil {
				return err
			}
			if a.host == "" {
				a.host = "unix://" + config.socket() // this machine, whatever context is in use
			}
			err = a.ask(cmd, "/v1/machine/leave", map[string]any{"force": force})
			switch {
			case !errors.Is(err, errUnreachable):
				return err
			case !force:
				return errors.New("leave: no daemon runs here; --force removes its log, every container and every volume of this machine, if that is meant")
			}
			return leave(cmd.Context(), config)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.dataDir, "data-dir", defaultDataDir, "the daemon's --data-dir")
	f.StringVar(&flags.runDir, "run-dir", defaultRunDir, "the daemon's --run-dir")
	f.StringVar(&flags.containerd, "containerd", "", "the daemon's --containerd")
	f.BoolVar(&force, "force", false, "although it is a manager, or the daemon does not run: lose what is only here")
	return cmd
}

func leave(ctx context.Context, config daemonConfig) error {
	unlock, err := config.lock()
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	defer unlock()
	config.Log = slog.New(slog.DiscardHandler)
	if err := clearNode(ctx, config); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return errors.Join(os.RemoveAll(config.RunDir), os.RemoveAll(config.DataDir))
}
