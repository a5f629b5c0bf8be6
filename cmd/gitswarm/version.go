package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

// buildVersion is what this binary is: the release's tag, or the commit it was
// built from.
func buildVersion() api.Version {
	version := api.Version{Version: "devel", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		version.Version = v
	}
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			version.Build = setting.Value[:min(len(setting.Value), 12)]
		case setting.Key == "vcs.modified" && setting.Value == "true":
			version.Build += "+modified"
		}
	}
	return version
}

func (a *app) versionCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "version", Short: "Show this build, and the daemon's", Example: "  gitswarm version -o json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			versions := struct {
				Client api.Version  `json:"client"`
				Daemon *api.Version `json:"daemon,omitempty"`
			}{Client: buildVersion()}
			client, err := a.client()
			if err != nil {
				return err
			}
			var daemon api.Version
			unreachable := client.get(cmd.Context(), "/v1/version", nil, &daemon)
			if unreachable == nil {
				versions.Daemon = &daemon
			}
			return a.show(versions, func(bool) {
				fmt.Fprintf(a.stdout, "client  %s\n", versionLine(versions.Client))
				if unreachable != nil {
					fmt.Fprintf(a.stdout, "daemon  %v\n", unreachable)
					return
				}
				fmt.Fprintf(a.stdout, "daemon  %s api %s\n", versionLine(daemon), daemon.API)
			})
		},
	})
}

func versionLine(v api.Version) string {
	line := v.Version
	if v.Build != "" {
		line += " " + v.Build
	}
	return line + " " + v.Go
}
