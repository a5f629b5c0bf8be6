package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit codes of an init process that could not start its child, as in POSIX
// shells.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	exitBySignal      = 128 // plus the signal
)

// runInit is the first process of a container: it starts argv, hands signals
// on to it, reaps whatever the container leaves behind, and ends as it ends.
func runInit(argv []string) int {
	if len(argv) == 0 {
		fmt.Fprintln(os.Stderr, InitName+": no command")
		return exitNotFound
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)

	child, err := startChild(argv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: start %s: %v\n", InitName, argv[0], err)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return exitNotFound
		}
		return exitNotExecutable
	}

	for s := range signals {
		switch s {
		case syscall.SIGCHLD:
			if code, ended := reap(child); ended {
				return code
			}
		case syscall.SIGURG: // the Go runtime's own
		case syscall.SIGTTIN, syscall.SIGTTOU: // the terminal is the child's
		default:
			_ = syscall.Kill(child, s.(syscall.Signal)) // it may have ended just now
		}
	}
	return 0
}

// startChild starts argv in a process group of its own, which gets the
// terminal if there is one.
func startChild(argv []string) (pid int, err error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return 0, err
	}
	_, ttyErr := unix.IoctlGetTermios(0, unix.TCGETS)
	attr := &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Foreground: ttyErr == nil},
	}
	return syscall.ForkExec(path, argv, attr)
}

// reap takes the exits of all processes that have ended.
func reap(child int) (code int, ended bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil || pid <= 0:
			return code, ended
		case pid == child && status.Signaled():
			code, ended = exitBySignal+int(status.Signal()), true
		case pid == child && status.Exited():
			code, ended = status.ExitStatus(), true
		}
	}
}
