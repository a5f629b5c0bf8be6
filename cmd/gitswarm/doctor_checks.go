package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func checkUser() finding {
	if os.Geteuid() != 0 {
		return warn("run it again with sudo", "you are not root: what the kernel can do is only looked up, not tried")
	}
	return ok("root")
}

// leastKernel is the first with all that nftables and overlayfs are asked for.
var leastKernel = [2]int{5, 10}

func checkKernel() finding {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return warn("", "read kernel version: %v", err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	x, err1 := strconv.Atoi(major)
	y, err2 := strconv.Atoi(strings.TrimRight(minor, "-abcdefghijklmnopqrstuvwxyz+"))
	if err := errors.Join(err1, err2); err != nil {
		return warn("", "kernel %s: version is not understood", release)
	}
	if x < leastKernel[0] || x == leastKernel[0] && y < leastKernel[1] {
		return fail("upgrade the kernel", "%s is older than %d.%d", release, leastKernel[0], leastKernel[1])
	}
	return ok("%s", release)
}

func checkOverlay() finding {
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return warn("", "read file systems: %v", err)
	}
	if bytes.Contains(filesystems, []byte("\toverlay\n")) {
		return ok("the kernel has it")
	}
	if os.Geteuid() == 0 && modprobe("overlay") == nil {
		return ok("loaded")
	}
	return fail("modprobe overlay", "the kernel does not have it")
}

func modprobe(module string) error { return exec.Command("modprobe", module).Run() }

func checkNamespaces() finding {
	for _, kind := range []string{"mnt", "net", "pid", "uts", "ipc"} {
		if _, err := os.Stat("/proc/self/ns/" + kind); err != nil {
			return fail("use a kernel with namespaces", "no %s namespaces", kind)
		}
	}
	return ok("mount, network, pid, uts, ipc")
}

// checkCgroups looks for the controllers that limits need, in either version.
func checkCgroups() finding {
	needed := []string{"cpu", "memory", "pids"}
	if data, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return missingControllers("v2", needed, strings.Fields(string(data)))
	}
	data, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return fail("mount the cgroup file system", "read control groups: %v", err)
	}
	var mounted []string
	for _, line := range strings.Split(string(data), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 4 && fields[3] == "1" {
			if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", fields[0])); err == nil {
				mounted = append(mounted, fields[0])
			}
		}
	}
	return missingControllers("v1", needed, mounted)
}

func missingControllers(version string, needed, present []string) finding {
	var missing []string
	for _, controller := range needed {
		if !slices.Contains(present, controller) {
			missing = append(missing, controller)
		}
	}
	if len(missing) > 0 {
		return fail("add cgroup_enable=memory to the kernel's command line, or delegate the controllers",
			"%s lacks %s", version, strings.Join(missing, ", "))
	}
	return ok("%s with %s", version, strings.Join(needed, ", "))
}

func checkRunc(ctx context.Context) finding {
	const remedy = "apt-get install runc"
	path, err := exec.LookPath("runc")
	if err != nil {
		return fail(remedy, "runc is not in PATH")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return fail(remedy, "run %s --version: %v", path, err)
	}
	return ok("%s (%s)", firstLine(out), path)
}

// checkPorts asks whether another program holds a port of gitswarm's cluster.
// One machine alone needs none of them.
func checkPorts() finding {
	var taken []string
	for _, port := range []struct{ network, address, use string }{
		{"tcp", ":2377", "2377/tcp managers and agents"},
		{"tcp", ":2380", "2380/tcp the users' API"},
		{"udp", ":4789", "4789/udp overlay"},
	} {
		if err := tryPort(port.network, port.address); errors.Is(err, syscall.EADDRINUSE) {
			taken = append(taken, port.use)
		}
	}
	if len(taken) > 0 {
		return warn("one machine alone needs none; stop what holds them before others join", "held by another program: %s", strings.Join(taken, ", "))
	}
	return ok("2377/tcp, 2380/tcp, 4789/udp are free")
}

func tryPort(network, address string) error {
	if network == "udp" {
		conn, err := net.ListenPacket(network, address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	return listener.Close()
}

func checkClock() finding {
	if year := time.Now().Year(); year < 2025 {
		return fail("timedatectl set-ntp true", "the clock says %d", year)
	}
	var state unix.Timex
	if _, err := unix.Adjtimex(&state); err != nil {
		return warn("", "ask the kernel's clock: %v", err)
	}
	if state.Status&unix.STA_UNSYNC != 0 {
		return warn("timedatectl set-ntp true", "no time server keeps the clock right")
	}
	return ok("a time server keeps it right")
}

const (
	leastFreeBytes   = 2 << 30
	leastFreePercent = 10
	leastMemory      = 512 << 20
)

// checkDisk looks at the file system that the data folder is on, or will be on.
func checkDisk(dir string) finding {
	for dir != "/" {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return warn("", "look at %s: %v", dir, err)
	}
	free := int64(fs.Bavail) * fs.Bsize
	percent := 100 * fs.Bavail / max(fs.Blocks, 1)
	inodes := 100 * fs.Ffree / max(fs.Files, 1)
	text := fmt.Sprintf("%s free (%d%%) on %s", bytesText(free), percent, dir)
	switch {
	case free < leastFreeBytes/4:
		return fail("make room, or give --data-dir on a larger disk", "%s", text)
	case free < leastFreeBytes || percent < leastFreePercent:
		return warn("make room: a full disk stops the manager", "%s", text)
	case fs.Files > 0 && inodes < 5:
		return warn("remove small files: without inodes nothing is written", "%d%% of the inodes are free on %s", inodes, dir)
	}
	return ok("%s", text)
}

func checkMemory() finding {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return warn("", "ask for memory: %v", err)
	}
	total := int64(info.Totalram) * int64(info.Unit)
	if total < leastMemory {
		return warn("give the machine more memory", "%s in all", bytesText(total))
	}
	return ok("%s in all", bytesText(total))
}
