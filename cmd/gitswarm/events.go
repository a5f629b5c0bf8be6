package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var limit int
	cmd := &cobra.Command{
		Use:   "events [STACK]",
		Short: "Show what happened",
		Long:  "Show what happened, oldest first. With -o json each event is one line.",
		Example: "  gitswarm events\n  gitswarm events -f shop\n" +
			"  gitswarm events -f -o json | jq -r .text",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			query := url.Values{"follow": {strconv.FormatBool(follow)}, "limit": {strconv.Itoa(limit)}}
			if len(args) > 0 {
				query.Set("stack", args[0])
			}
			err = client.stream(cmd.Context(), "/v1/events", query, a.writeEvent)
			if cmd.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new events")
	cmd.Flags().IntVarP(&limit, "limit", "n", 100, "how many to begin with, at most 1000")
	return a.listFlags(cmd)
}

func (a *app) writeEvent(line []byte) error {
	var event api.Event
	if err := json.Unmarshal(line, &event); err != nil {
		return fmt.Errorf("read event: %w", err)
	}
	switch a.output {
	case "json":
		_, err := fmt.Fprintf(a.stdout, "%s\n", line)
		return err
	case "yaml":
		fmt.Fprintln(a.stdout, "---")
		return a.encode(event, "yaml")
	}

	subject := event.Stack
	if event.Service != "" {
		subject += "/" + event.Service
	}
	if event.Slot > 0 {
		subject += "." + strconv.Itoa(event.Slot)
	}
	parts := []string{a.paint.faint(event.At.Local().Format(time.DateTime)), fmt.Sprintf("%-8s", event.Kind)}
	if subject != "" {
		parts = append(parts, a.paint.bold(subject)+":")
	}
	_, err := fmt.Fprintln(a.stdout, strings.Join(append(parts, event.Text), " "))
	return err
}
