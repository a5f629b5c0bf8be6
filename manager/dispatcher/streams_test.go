package dispatcher

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

// attach answers the next request for a stream.
func (p *puppet) attach() (wire.Open, wire.Attached) {
	p.t.Helper()
	var open wire.Open
	within(p.t, time.Second, "the manager asks for a stream", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.opens) == 0 {
			return false
		}
		open, p.opens = p.opens[0], p.opens[1:]
		return true
	})
	up, err := p.client.Attach(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	if err := up.Send(&wire.UpFrame{Stream: open.Stream}); err != nil {
		p.t.Fatal(err)
	}
	return open, up
}

func line(task swarm.TaskID, second int64, text string) swarm.LogLine {
	return swarm.LogLine{Task: task, At: time.Unix(second, 0), Text: []byte(text)}
}

func TestLogsOfSeveralNodesAreMergedByTime(t *testing.T) {
	m := newManager(t)
	m.shop(m.task(web1, "n1"), m.task(web2, "n2"), m.task("shop/web.3.c", "n3"))
	one, two := m.join("n1", wire.Held{}), m.join("n2", wire.Held{})
	go func() {
		_, up := one.attach()
		_ = up.Send(&wire.UpFrame{Lines: []swarm.LogLine{line(web1, 1, "a"), line(web1, 3, "c")}})
		_ = up.CloseSend()
	}()
	go func() {
		open, up := two.attach()
		if want := []swarm.TaskID{web2}; !slices.Equal(open.Logs.Tasks, want) || open.Logs.Tail != 7 {
			t.Errorf("n2 was asked for %+v", open.Logs)
		}
		_ = up.Send(&wire.UpFrame{Lines: []swarm.LogLine{line(web2, 2, "b"), line(web2, 4, "d")}})
		_ = up.Send(&wire.UpFrame{Error: "disk is broken"})
	}()

	var text string
	query := swarm.LogQuery{Tasks: []swarm.TaskID{web1, web2, "shop/web.3.c", "shop/web.4.d"}, Tail: 7}
	err := m.dispatcher.Logs(t.Context(), query, func(line swarm.LogLine) error {
		text += string(line.Text)
		return nil
	})
	if text != "abcd" {
		t.Errorf("lines came as %q", text)
	}
	for _, want := range []string{`task "shop/web.4.d" is unknown`, `node "n3" is not connected`, `node "n2": disk is broken`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}

func TestAFollowedLogEndsWithItsReader(t *testing.T) {
	m := newManager(t)
	m.shop(m.task(web1, "n1"))
	p := m.join("n1", wire.Held{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, up := p.attach()
		_ = up.Send(&wire.UpFrame{Lines: []swarm.LogLine{line(web1, 1, "a")}})
		_, err := up.Recv()
		ended <- err
	}()
	err := m.dispatcher.Logs(ctx, swarm.LogQuery{Tasks: []swarm.TaskID{web1}, Follow: true}, func(swarm.LogLine) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	select {
	case <-ended:
	case <-time.After(time.Second):
		t.Error("the agent still sends")
	}
}

func TestExecCarriesAConversation(t *testing.T) {
	m := newManager(t)
	m.shop(m.task(web1, "n1"))
	p := m.join("n1", wire.Held{})
	if _, err := m.dispatcher.Exec(t.Context(), swarm.ExecRequest{Task: web1}); err == nil || !strings.Contains(err.Error(), "it does not run") {
		t.Errorf("error is %v", err)
	}
	p.report(web1, swarm.TaskHealthy, "")
	within(t, time.Second, "the task is healthy", func() bool { return m.status(web1).State == swarm.TaskHealthy })

	go func() { // an agent that echoes
		_, up := p.attach()
		for {
			down, err := up.Recv()
			if err != nil {
				return
			}
			frame := swarm.ExecFrame{Stdout: down.Exec.Stdin}
			if down.Exec.EOF {
				frame = swarm.ExecFrame{Exit: new(3)}
			}
			_ = up.Send(&wire.UpFrame{Exec: &frame})
			if down.Exec.EOF {
				_ = up.CloseSend()
			}
		}
	}()
	exec, err := m.dispatcher.Exec(t.Context(), swarm.ExecRequest{Task: web1, Args: []string{"cat"}})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Close()
	for _, frame := range []swarm.ExecFrame{{Stdin: []byte("hello")}, {EOF: true}} {
		if err := exec.Send(frame); err != nil {
			t.Fatal(err)
		}
	}
	if frame, err := exec.Recv(); err != nil || string(frame.Stdout) != "hello" {
		t.Errorf("frame is %+v, %v", frame, err)
	}
	if frame, err := exec.Recv(); err != nil || frame.Exit == nil || *frame.Exit != 3 {
		t.Errorf("frame is %+v, %v", frame, err)
	}
	if _, err := exec.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("error is %v", err)
	}
}

func TestStatsComeFromEveryNode(t *testing.T) {
	m := newManager(t)
	m.shop(m.task(web1, "n1"), m.task(web2, "n2"))
	p := m.join("n1", wire.Held{})
	go func() {
		open, up := p.attach()
		_ = up.Send(&wire.UpFrame{Usage: []swarm.Usage{{Task: open.Stats[0], Memory: 7}}})
	}()
	usage, err := m.dispatcher.Stats(t.Context(), []swarm.TaskID{web1, web2})
	if len(usage) != 1 || usage[0].Memory != 7 {
		t.Errorf("usage is %+v", usage)
	}
	if err == nil || !strings.Contains(err.Error(), `node "n2" is not connected`) {
		t.Errorf("error is %v", err)
	}
}

func TestAStreamThatNobodyAskedForIsRefused(t *testing.T) {
	m := newManager(t)
	p := m.join("n1", wire.Held{})
	up, err := p.client.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Send(&wire.UpFrame{Stream: "made up"}); err != nil {
		t.Fatal(err)
	}
	if _, err := up.Recv(); err == nil || !strings.Contains(err.Error(), "nobody waits") {
		t.Errorf("error is %v", err)
	}
}

func TestAStreamWaitsForANodeThatHasYetToConnect(t *testing.T) {
	m := newManager(t)
	m.shop(m.task(web1, "n1"))
	if err := m.join("n1", wire.Held{}).client.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, time.Second, "the session is over", func() bool {
		m.dispatcher.mu.Lock()
		defer m.dispatcher.mu.Unlock()
		return m.dispatcher.sessions["n1"] == nil
	})

	answered := make(chan error, 1)
	go func() {
		_, err := m.dispatcher.Stats(t.Context(), []swarm.TaskID{web1})
		answered <- err
	}()
	_, up := m.join("n1", wire.Held{}).attach()
	if err := up.Send(&wire.UpFrame{Usage: []swarm.Usage{{Task: web1, Memory: 7}}}); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("error is %v", err)
	}
}
