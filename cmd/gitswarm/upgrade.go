package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

// upgradeSilence is how long an upgrade may say nothing new: a daemon has two
// minutes to come back, and the cluster may need another leader meanwhile.
const upgradeSilence = 3 * time.Minute

func (a *app) upgradeCommand() *cobra.Command {
	var request struct {
		Binary string   `json:"binary,omitempty"`
		Digest string   `json:"digest,omitempty"`
		Nodes  []string `json:"nodes,omitempty"`
		Check  bool     `json:"check,omitempty"`
	}
	cmd := &cobra.Command{
		Use: "upgrade [BINARY]", Short: "Replace the daemons, machine by machine", Args: cobra.MaximumNArgs(1),
		Long: "Replace the daemons, machine by machine: workers first, then managers, the leader last. Containers go on.\n" +
			"BINARY is where the new build lies on every machine: a path of root's alone. Without it, a daemon takes what lies\n" +
			"where it was started from, which a package manager may have replaced. A gitswarm-shim beside BINARY goes with it.\n\n" +
			"Every machine is asked first, and nothing is begun if one refuses; a build that goes back or skips a level is refused.\n" +
			"A machine is begun when the last one is ready again. One that is not so within two minutes ends the upgrade. Asked\n" +
			"for again, it goes on. The old binary stays beside the new one, with .previous added to its name.",
		Example: "  gitswarm upgrade --check\n  gitswarm upgrade\n" +
			"  gitswarm upgrade /usr/local/bin/gitswarm.new --digest sha256:…",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				request.Binary = args[0]
			}
			if request.Binary != "" && !filepath.IsAbs(request.Binary) {
				return fmt.Errorf("binary %s: give an absolute path: it is looked for on every machine", request.Binary)
			}
			return a.upgradeAll(cmd.Context(), request)
		},
	}
	cmd.Flags().StringVar(&request.Digest, "digest", "", "sha256:… that the binary must have")
	cmd.Flags().StringSliceVar(&request.Nodes, "node", nil, "machines to upgrade (every one unless set)")
	cmd.Flags().BoolVar(&request.Check, "check", false, "say what would happen, and no more")
	return cmd
}

// upgradeAll asks until the upgrade is done: the daemon that answers, and the
// leader, are replaced as well.
func (a *app) upgradeAll(ctx context.Context, request any) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	said, heard := make(map[string]bool), time.Now()
	for {
		done := false
		err := client.streamFrom(ctx, http.MethodPost, "/v1/cluster/upgrade", nil, request, func(data []byte) error {
			var line api.UpgradeLine
			if err := json.Unmarshal(data, &line); err != nil {
				return fmt.Errorf("read progress: %w", err)
			}
			done = line.Done
			if line.Text != "" && !said[line.Text] {
				said[line.Text], heard = true, time.Now()
				fmt.Fprintln(a.stdout, line.Text)
			}
			return nil
		})
		switch {
		case done || err != nil && (len(said) == 0 || !passing(err)):
			return err
		case time.Since(heard) > upgradeSilence:
			return fmt.Errorf("the upgrade said nothing for %s: %w (gitswarm node ls shows who is there; asked for again, it goes on)",
				upgradeSilence, errors.Join(err, errStreamEnded))
		}
		if err := sleep(ctx, time.Second/2); err != nil {
			return err
		}
	}
}

// passing reports whether a daemon that is being replaced, or a leader that
// is, may be why something failed.
func passing(err error) bool {
	var failed *api.Failure
	if errors.As(err, &failed) {
		return failed.Status == http.StatusBadGateway || failed.Status == http.StatusServiceUnavailable
	}
	return errors.Is(err, errStreamEnded) || errors.Is(err, errUnreachable)
}
