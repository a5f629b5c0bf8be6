package runtime

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"

	"github.com/gitswarm/gitswarm/swarm"
)

// Usage gives what each of the tasks that run consumes, in the order asked;
// tasks that do not run are left out.
func (r *Runtime) Usage(ctx context.Context, ids []swarm.TaskID) ([]swarm.Usage, error) {
	var all []swarm.Usage
	for _, id := range ids {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("measure usage: %w", ctx.Err())
		}
		l, err := r.alive(id)
		if err != nil || l.over() || l.task == nil {
			continue
		}
		usage, ok := measure(r.cgroup(containerID(id)))
		if !ok {
			continue // it ended just now
		}
		usage.Task, usage.At = id, time.Now()
		usage.Received, usage.Sent = traffic(int(l.task.Pid()))
		all = append(all, usage)
	}
	return all, nil
}

// measure reads a control group.
func measure(path string) (swarm.Usage, bool) {
	if unified() {
		return measureUnified(path)
	}
	group, err := cgroup1.Load(cgroup1.StaticPath(path))
	if err != nil {
		return swarm.Usage{}, false
	}
	stat, err := group.Stat(cgroup1.IgnoreNotExist)
	if err != nil || stat.CPU == nil || stat.Memory == nil {
		return swarm.Usage{}, false
	}
	usage := swarm.Usage{
		CPU:         time.Duration(stat.CPU.Usage.Total),
		Memory:      int64(stat.Memory.Usage.Usage - min(stat.Memory.Usage.Usage, stat.Memory.TotalInactiveFile)),
		MemoryLimit: limit(stat.Memory.Usage.Limit),
	}
	if stat.Pids != nil {
		usage.Pids = int64(stat.Pids.Current)
	}
	return usage, true
}

func measureUnified(path string) (swarm.Usage, bool) {
	group, err := cgroup2.Load(path)
	if err != nil {
		return swarm.Usage{}, false
	}
	stat, err := group.Stat()
	if err != nil || stat.CPU == nil || stat.Memory == nil {
		return swarm.Usage{}, false
	}
	usage := swarm.Usage{
		CPU:         time.Duration(stat.CPU.UsageUsec) * time.Microsecond,
		Memory:      int64(stat.Memory.Usage - min(stat.Memory.Usage, stat.Memory.InactiveFile)),
		MemoryLimit: limit(stat.Memory.UsageLimit),
	}
	if stat.Pids != nil {
		usage.Pids = int64(stat.Pids.Current)
	}
	return usage, true
}

// limit is 0 for what the kernel writes where there is none: the largest
// number of whole pages.
func limit(bytes uint64) int64 {
	if bytes > math.MaxInt64-1<<20 {
		return 0
	}
	return int64(bytes)
}

// traffic sums the bytes of a process's network interfaces but loopback.
func traffic(pid int) (received, sent int64) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		name, counters, ok := strings.Cut(scanner.Text(), ":")
		fields := strings.Fields(counters)
		if !ok || len(fields) < 9 || strings.TrimSpace(name) == "lo" {
			continue
		}
		in, _ := strconv.ParseInt(fields[0], 10, 64) // proc(5): numbers
		out, _ := strconv.ParseInt(fields[8], 10, 64)
		received, sent = received+in, sent+out
	}
	return received, sent
}
