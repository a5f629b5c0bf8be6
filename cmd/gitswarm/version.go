package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/store"
)

// version is the release, written by the linker: -X main.version=v1.2.3.
var version string

// buildVersion is what this binary is: the release's tag, or the commit it was
// built from.
func buildVersion() api.Version {
	built := api.Version{Version: cmp.Or(version, "devel"), Go: runtime.Version(), Level: store.Level}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return built
	}
	if v := info.Main.Version; version == "" && v != "" && v != "(devel)" {
		built.Version = v
	}
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			built.Build = setting.Value[:min(len(setting.Value), 12)]
		case setting.Key == "vcs.modified" && setting.Value == "true":
			built.Build += "+modified"
		}
	}
	return built
}

// buildName is this build in a word: its release, or else its commit.
func buildName() string { return cmp.Or(version, buildVersion().Build) }

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
