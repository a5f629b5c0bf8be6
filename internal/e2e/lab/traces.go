package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// traces lists all that a lab's daemon might leave behind on this machine: its
// processes, mounts, network namespaces, links, nft tables, cgroups and files.
// A lab compares the lists of before and after, while no other is there.
func traces() ([]string, error) {
	found, err := processes()
	if err != nil {
		return nil, err
	}

	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(line, "gitswarm-lab-") {
			found = append(found, "mount "+fields[1]+" of type "+fields[2])
		}
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
			found = append(found, kind+" "+stable(kind, line))
		}
	}
	for _, pattern := range []string{"/run/gitswarm-lab-*", "/sys/fs/cgroup/*/gitswarm/gitswarm-*", "/sys/fs/cgroup/gitswarm/gitswarm-*", "/tmp/gitswarm-lab-*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			found = append(found, "file "+file)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// stable is the part of a line that stays the same while nothing changes.
func stable(kind, line string) string {
	fields := strings.Fields(line)
	if kind == "link" && len(fields) > 1 {
		return strings.TrimSuffix(fields[1], ":")
	}
	return strings.TrimSpace(line)
}

// processes lists those that run from a lab's folder or in one of its boxes.
func processes() ([]string, error) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil {
			continue // it has ended
		}
		environment, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "environ")) // as above
		if strings.Contains(exe, "gitswarm-lab-") || strings.Contains(string(environment), boxEnv+"=") {
			found = append(found, "process "+filepath.Base(filepath.Dir(link))+" "+exe)
		}
	}
	return found, nil
}

// left returns what is in after and was not in before.
func left(before, after []string) []string {
	return slices.DeleteFunc(slices.Clone(after), func(trace string) bool {
		_, there := slices.BinarySearch(before, trace)
		return there
	})
}

// Process is a process in a container, by what the kernel says of it.
type Process struct {
	ID       string // "pid:start time"
	Hostname string // of the container: it names the slot
	First    bool   // it is number 1 of its namespace
}

// Processes lists, by id, the processes that run the executable path inside of
// a container of the daemon whose folder is dir: their mounts name that folder.
func Processes(path, dir string) ([]Process, error) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || exe != path {
			continue // it has ended, or is another program
		}
		if p, ours := read(filepath.Dir(link), dir); ours {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b Process) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

// read looks at one process, unless it has ended meanwhile.
func read(proc, dir string) (Process, bool) {
	mounts, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
	if err != nil || !strings.Contains(string(mounts), dir+"/") {
		return Process{}, false
	}
	hostname, err := os.ReadFile(filepath.Join(proc, "root", "etc", "hostname"))
	if err != nil {
		return Process{}, false
	}
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return Process{}, false
	}
	return Process{ID: filepath.Base(proc) + ":" + startTime(string(stat)), Hostname: strings.TrimSpace(string(hostname)), First: first(proc)}, true
}

// first reports whether the process is number 1 of its namespace (NSpid of
// proc_pid_status(5)): a health check that runs beside it is not.
func first(proc string) bool {
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if ids, found := strings.CutPrefix(line, "NSpid:"); found {
			fields := strings.Fields(ids)
			return len(fields) > 1 && fields[len(fields)-1] == "1"
		}
	}
	return false
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
