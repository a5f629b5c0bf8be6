package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

type logFlags struct {
	follow, timestamps, noPrefix bool
	since, revision              string
	tail                         int
}

func (a *app) logsCommand() *cobra.Command {
	var flags logFlags
	cmd := &cobra.Command{
		Use:   "logs STACK[/SERVICE[.SLOT]] | TASK",
		Short: "Show what replicas wrote",
		Long: "Show what replicas wrote, merged by time, those included that have ended.\n" +
			"With -f it follows new replicas too, and lives through a restart of the daemon.",
		Example: "  gitswarm logs -f shop/web\n  gitswarm logs shop/web.2 --tail 50\n" +
			"  gitswarm logs shop --since 10m\n  gitswarm logs blog/web --revision 77aa102",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			since, err := sinceOf(flags.since, time.Now())
			if err != nil {
				return err
			}
			return a.logs(cmd.Context(), args[0], flags, since)
		},
	}
	cmd.Flags().BoolVarP(&flags.follow, "follow", "f", false, "go on with new lines")
	cmd.Flags().BoolVarP(&flags.timestamps, "timestamps", "t", false, "show when each line was written")
	cmd.Flags().BoolVar(&flags.noPrefix, "no-prefix", false, "leave out which replica wrote a line")
	cmd.Flags().StringVar(&flags.since, "since", "", "only lines after this: a span (10m) or a time (RFC 3339)")
	cmd.Flags().IntVarP(&flags.tail, "tail", "n", -1, "the last lines of each replica; -1 shows all")
	cmd.Flags().StringVar(&flags.revision, "revision", "", "only of replicas that this commit brought")
	return a.listFlags(cmd)
}

// sinceOf reads a span or a time.
func sinceOf(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if span, err := time.ParseDuration(text); err == nil && span >= 0 {
		return now.Add(-span), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, fmt.Errorf("--since %q is neither a span nor a time: give 10m, 2h30m or 2026-01-31T15:04:05Z", text)
	}
	return at, nil
}

// logs prints lines until there are no more. While it follows, it comes back
// after the daemon does, with the lines after the last one that it printed.
func (a *app) logs(ctx context.Context, target string, flags logFlags, since time.Time) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	printer := &logPrinter{app: a, flags: flags, target: target, newest: map[string]time.Time{}}
	for heard := false; ; heard = true {
		err := client.stream(ctx, "/v1/logs", logQuery(target, flags, since), printer.line)
		lost := err == nil || errors.Is(err, errStreamEnded) || errors.Is(err, errUnreachable) && heard
		switch {
		case ctx.Err() != nil:
			return nil
		case !flags.follow || !lost:
			return err
		}
		since, flags.tail = printer.last(since), -1
		if err := sleep(ctx, reconnectEvery); err != nil {
			return nil
		}
	}
}

func logQuery(target string, flags logFlags, since time.Time) url.Values {
	query := url.Values{
		"target": {target}, "follow": {strconv.FormatBool(flags.follow)}, "tail": {strconv.Itoa(flags.tail)},
	}
	if !since.IsZero() {
		query.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	if flags.revision != "" {
		query.Set("revision", flags.revision)
	}
	return query
}

// logPrinter prints lines, each once, with the replica that wrote it in front.
type logPrinter struct {
	app    *app
	flags  logFlags
	target string
	width  int
	newest map[string]time.Time // of each task, what was printed last
}

func (p *logPrinter) line(data []byte) error {
	var line api.LogLine
	if err := json.Unmarshal(data, &line); err != nil {
		return fmt.Errorf("read log line: %w", err)
	}
	if p.again(line) {
		return nil
	}
	p.newest[line.Task] = line.At

	if p.app.output == "json" {
		_, err := fmt.Fprintf(p.app.stdout, "%s\n", data)
		return err
	}
	var out strings.Builder
	if !p.flags.noPrefix {
		out.WriteString(p.prefix(line.Task))
	}
	if p.flags.timestamps {
		out.WriteString(p.app.paint.faint(line.At.UTC().Format("2006-01-02T15:04:05.000Z")) + " ")
	}
	out.WriteString(line.Text)
	to := p.app.stdout
	if line.Stderr {
		to = p.app.stderr
	}
	_, err := fmt.Fprintln(to, out.String())
	return err
}

// again reports whether a line was printed before the daemon went away. Lines
// of one instant are told apart while one stream lasts, so only what is older
// than the newest counts.
func (p *logPrinter) again(line api.LogLine) bool {
	newest, ok := p.newest[line.Task]
	return ok && line.At.Before(newest)
}

// last is where to go on after the stream broke.
func (p *logPrinter) last(since time.Time) time.Time {
	for _, at := range p.newest {
		if at.After(since) {
			since = at.Add(time.Nanosecond)
		}
	}
	return since
}

// prefix: "web.1.k3x9q2 | ", as wide as the widest so far, coloured by slot.
func (p *logPrinter) prefix(task string) string {
	stack, name, _ := strings.Cut(task, "/")
	if p.target == "" {
		name = stack + "/" + name
	}
	p.width = max(p.width, len(name))
	slot := name[:max(strings.LastIndex(name, "."), 0)]
	hash := fnv.New32a()
	hash.Write([]byte(slot))
	colours := []string{"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"}
	return p.app.paint.code(colours[hash.Sum32()%uint32(len(colours))], fmt.Sprintf("%-*s |", p.width, name)) + " "
}
