package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gitswarm/gitswarm/manager/api"
)

// palette colours text, or leaves it alone.
type palette bool

func (p palette) code(code, text string) string {
	if !p || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p palette) red(text string) string    { return p.code("31", text) }
func (p palette) green(text string) string  { return p.code("32", text) }
func (p palette) yellow(text string) string { return p.code("33", text) }
func (p palette) cyan(text string) string   { return p.code("36", text) }
func (p palette) faint(text string) string  { return p.code("2", text) }
func (p palette) bold(text string) string   { return p.code("1", text) }

// word colours a state by how good it is.
func (p palette) word(text string) string {
	switch text {
	case "healthy", "synced", "ready", "running", "complete", "active", "ok":
		return p.green(text)
	case "down", "failed", "rolled-back", "refused", "rejected", "fail", "lost":
		return p.red(text)
	case "degraded", "rolling", "waiting", "paused", "suspended", "stale", "unknown", "warn", "starting", "preparing",
		"progressing", "rolling-back", "superseded", "drained":
		return p.yellow(text)
	}
	return text
}

// table aligns cells. Colour does not count as width.
type table struct {
	paint palette
	heads []string
	least []int // widths that columns have at least
	rows  [][]string
}

func (a *app) table(heads ...string) *table {
	return &table{paint: a.paint, heads: heads, least: make([]int, len(heads))}
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// write prints the table, and only its head if there are no rows.
func (t *table) write(w io.Writer) {
	widths := make([]int, len(t.heads))
	for i, head := range t.heads {
		widths[i] = max(utf8.RuneCountInString(head), t.least[i])
		for _, row := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	t.line(w, t.heads, widths, t.paint.bold)
	for _, row := range t.rows {
		t.line(w, row, widths, t.paint.word)
	}
}

func (t *table) line(w io.Writer, cells []string, widths []int, paint func(string) string) {
	var line strings.Builder
	for i, cell := range cells {
		line.WriteString(paint(cell))
		if i < len(cells)-1 {
			line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
	}
	fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
}

// show prints a value as -o asks, or as text.
func (a *app) show(value any, text func(wide bool)) error {
	switch a.output {
	case "json", "yaml":
		return a.encode(value, a.output)
	}
	text(a.output == "wide")
	return nil
}

func (a *app) encode(value any, format string) error {
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	if format == "yaml" {
		return api.WriteYAML(a.stdout, &data)
	}
	_, err := a.stdout.Write(data.Bytes())
	return err
}

// ago: "4m ago", or "-" for a time that never was.
func ago(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	return api.Ago(now.Sub(then)) + " ago"
}

// took: "12s", or "-" while it goes on.
func took(began time.Time, over *time.Time) string {
	if over == nil {
		return "-"
	}
	return api.Ago(over.Sub(began))
}

// counted: "1 stack", "2 stacks".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// dash stands for nothing in a table.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// shortDigest is enough of a digest to tell two apart.
func shortDigest(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(len(hex), 12)]
}

// bytesText: "12.5MiB".
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%dB", n)
	}
	value, exponent := float64(n)/unit, 0
	for value >= unit && exponent < 4 {
		value /= unit
		exponent++
	}
	return fmt.Sprintf("%.1f%ciB", value, "KMGTP"[exponent])
}
