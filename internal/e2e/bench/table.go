package main

import (
	"fmt"
	"runtime"

	"github.com/gitswarm/gitswarm/internal/e2e/figures"
)

type samples = figures.Samples

func (s *stage) header() {
	fmt.Fprintf(s.out, "%d rounds, %d cores, load %s at the start; medians (least–most)\n\n", s.o.rounds, runtime.NumCPU(), figures.Load())
	fmt.Fprintln(s.out, "| what | gitswarm | containerd driven directly | ratio | goal |")
	fmt.Fprintln(s.out, "|---|---|---|---|---|")
}

func (s *stage) footer() { fmt.Fprintf(s.out, "\nload %s at the end\n", figures.Load()) }

// pair prints a row with a ratio.
func (s *stage) pair(what string, ours, theirs samples, goal string) {
	s.row(what, ours.Text("ms"), theirs.Text("ms"), figures.Ratio(ours, theirs), goal)
}

func (s *stage) row(cells ...string) { fmt.Fprintln(s.out, figures.Row(cells...)) }
