package dispatcher

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

// attachTimeout is how long an agent may take to dial back.
const attachTimeout = 5 * time.Second

// attached is a stream that an agent was asked for, from this manager's own
// agent or through another manager. Once it came, whoever asked owns it until
// close.
type attached struct {
	node   swarm.NodeID
	stream wire.Stream[wire.DownFrame, wire.UpFrame]
	came   chan struct{}
	over   chan struct{}
	close  func()
}

func newAttached(node swarm.NodeID) *attached {
	over := make(chan struct{})
	return &attached{node: node, came: make(chan struct{}), over: over, close: sync.OnceFunc(func() { close(over) })}
}

// open asks a node for a stream and waits for it, whichever manager has its
// session. passed counts the managers that the request came through.
func (d *Dispatcher) open(ctx context.Context, node swarm.NodeID, request wire.Open, passed int) (*attached, error) {
	address, err := d.find(ctx, node, passed)
	if err != nil {
		return nil, err
	}
	if address != "" {
		return d.relayed(ctx, address, node, request, passed)
	}

	request.Stream = rand.Text()
	a := newAttached(node)
	d.mu.Lock()
	s := d.sessions[node]
	if s == nil {
		d.mu.Unlock()
		return nil, fmt.Errorf("node %q is not connected", node)
	}
	d.awaited[request.Stream] = a
	s.opened = append(s.opened, request)
	s.poke()
	d.mu.Unlock()

	late := time.NewTimer(attachTimeout)
	defer late.Stop()
	select {
	case <-a.came:
		return a, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		err = fmt.Errorf("node %q did not answer within %s", node, attachTimeout)
	}
	a.close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.awaited, request.Stream)
	return nil, err
}

// Attach takes a stream that an agent was asked for, and holds it while its
// owner does.
func (d *Dispatcher) Attach(stream wire.Stream[wire.DownFrame, wire.UpFrame]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	d.mu.Lock()
	a := d.awaited[first.Stream]
	delete(d.awaited, first.Stream)
	d.mu.Unlock()
	if a == nil {
		return errors.New("nobody waits for this stream")
	}
	if err := d.authorize(stream.Context(), a.node); err != nil {
		return err
	}

	a.stream = stream
	close(a.came)
	select {
	case <-a.over:
	case <-stream.Context().Done():
	}
	return nil
}

// recv returns the agent's next frame; io.EOF after the last.
func (a *attached) recv() (*wire.UpFrame, error) {
	m, err := a.stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case err != nil:
		return nil, fmt.Errorf("node %q: %w", a.node, err)
	case m.Error != "":
		return nil, fmt.Errorf("node %q: %s", a.node, m.Error)
	}
	return m, nil
}

// Logs calls emit for each line, merged over tasks by time, and returns when
// there are no more, emit fails, or ctx ends. What a node cannot give is in
// the error, after the lines of the others.
func (d *Dispatcher) Logs(ctx context.Context, query swarm.LogQuery, emit func(swarm.LogLine) error) error {
	byNode, err := d.byNode(query.Tasks)
	var (
		sources []wire.Lines
		missing = []error{err}
	)
	for _, node := range byNode {
		part := query
		part.Tasks = node.tasks
		sources = append(sources, func(ctx context.Context, emit func(swarm.LogLine) error) error {
			return d.logsOf(ctx, node.id, part, emit)
		})
	}
	err = wire.MergeLines(ctx, sources, query.Follow, func(line swarm.LogLine, err error) error {
		if err != nil {
			missing = append(missing, err)
			return nil
		}
		return emit(line)
	})
	return errors.Join(append(missing, err)...)
}

func (d *Dispatcher) logsOf(ctx context.Context, node swarm.NodeID, query swarm.LogQuery, emit func(swarm.LogLine) error) error {
	a, err := d.open(ctx, node, wire.Open{Logs: &query}, 0)
	if err != nil {
		return fmt.Errorf("read logs: %w", err)
	}
	defer a.close()
	defer context.AfterFunc(ctx, a.close)()
	for {
		m, err := a.recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read logs: %w", err)
		}
		for _, line := range m.Lines {
			if err := emit(line); err != nil {
				return err
			}
		}
	}
}

// Exec is a process in a task. Send and Recv may be called at the same time.
type Exec struct {
	attached *attached
}

// Exec runs a process in a running task, until it exits, ctx ends, or Close.
func (d *Dispatcher) Exec(ctx context.Context, request swarm.ExecRequest) (*Exec, error) {
	task, known := d.config.Store.View().Task(request.Task)
	if !known || !task.Status.State.Running() {
		return nil, fmt.Errorf("exec in task %q: it does not run: `gitswarm ps` lists the tasks", request.Task)
	}
	a, err := d.open(ctx, task.Node, wire.Open{Exec: &request}, 0)
	if err != nil {
		return nil, fmt.Errorf("exec in task %q: %w", request.Task, err)
	}
	context.AfterFunc(ctx, a.close)
	return &Exec{attached: a}, nil
}

// Send gives the process a frame.
func (e *Exec) Send(frame swarm.ExecFrame) error {
	return e.attached.stream.Send(&wire.DownFrame{Exec: &frame})
}

// Recv returns the process's next frame, and io.EOF after the one with Exit.
func (e *Exec) Recv() (swarm.ExecFrame, error) {
	for {
		m, err := e.attached.recv()
		if err != nil {
			return swarm.ExecFrame{}, err
		}
		if m.Exec != nil {
			return *m.Exec, nil
		}
	}
}

// Close ends the process if it still runs.
func (e *Exec) Close() error {
	e.attached.close()
	return nil
}

// Stats returns what running tasks use, by task. What a node cannot give is in
// the error, beside the usage of the others.
func (d *Dispatcher) Stats(ctx context.Context, tasks []swarm.TaskID) ([]swarm.Usage, error) {
	byNode, err := d.byNode(tasks)
	var (
		mu      sync.Mutex
		usage   []swarm.Usage
		missing = []error{err}
		group   errgroup.Group
	)
	for _, node := range byNode {
		group.Go(func() error {
			part, err := d.statsOf(ctx, node.id, node.tasks)
			mu.Lock()
			defer mu.Unlock()
			usage, missing = append(usage, part...), append(missing, err)
			return nil
		})
	}
	_ = group.Wait()
	slices.SortFunc(usage, func(a, b swarm.Usage) int { return strings.Compare(string(a.Task), string(b.Task)) })
	return usage, errors.Join(missing...)
}

func (d *Dispatcher) statsOf(ctx context.Context, node swarm.NodeID, tasks []swarm.TaskID) ([]swarm.Usage, error) {
	a, err := d.open(ctx, node, wire.Open{Stats: tasks}, 0)
	if err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	defer a.close()
	defer context.AfterFunc(ctx, a.close)()
	m, err := a.recv()
	if err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	return m.Usage, nil
}

// nodeTasks are tasks on one node.
type nodeTasks struct {
	id    swarm.NodeID
	tasks []swarm.TaskID
}

// byNode sorts tasks by the node that they are on. Tasks that never had a node
// have nothing to show; unknown ones are an error beside the others.
func (d *Dispatcher) byNode(ids []swarm.TaskID) ([]nodeTasks, error) {
	view := d.config.Store.View()
	var (
		nodes   []nodeTasks
		unknown []error
	)
	for _, id := range ids {
		task, known := view.Task(id)
		if !known {
			unknown = append(unknown, fmt.Errorf("task %q is unknown: `gitswarm ps -a` lists the tasks", id))
			continue
		}
		at := slices.IndexFunc(nodes, func(n nodeTasks) bool { return n.id == task.Node })
		switch {
		case task.Node == "":
		case at < 0:
			nodes = append(nodes, nodeTasks{id: task.Node, tasks: []swarm.TaskID{id}})
		default:
			nodes[at].tasks = append(nodes[at].tasks, id)
		}
	}
	return nodes, errors.Join(unknown...)
}
