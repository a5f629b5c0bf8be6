package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Traces lists all that a daemon might leave behind on this machine: its
// processes, mounts, network namespaces, links, nft tables, cgroups and files
// below /run. A test compares the lists of before and after.
func Traces() ([]string, error) {
	var traces []string
	processes, err := processes()
	if err != nil {
		return nil, err
	}
	traces = append(traces, processes...)

	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		traces = append(traces, "mount "+fields[1]+" of type "+fields[2])
	}
	for kind, command := range map[string][]string{
		"link":      {"ip", "-o", "link", "show"},
		"namespace": {"ip", "netns", "list"},
		"nft":       {"nft", "list", "tables"},
	} {
		text, err := exec.Command(command[0], command[1:]...).Output()
		if err != nil {
			return nil, fmt.Errorf("list traces: %s: %w", strings.Join(command, " "), err)
		}
		for line := range strings.Lines(string(text)) {
			traces = append(traces, kind+" "+stable(kind, line))
		}
	}
	for _, pattern := range []string{"/run/*gitswarm*", "/run/containerd*/*/*", "/sys/fs/cgroup/*/gitswarm*/*", "/sys/fs/cgroup/gitswarm*/*", "/tmp/gitswarm-lab-*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			traces = append(traces, "file "+file)
		}
	}
	slices.Sort(traces)
	return slices.Compact(traces), nil
}

// stable is the part of a line that stays the same while nothing changes.
func stable(kind, line string) string {
	fields := strings.Fields(line)
	if kind == "link" && len(fields) > 1 {
		return strings.TrimSuffix(fields[1], ":")
	}
	return strings.TrimSpace(line)
}

// processes lists those that run from a lab's folder.
func processes() ([]string, error) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err == nil && strings.Contains(exe, "gitswarm-lab-") {
			found = append(found, "process "+filepath.Base(filepath.Dir(link))+" "+exe)
		}
	}
	return found, nil
}

// Left returns what is in after and was not in before.
func Left(before, after []string) []string {
	return slices.DeleteFunc(slices.Clone(after), func(trace string) bool {
		_, there := slices.BinarySearch(before, trace)
		return there
	})
}

// Processes lists the processes that run the executable path inside of a
// container of the daemon whose folder is dir, as "pid:start time", by what
// the kernel says: their mounts name the daemon's folders.
func Processes(path, dir string) ([]string, error) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || exe != path {
			continue
		}
		proc := filepath.Dir(link)
		mounts, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
		if err != nil || !strings.Contains(string(mounts), dir+"/") {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(proc, "stat"))
		if err != nil {
			continue
		}
		found = append(found, filepath.Base(proc)+":"+startTime(string(stat)))
	}
	slices.Sort(found)
	return found, nil
}

// startTime is field 22 of proc_pid_stat(5), counted from behind the command,
// which may hold spaces.
func startTime(stat string) string {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}
