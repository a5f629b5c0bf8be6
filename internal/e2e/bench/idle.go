package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	idleBefore = 10 * time.Second // until what a start costs is over
	idleFor    = 30 * time.Second
	idleWith   = 10 // containers
)

// idles measures what a daemon costs that has nothing to do: without
// containers, and with ten.
func (s *stage) idles(ctx context.Context) error {
	g, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer g.Close() //nolint:errcheck // the lab's own end complains of what is left
	tag, err := s.image()
	if err != nil {
		return err
	}

	empty, err := s.idle(ctx, g, 0)
	if err != nil {
		return err
	}
	if _, err := g.settled(ctx, "idle", stack(s.lab.Registry, tag, idleWith, "")); err != nil {
		return err
	}
	full, err := s.idle(ctx, g, idleWith)
	if err != nil {
		return err
	}
	shims, count, err := sharesOf(filepath.Join(g.Dir, "data", "bin"))
	if err != nil {
		return err
	}
	s.row("memory each container adds: its shim's PSS", fmt.Sprintf("%.1f MB (%d shims)", shims/float64(max(count, 1)), count), "", "", "≤ 3 MB")
	s.row("memory each container adds: the daemon's growth in PSS", fmt.Sprintf("%.2f MB", (full.together-empty.together)/idleWith), "", "", "")
	return nil
}

// cost is what a process uses, and what it and its children use together: the
// daemon keeps a loader of compose files ready.
type cost struct{ rss, pss, anonymous, together float64 } // MB

func (s *stage) idle(ctx context.Context, g *side, containers int) (cost, error) {
	note("idle for %s with %d containers", idleFor, containers)
	pid := g.Daemon().PID()
	if err := pause(ctx, idleBefore); err != nil {
		return cost{}, err
	}
	before, err := cpuOf(pid)
	if err != nil {
		return cost{}, err
	}
	if err := pause(ctx, idleFor); err != nil {
		return cost{}, err
	}
	after, err := cpuOf(pid)
	if err != nil {
		return cost{}, err
	}
	used, err := costWithChildren(pid)
	if err != nil {
		return cost{}, err
	}
	s.row(fmt.Sprintf("idle memory of the daemon, %d containers", containers),
		fmt.Sprintf("RSS %.1f MB, of that anonymous %.1f MB; with the loader that it keeps ready PSS %.1f MB", used.rss, used.anonymous, used.together), "", "", "< 80 MB")
	s.row(fmt.Sprintf("idle CPU of the daemon over %s, %d containers", idleFor, containers),
		fmt.Sprintf("%.2f %% of a core", 100*(after-before).Seconds()/idleFor.Seconds()), "", "", "< 0.5 %")
	return used, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// costOf reads what the kernel counts of a process's memory.
func costOf(pid int) (cost, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return cost{}, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	mega := make(map[string]float64)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if kib, err := strconv.ParseFloat(fields[min(1, len(fields)-1)], 64); err == nil {
			mega[fields[0]] = kib * 1024 / 1e6
		}
	}
	return cost{rss: mega["Rss:"], pss: mega["Pss:"], anonymous: mega["Pss_Anon:"]}, nil
}

// costWithChildren is costOf and the shares of the process's children.
func costWithChildren(pid int) (cost, error) {
	used, err := costOf(pid)
	if err != nil {
		return cost{}, err
	}
	used.together = used.pss
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return cost{}, err
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // the thread may have ended
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return cost{}, err
			}
			its, err := costOf(child)
			if err != nil {
				return cost{}, err
			}
			used.together += its.pss
		}
	}
	return used, nil
}

// cpuOf reads the time that a process has spent on a core: fields 14 and 15 of
// proc_pid_stat(5), in hundredths of a second.
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// sharesOf sums the memory of the processes whose executable is below dir.
func sharesOf(dir string) (pss float64, count int, err error) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return 0, 0, err
	}
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(exe, dir+"/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil {
			return 0, 0, err
		}
		used, err := costOf(pid)
		if err != nil {
			return 0, 0, err
		}
		pss += used.pss
		count++
	}
	return pss, count, nil
}
