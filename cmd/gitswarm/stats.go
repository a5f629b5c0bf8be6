package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

// statsEvery is how far apart two samples are: CPU use is what lies between.
const statsEvery = time.Second

func (a *app) statsCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "stats [STACK[/SERVICE[.SLOT]]]",
		Short: "Show what running replicas consume",
		Long: "Show what running replicas consume: again and again on a terminal, once elsewhere.\n" +
			"With -o json the samples are printed as they are, with the CPU seconds used since the start.",
		Example:           "  gitswarm stats shop\n  gitswarm stats --no-stream",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.stats(cmd.Context(), append(args, "")[0], once || !terminal(a.stdout) || a.output != "")
		},
	}
	cmd.Flags().BoolVar(&once, "no-stream", false, "show them once")
	return a.listFlags(cmd)
}

func (a *app) stats(ctx context.Context, target string, once bool) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	query := url.Values{}
	if target != "" {
		query.Set("target", target)
	}
	before := []api.Usage{}
	if err := client.get(ctx, "/v1/stats", query, &before); err != nil {
		return err
	}
	if a.output == "json" || a.output == "yaml" {
		return a.encode(before, a.output)
	}

	for {
		if err := sleep(ctx, statsEvery); err != nil {
			return nil
		}
		var now []api.Usage
		if err := client.get(ctx, "/v1/stats", query, &now); err != nil {
			return err
		}
		if !once {
			fmt.Fprint(a.stdout, "\x1b[H\x1b[2J")
		}
		a.writeStats(before, now)
		if once {
			return nil
		}
		before = now
	}
}

func (a *app) writeStats(before, now []api.Usage) {
	earlier := map[string]api.Usage{}
	for _, usage := range before {
		earlier[usage.Task] = usage
	}
	list := a.table("TASK", "NODE", "CPU", "MEMORY", "LIMIT", "PIDS", "NET IN", "NET OUT")
	for _, usage := range now {
		cpu := "-"
		if old, ok := earlier[usage.Task]; ok && usage.At.After(old.At) {
			cpu = fmt.Sprintf("%.1f%%", 100*(usage.CPUSeconds-old.CPUSeconds)/usage.At.Sub(old.At).Seconds())
		}
		limit := "-"
		if usage.MemoryLimit > 0 {
			limit = bytesText(usage.MemoryLimit)
		}
		list.add(usage.Task, dash(usage.Node), cpu, bytesText(usage.Memory), limit, fmt.Sprint(usage.Pids),
			bytesText(usage.Received), bytesText(usage.Sent))
	}
	list.write(a.stdout)
	if len(now) == 0 {
		fmt.Fprintln(a.stdout, "no replica runs → gitswarm ps --all")
	}
}
