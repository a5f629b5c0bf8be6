package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// samples are what was measured, in the order of the rounds.
type samples []float64

func (s *samples) add(d time.Duration) { *s = append(*s, d.Seconds()*1000) }

func (s samples) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// text is the median with the least and the most.
func (s samples) text(unit string) string {
	if len(s) == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s (%s–%s)", short(s.median()), unit, short(slices.Min(s)), short(slices.Max(s)))
}

// short writes three digits that matter.
func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// over divides round by round, so that what slowed one round down slowed both.
func (s samples) over(other samples) samples {
	var ratios samples
	for i := range min(len(s), len(other)) {
		ratios = append(ratios, s[i]/other[i])
	}
	return ratios
}

func (s *stage) header() {
	fmt.Fprintf(s.out, "%d rounds, %d cores, load %s at the start; medians (least–most)\n\n", s.o.rounds, runtime.NumCPU(), load())
	fmt.Fprintln(s.out, "| what | gitswarm | containerd driven directly | ratio | goal |")
	fmt.Fprintln(s.out, "|---|---|---|---|---|")
}

func (s *stage) footer() { fmt.Fprintf(s.out, "\nload %s at the end\n", load()) }

// pair prints a row with a ratio.
func (s *stage) pair(what string, ours, theirs samples, goal string) {
	ratio := ours.over(theirs)
	s.row(what, ours.text("ms"), theirs.text("ms"), fmt.Sprintf("%.2f× (%.2f–%.2f)", ratio.median(), slices.Min(ratio), slices.Max(ratio)), goal)
}

func (s *stage) row(cells ...string) { fmt.Fprintln(s.out, "| "+strings.Join(cells, " | ")+" |") }

// load is the machine's load average over a minute.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg") // a machine without it has no figure
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
