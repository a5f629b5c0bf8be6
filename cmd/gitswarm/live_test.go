package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// liveWorld is a world with one healthy stack, and an app that asks it.
func liveWorld(t *testing.T) (*world, *app) {
	w := newWorld(t, filepath.Join(t.TempDir(), "w"))
	t.Cleanup(func() { must(t, w.store.Close()) })
	w.do(store.Command{PutSource: &swarm.Source{ID: worldSource, URL: "/srv/git/stacks.git", Approved: true}})
	w.accept("shop", w.render("shop", "b81e0041", "Ana", "begin", []string{"web=1@web:1"}), nil)
	w.settle("shop")
	return w, &app{host: w.host, stdin: strings.NewReader(""), stderr: io.Discard}
}

// read waits for a line that holds text.
func read(t *testing.T, from *bufio.Reader, text string) {
	t.Helper()
	found := make(chan error, 1)
	go func() {
		for {
			line, err := from.ReadString('\n')
			if err != nil || strings.Contains(line, text) {
				found <- err
				return
			}
		}
	}()
	select {
	case err := <-found:
		must(t, err)
	case <-time.After(20 * time.Second):
		t.Fatalf("no line holds %q after 20 s", text)
	}
}

func TestFollowedLogsGoOnWithNewReplicasAndAfterTheDaemonRestarted(t *testing.T) {
	w, a := liveWorld(t)
	stop := w.serve(t)
	w.log("shop/web.1", "first")
	out, in := io.Pipe()
	a.stdout = in
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.logs(ctx, "shop/web", logFlags{follow: true, tail: -1}, time.Time{}) }()
	lines := bufio.NewReader(out)
	read(t, lines, "web.1.t001 | first")

	w.accept("shop", w.render("shop", "3f2c91a2", "Ana", "next", []string{"web=1@web:2"}), nil)
	w.mu.Lock()
	w.lines = append(w.lines, swarm.LogLine{Task: "shop/web.1.t002", At: time.Now(), Text: []byte("second")})
	w.mu.Unlock()
	w.settle("shop")
	read(t, lines, "web.1.t002 | second")

	stop()
	defer w.serve(t)()
	w.mu.Lock()
	w.lines = append(w.lines, swarm.LogLine{Task: "shop/web.1.t002", At: time.Now(), Text: []byte("third")})
	w.mu.Unlock()
	line, err := lines.ReadString('\n')
	if err != nil || line != "web.1.t002 | third\n" {
		t.Errorf("after the restart came %q, %v: want the third line, and no other again", line, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFollowedEventsComeAsTheyHappen(t *testing.T) {
	w, a := liveWorld(t)
	defer w.serve(t)()
	out, in := io.Pipe()
	a.stdout = in
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		command := a.root()
		command.SetArgs([]string{"events", "-f", "shop", "--host", w.host})
		ended <- command.ExecuteContext(ctx)
	}()
	lines := bufio.NewReader(out)
	read(t, lines, "b81e004 became healthy")
	why := "sale"
	must(t, (&clerk{world: w}).Suspend(ctx, "shop", why, "ana"))
	read(t, lines, "suspended (sale)")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAWaitLivesThroughARestartOfTheDaemon(t *testing.T) {
	w, a := liveWorld(t)
	stop := w.serve(t)
	a.stdout = io.Discard
	out, in := io.Pipe()
	a.stderr = in
	w.accept("shop", w.render("shop", "3f2c91a2", "Ana", "next", []string{"web=1@web:2"}), nil)
	w.roll("shop")
	ended := make(chan error, 1)
	go func() {
		ended <- a.await(t.Context(), api.Goal{Stack: "shop", Revision: "3f2c91a2"}, time.Minute)
		in.Close()
	}()
	lines := bufio.NewReader(out)
	read(t, lines, "web 0/1")
	stop()
	read(t, lines, "the daemon went away")
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	defer w.serve(t)()
	w.fail("shop", "web.1", "web.1 exited 1 after 2s")

	var exit *exitError
	if err := <-ended; !errors.As(err, &exit) || exit.code != api.CodeFailed {
		t.Errorf("the wait ended with %v, want exit code 2", err)
	}
}

// pty opens a pseudo terminal of 24 rows and 80 columns.
func pty(t *testing.T) (keyboard, terminal *os.File) {
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo terminals here:", err)
	}
	t.Cleanup(func() { keyboard.Close() })
	fd := int(keyboard.Fd())
	must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(t, err)
	resize(t, keyboard, 24, 80)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { terminal.Close() })
	return keyboard, terminal
}

func resize(t *testing.T, keyboard *os.File, rows, cols uint16) {
	must(t, unix.IoctlSetWinsize(int(keyboard.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}))
}

func TestExecOnATerminalIsInteractive(t *testing.T) {
	w, _ := liveWorld(t)
	defer w.serve(t)()
	keyboard, terminal := pty(t)
	binary := filepath.Join(t.TempDir(), "gitswarm")
	self, err := os.Executable()
	must(t, err)
	must(t, os.Symlink(self, binary))

	shell := exec.Command(binary, "exec", "shop/web", "--", "sh", "-c", `echo "$TERMINAL"; read line; echo "got $line"; exit 5`)
	shell.Env = append(os.Environ(), "GITSWARM_HOST="+w.host)
	shell.Stdin, shell.Stdout, shell.Stderr = terminal, terminal, terminal
	shell.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	must(t, shell.Start())
	screen := bufio.NewReader(keyboard)
	read(t, screen, "true 24x80")
	resize(t, keyboard, 50, 132)
	read(t, screen, "resized 50x132")
	_, err = keyboard.Write([]byte("hello\n"))
	must(t, err)
	read(t, screen, "got hello")

	var exit *exec.ExitError
	if err := shell.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Errorf("exec ended with %v, want exit code 5", err)
	}
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil || state.Lflag&unix.ECHO == 0 {
		t.Errorf("the terminal is still raw: %v", err)
	}
}
