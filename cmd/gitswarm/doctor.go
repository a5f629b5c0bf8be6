package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

// finding is one line of the doctor's.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, warn or fail
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

func ok(text string, args ...any) finding {
	return finding{Result: "ok", Text: fmt.Sprintf(text, args...)}
}

func warn(remedy, text string, args ...any) finding {
	return finding{Result: "warn", Text: fmt.Sprintf(text, args...), Remedy: remedy}
}

func fail(remedy, text string, args ...any) finding {
	return finding{Result: "fail", Text: fmt.Sprintf(text, args...), Remedy: remedy}
}

func (a *app) doctorCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine can run gitswarm, and say what to do",
		Long: "Check kernel, runc, control groups, ports, clock, disk and the daemon of this machine.\n" +
			"It needs no daemon. Exit code 1 if something fails; a warning is none.",
		Example: "  gitswarm doctor\n  sudo gitswarm doctor -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := a.examine(cmd.Context(), dataDir)
			failed := 0
			for _, f := range findings {
				if f.Result == "fail" {
					failed++
				}
			}
			if err := a.show(findings, func(bool) { a.writeFindingsOf(findings) }); err != nil {
				return err
			}
			if failed > 0 {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "/var/lib/gitswarm", "the daemon's data folder")
	return a.listFlags(cmd)
}

// examine runs every check, in the order in which a person would repair.
func (a *app) examine(ctx context.Context, dataDir string) []finding {
	checks := []struct {
		name  string
		check func() finding
	}{
		{"user", checkUser},
		{"kernel", checkKernel},
		{"overlayfs", checkOverlay},
		{"namespaces", checkNamespaces},
		{"nftables", checkNftables},
		{"bridge", func() finding { return checkLink("bridge", "bridge") }},
		{"veth", func() finding { return checkLink("veth", "veth") }},
		{"cgroups", checkCgroups},
		{"runc", func() finding { return checkRunc(ctx) }},
		{"ports", checkPorts},
		{"clock", checkClock},
		{"disk", func() finding { return checkDisk(dataDir) }},
		{"memory", checkMemory},
		{"daemon", func() finding { return a.checkDaemon(ctx) }},
	}
	findings := make([]finding, 0, len(checks))
	for _, c := range checks {
		f := c.check()
		f.Check = c.name
		findings = append(findings, f)
	}
	return findings
}

func (a *app) writeFindingsOf(findings []finding) {
	width := 0
	for _, f := range findings {
		width = max(width, len(f.Check))
	}
	for _, f := range findings {
		line := fmt.Sprintf("%s%s  %-*s  %s", a.paint.word(f.Result), strings.Repeat(" ", 4-len(f.Result)), width, f.Check, f.Text)
		if f.Remedy != "" {
			line += "  → " + a.paint.cyan(f.Remedy)
		}
		fmt.Fprintln(a.stdout, line)
	}
}

func (a *app) checkDaemon(ctx context.Context) finding {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	client, err := a.client()
	if err != nil {
		return fail("set --host or GITSWARM_HOST", "%v", err)
	}
	var version api.Version
	if err := client.get(ctx, "/v1/version", nil, &version); err != nil {
		return warn("", "%v", err) // the error says what to do
	}
	return ok("answers at %s: %s", a.host, versionLine(version))
}
