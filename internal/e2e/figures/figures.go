// Package figures counts and writes what benchmarks measure: medians, ratios
// round by round, rows of a Markdown table. It measures nothing itself.
package figures

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Samples are what was measured, in the order of the rounds.
type Samples []float64

// Add adds a duration, in milliseconds.
func (s *Samples) Add(d time.Duration) { *s = append(*s, d.Seconds()*1000) }

// Median is the middle, or the mean of the two that are; 0 without samples.
func (s Samples) Median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Text is the median with the least and the most.
func (s Samples) Text(unit string) string {
	if len(s) == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s (%s–%s)", Short(s.Median()), unit, Short(slices.Min(s)), Short(slices.Max(s)))
}

// Over divides round by round, so that what slowed one round down slowed both.
func (s Samples) Over(other Samples) Samples {
	var ratios Samples
	for i := range min(len(s), len(other)) {
		ratios = append(ratios, s[i]/other[i])
	}
	return ratios
}

// Short writes three digits that matter.
func Short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// Ratio is the median of the ratios with the least and the most.
func Ratio(ours, theirs Samples) string {
	ratio := ours.Over(theirs)
	if len(ratio) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f× (%.2f–%.2f)", ratio.Median(), slices.Min(ratio), slices.Max(ratio))
}

// Row is a row of a Markdown table.
func Row(cells ...string) string { return "| " + strings.Join(cells, " | ") + " |" }

// Load is the machine's load average over a minute.
func Load() string {
	text, _ := os.ReadFile("/proc/loadavg") // a machine without it has no figure
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
