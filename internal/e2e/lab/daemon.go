package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Daemon is a running `gitswarm daemon`.
type Daemon struct {
	lab *Lab
	cmd *exec.Cmd
}

// folders are the flags that keep the lab's daemon apart from every other.
func (l *Lab) folders() []string {
	return []string{"--data-dir", filepath.Join(l.Dir, "data"), "--run-dir", l.RunDir}
}

// Socket is the control API of the lab's daemon.
func (l *Lab) Socket() string { return filepath.Join(l.RunDir, "gitswarm.sock") }

// StartDaemon starts a daemon, or starts it again, and returns once it
// answers.
func (l *Lab) StartDaemon(ctx context.Context, flags ...string) (*Daemon, error) {
	l.used = true
	args := append(append([]string{"daemon"}, l.folders()...), "--listen", "127.0.0.1:0") // labs stand side by side
	cmd := exec.Command(l.Bin, append(args, flags...)...)
	cmd.Stdout, cmd.Stderr = l.out, l.out
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	d := &Daemon{lab: l, cmd: cmd}
	l.daemon = d
	return d, Poll(ctx, 20*time.Second, "the daemon answers", func() bool { return answers(l.Socket()) })
}

// answers reports whether something listens on a unix socket.
func answers(socket string) bool {
	conn, err := net.Dial("unix", socket)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// Daemon returns the lab's running daemon, or nil.
func (l *Lab) Daemon() *Daemon { return l.daemon }

// PID is the daemon's process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Stop asks the daemon to end, and waits until it has.
func (d *Daemon) Stop() {
	stopProcess(d.cmd, 20*time.Second)
	d.lab.daemon = nil
}

// Kill ends the daemon with SIGKILL, and waits until it has gone.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill() // it may have ended by itself
	_ = d.cmd.Wait()         // reports the signal that was just sent
	d.lab.daemon = nil
}

// Run runs a gitswarm command against the lab's daemon, and returns what it
// printed and its exit code.
func (l *Lab) Run(ctx context.Context, args ...string) (output string, exit int) {
	var both bytes.Buffer
	cmd := exec.CommandContext(ctx, l.Bin, args...)
	cmd.Env = append(os.Environ(), "GITSWARM_HOST=unix://"+l.Socket(), "NO_COLOR=1")
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		exit = ended.ExitCode()
	case err != nil:
		return err.Error(), -1
	}
	return both.String(), exit
}

// ownGroup keeps Ctrl-C in the terminal from reaching a child before Close
// does.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// stopProcess sends SIGTERM, then SIGKILL once patience is over.
func stopProcess(cmd *exec.Cmd, patience time.Duration) {
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	over := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer over.Stop()
	_ = cmd.Wait() // how it ended is of no interest here
}
