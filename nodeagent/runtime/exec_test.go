package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// talk is the caller of an Exec.
type talk struct {
	frames chan swarm.ExecFrame // to the process

	mu     sync.Mutex
	stdout strings.Builder
	stderr strings.Builder
	exit   *int
}

func newTalk() *talk { return &talk{frames: make(chan swarm.ExecFrame, 16)} }

func (s *talk) Send(f swarm.ExecFrame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stdout.Write(f.Stdout)
	s.stderr.Write(f.Stderr)
	if f.Exit != nil {
		s.exit = f.Exit
	}
	return nil
}

func (s *talk) Recv() (swarm.ExecFrame, error) {
	f, ok := <-s.frames
	if !ok {
		return f, io.EOF
	}
	return f, nil
}

func (s *talk) heard(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !strings.Contains(s.stdout.String(), text) {
		return fmt.Errorf("heard %q, not yet %q", s.stdout.String(), text)
	}
	return nil
}

func TestExecTellsOutputAndExitCode(t *testing.T) {
	r := shared.open(t)
	c := started(t, tinySpec(t))
	s := newTalk()
	err := r.Exec(t.Context(), swarm.ExecRequest{
		Task: c.ID, Args: []string{"/bin/sh", "-c", "id -u; pwd; echo $A$FROM; echo oops >&2; exit 9"},
		Env: []string{"A=b"}, User: "web", WorkingDir: "/tmp",
	}, s)
	close(s.frames)
	if err != nil {
		t.Fatal(err)
	}
	if s.exit == nil || *s.exit != 9 || s.stdout.String() != "1000\n/tmp\nbimage\n" || s.stderr.String() != "oops\n" {
		t.Errorf("exit %v, stdout %q, stderr %q", s.exit, s.stdout.String(), s.stderr.String())
	}
}

func TestExecReadsInputToItsEnd(t *testing.T) {
	r := shared.open(t)
	c := started(t, tinySpec(t))
	s := newTalk()
	const pieces = 50
	go func() {
		for range pieces {
			s.frames <- swarm.ExecFrame{Stdin: []byte(strings.Repeat("x", 9999) + "\n")}
		}
		s.frames <- swarm.ExecFrame{EOF: true}
	}()
	if err := r.Exec(t.Context(), swarm.ExecRequest{Task: c.ID, Args: []string{"/bin/wc", "-c"}, Stdin: true}, s); err != nil {
		t.Fatal(err)
	}
	close(s.frames)
	if got := strings.TrimSpace(s.stdout.String()); got != fmt.Sprint(pieces*10000) {
		t.Errorf("wc counts %s", got)
	}
}

func TestExecWithATerminalIsInteractive(t *testing.T) {
	r := shared.open(t)
	c := started(t, tinySpec(t))
	s := newTalk()
	done := make(chan error, 1)
	go func() {
		done <- r.Exec(t.Context(), swarm.ExecRequest{Task: c.ID, Args: []string{"/bin/sh"}, TTY: true, Stdin: true, Rows: 30, Cols: 100}, s)
	}()
	say := func(text, heard string) {
		t.Helper()
		s.frames <- swarm.ExecFrame{Stdin: []byte(text)}
		if err := eventually(10*time.Second, func() error { return s.heard(heard) }); err != nil {
			t.Fatal(err)
		}
	}
	say("stty size; echo $TERM\n", "30 100\r\nxterm")
	s.frames <- swarm.ExecFrame{Rows: 40, Cols: 90}
	say("sleep 0.2; stty size\n", "40 90")
	say("exit 4\n", "exit 4")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	close(s.frames)
	if s.exit == nil || *s.exit != 4 {
		t.Errorf("exit is %v", s.exit)
	}
}

func TestExecEndsWithItsCaller(t *testing.T) {
	r := shared.open(t)
	c := started(t, tinySpec(t))
	ctx, cancel := context.WithCancel(t.Context())
	s := newTalk()
	defer close(s.frames)
	done := make(chan error, 1)
	go func() {
		done <- r.Exec(ctx, swarm.ExecRequest{Task: c.ID, Args: []string{"/bin/sh", "-c", "echo on; exec sleep 4242"}}, s)
	}()
	if err := eventually(10*time.Second, func() error { return s.heard("on") }); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	err := eventually(10*time.Second, func() error { // the kernel may still be at it
		if got := inside(t, c.ID, "ps | grep -c '[s]leep 4242' || true"); got != "0\n" {
			return fmt.Errorf("%s processes are left", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestExecNeedsATaskThatRunsAndACommandThatIsThere(t *testing.T) {
	r := shared.open(t)
	c := named(t, "web")
	c.Spec = tinySpec(t)
	if err := r.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s := newTalk()
	defer close(s.frames)
	for _, id := range []swarm.TaskID{c.ID, "no/such"} {
		if err := r.Exec(t.Context(), swarm.ExecRequest{Task: id, Args: []string{"/bin/true"}}, s); err == nil {
			t.Errorf("exec in %s went well", id)
		}
	}
	if _, err := r.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	err := r.Exec(t.Context(), swarm.ExecRequest{Task: c.ID, Args: []string{"nonesuch"}}, s)
	if err == nil || CauseOf(err) != swarm.CauseContent {
		t.Errorf("got %v", err)
	}
}

func TestProbeKeepsLittleAndIsKilledInTime(t *testing.T) {
	r := shared.open(t)
	c := started(t, tinySpec(t))
	code, out, err := r.Probe(t.Context(), c.ID, []string{"/bin/sh", "-c", "yes | head -c 100000; exit 2"}, 10*time.Second)
	if err != nil || code != 2 || len(out) != probeOutput {
		t.Errorf("exit %d, %d bytes, %v", code, len(out), err)
	}

	began := time.Now()
	_, out, err = r.Probe(t.Context(), c.ID, []string{"/bin/sh", "-c", "echo begun; exec sleep 4243"}, 400*time.Millisecond)
	if !errors.Is(err, ErrProbeTimeout) || string(out) != "begun\n" || time.Since(began) > 5*time.Second {
		t.Errorf("after %s: %q, %v", time.Since(began), out, err)
	}
	if got := inside(t, c.ID, "ps | grep -c '[s]leep 4243' || true"); got != "0\n" {
		t.Errorf("%s processes are left", got)
	}
}
