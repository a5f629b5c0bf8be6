package compose

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nobody is the user that a child becomes when it was root.
const nobody = 65534

// enclose gives up all of the file system but one folder, sets the memory
// limit, and returns the folder's new path. Root moves into the folder for
// good and becomes nobody. Others ask Landlock for the same; on a kernel
// without it what is left is that every path was looked at before.
func enclose(folder string, memory int64) (string, error) {
	if err := limitMemory(memory); err != nil {
		return "", err
	}
	if os.Geteuid() != 0 {
		return folder, landlock(folder)
	}

	if err := os.Chown(folder, nobody, nobody); err != nil {
		return "", err
	}
	if err := syscall.Chroot(folder); err != nil {
		return "", fmt.Errorf("chroot: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return "", err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
		return "", fmt.Errorf("become nobody: %w", err)
	}
	return "/", nil
}

// limitMemory bounds what the process may map for data. The program's own
// text, shared with its parent, is the rest.
func limitMemory(memory int64) error {
	data := uint64(memory - memory/8)
	debug.SetMemoryLimit(int64(data - data/4))
	debug.SetGCPercent(400) // the process lives for seconds
	limits := map[int]uint64{
		unix.RLIMIT_DATA:   data,
		unix.RLIMIT_CORE:   0,
		unix.RLIMIT_FSIZE:  maxTotalBytes,
		unix.RLIMIT_NOFILE: 256,
	}
	for which, value := range limits {
		if err := unix.Setrlimit(which, &unix.Rlimit{Cur: value, Max: value}); err != nil {
			return fmt.Errorf("limit resource %d: %w", which, err)
		}
	}
	return nil
}

// grace is how much CPU time a project may take. The parent's clock ends it
// earlier; this one ends a child whose parent is gone.
const grace = 30 * time.Second

func limitTime() error {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return fmt.Errorf("ask for used time: %w", err)
	}
	seconds := uint64(used.Utime.Sec+used.Stime.Sec) + uint64(grace/time.Second)
	if err := unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: seconds, Max: unix.RLIM_INFINITY}); err != nil {
		return fmt.Errorf("limit CPU time: %w", err)
	}
	return nil
}

// landlock allows this process the files below one folder and no others
// (Landlock ABI 1, Linux 5.13).
func landlock(folder string) error {
	const all = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1 // every right of ABI 1
	rules := unix.LandlockRulesetAttr{Handled_access_fs: all}
	ruleset, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), unsafe.Sizeof(rules.Handled_access_fs), 0)
	if errno != 0 {
		return nil // the kernel has none
	}
	defer syscall.Close(int(ruleset))

	dir, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", folder, err)
	}
	defer unix.Close(dir)
	path := unix.LandlockPathBeneathAttr{Allowed_access: all, Parent_fd: int32(dir)}
	if _, _, errno := syscall.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, ruleset, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&path)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("allow %s: %w", folder, errno)
	}
	for _, call := range [][2]uintptr{{unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS}, {unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset}} {
		second := uintptr(0)
		if call[0] == unix.SYS_PRCTL {
			second = 1
		}
		_, _, errno := syscall.AllThreadsSyscall6(call[0], call[1], second, 0, 0, 0, 0)
		if errno == syscall.ENOTSUP {
			return nil // a build with cgo cannot speak for all its threads
		}
		if errno != 0 {
			return fmt.Errorf("restrict this process: %w", errno)
		}
	}
	return nil
}
