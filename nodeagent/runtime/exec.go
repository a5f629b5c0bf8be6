package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gitswarm/gitswarm/swarm"
)

const (
	probeOutput = 4 << 10 // bytes of a probe's output that are kept
	pieceSize   = 32 << 10
	lastOutput  = 2 * time.Second
)

// ErrProbeTimeout says that a probe did not end in time and was killed.
var ErrProbeTimeout = errors.New("timed out")

// ExecStream is the caller's side of an Exec. Recv returns io.EOF when the
// caller has nothing more to say. Send and Recv are each called by one
// goroutine at a time.
type ExecStream interface {
	Send(frame swarm.ExecFrame) error
	Recv() (swarm.ExecFrame, error)
}

// Exec runs a process in a running task and returns when it has ended; the
// last frame sent carries its exit code. When ctx ends or the stream breaks
// the process is killed.
func (r *Runtime) Exec(ctx context.Context, request swarm.ExecRequest, stream ExecStream) error {
	ctx, cancel := context.WithCancelCause(r.namespaced(ctx))
	defer cancel(nil)
	p, err := r.process(ctx, request)
	if err != nil {
		return err
	}

	sender := &frameSender{stream: stream, broken: cancel}
	out := &frameWriter{sender, func(b []byte) swarm.ExecFrame { return swarm.ExecFrame{Stdout: b} }}
	fail := &frameWriter{sender, func(b []byte) swarm.ExecFrame { return swarm.ExecFrame{Stderr: b} }}
	var stdin *input
	reader, writer := io.Pipe()
	defer writer.Close()
	if request.Stdin {
		stdin = &input{Reader: reader, ended: make(chan struct{})}
	}

	code, err := r.run(ctx, p, stdin, out, fail, func(process client.Process) {
		hear(ctx, process, stream, writer, request)
	})
	if err != nil {
		return fmt.Errorf("exec in %s: %w", request.Task, errors.Join(err, context.Cause(ctx)))
	}
	if err := sender.send(swarm.ExecFrame{Exit: &code}); err != nil {
		return fmt.Errorf("exec in %s: %w", request.Task, err)
	}
	return nil
}

// hear hands on what the caller says until it says no more.
func hear(ctx context.Context, process client.Process, stream ExecStream, stdin *io.PipeWriter, request swarm.ExecRequest) {
	if request.Rows > 0 && request.Cols > 0 && request.TTY {
		_ = process.Resize(ctx, uint32(request.Cols), uint32(request.Rows)) // the process may be gone
	}
	for {
		frame, err := stream.Recv()
		if err != nil {
			stdin.Close()
			return
		}
		if frame.Rows > 0 && frame.Cols > 0 && request.TTY {
			_ = process.Resize(ctx, uint32(frame.Cols), uint32(frame.Rows))
		}
		if len(frame.Stdin) > 0 {
			if _, err := stdin.Write(frame.Stdin); err != nil {
				return // the process has closed its input
			}
		}
		if frame.EOF {
			stdin.Close()
		}
	}
}

// frameSender sends frames one at a time.
type frameSender struct {
	mu     sync.Mutex
	stream ExecStream
	broken context.CancelCauseFunc
}

func (s *frameSender) send(frame swarm.ExecFrame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.stream.Send(frame)
	if err != nil {
		s.broken(err)
	}
	return err
}

type frameWriter struct {
	sender *frameSender
	frame  func([]byte) swarm.ExecFrame
}

// Write sends b in pieces.
func (w *frameWriter) Write(b []byte) (int, error) {
	for piece := range slices.Chunk(b, pieceSize) {
		if err := w.sender.send(w.frame(bytes.Clone(piece))); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// Probe runs argv in a running task, as its health check does: with the
// container's own user, environment and working directory. output is what it
// wrote, cut off at 4 KiB. A probe that is not done after timeout is killed
// (ErrProbeTimeout).
func (r *Runtime) Probe(ctx context.Context, id swarm.TaskID, argv []string, timeout time.Duration) (exit int, output []byte, err error) {
	ctx, cancel := context.WithTimeoutCause(r.namespaced(ctx), timeout, ErrProbeTimeout)
	defer cancel()
	p, err := r.process(ctx, swarm.ExecRequest{Task: id, Args: argv})
	if err != nil {
		return 0, nil, err
	}

	var kept cappedBuffer
	exit, err = r.run(ctx, p, nil, &kept, &kept, nil)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return 0, kept.bytes(), fmt.Errorf("probe %s: %w", id, err)
	}
	return exit, kept.bytes(), nil
}

// cappedBuffer keeps the first probeOutput bytes.
type cappedBuffer struct {
	mu   sync.Mutex
	data []byte
}

// Write keeps what there is room for.
func (b *cappedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p[:min(len(p), probeOutput-len(b.data))]...)
	return len(p), nil
}

func (b *cappedBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.data)
}

// execution is a process to be run in a container.
type execution struct {
	life *life
	spec *specs.Process
}

// process describes what request asks for, on the ground of what the
// container's first process is.
func (r *Runtime) process(ctx context.Context, request swarm.ExecRequest) (*execution, error) {
	if len(request.Args) == 0 {
		return nil, contentError("exec in %s: no command", request.Task)
	}
	l, err := r.alive(request.Task)
	if err != nil {
		return nil, err
	}
	if l.over() || r.startedAt(containerID(request.Task)).IsZero() {
		return nil, environmentError("exec in %s: the task does not run: %w", request.Task, errdefs.ErrFailedPrecondition)
	}
	spec, err := l.container.Spec(ctx)
	if err != nil {
		return nil, environmentError("exec in %s: %w", request.Task, err)
	}

	p := *spec.Process
	p.Args, p.Terminal = request.Args, request.TTY
	p.Env = overlayEnv(p.Env, request.Env)
	if request.TTY {
		p.Env = overlayEnv([]string{"TERM=xterm"}, p.Env)
	}
	if request.WorkingDir != "" {
		p.Cwd = path.Join("/", request.WorkingDir)
	}
	if request.User != "" {
		err = r.become(ctx, l, request.User, &p)
	}
	return &execution{l, &p}, err
}

// become changes the process's user, and takes from a user that is not root
// what root alone has.
func (r *Runtime) become(ctx context.Context, l *life, name string, p *specs.Process) error {
	info, err := l.container.Info(ctx, client.WithoutRefreshedMetadata)
	if err != nil {
		return environmentError("find image: %w", err)
	}
	im, err := r.image(ctx, info.Image)
	if err != nil {
		return err
	}
	if p.User, err = im.accounts.user(name); err != nil {
		return err
	}
	caps := specs.LinuxCapabilities{Bounding: p.Capabilities.Bounding}
	if p.User.UID == 0 {
		caps.Effective, caps.Permitted = caps.Bounding, caps.Bounding
	}
	p.Capabilities = &caps
	return nil
}

// input is a process's standard input; it tells when all of it has been read.
type input struct {
	io.Reader
	ended chan struct{}
	once  sync.Once
}

// Read reads on.
func (i *input) Read(b []byte) (int, error) {
	n, err := i.Reader.Read(b)
	if err != nil {
		i.once.Do(func() { close(i.ended) })
	}
	return n, err
}

// run runs a process to its end. listen, if there is one, runs beside it and
// is not waited for: the caller may have nothing more to say for long.
func (r *Runtime) run(ctx context.Context, p *execution, stdin *input, stdout, stderr io.Writer, listen func(client.Process)) (code int, err error) {
	streams := cio.WithStreams(nil, stdout, stderr)
	if stdin != nil {
		streams = cio.WithStreams(stdin, stdout, stderr)
	}
	opts := []cio.Opt{streams, cio.WithFIFODir(filepath.Join(r.config.RunDir, "exec"))}
	if p.spec.Terminal {
		opts = append(opts, cio.WithTerminal)
	}
	process, err := p.life.task.Exec(ctx, "exec-"+chance(), p.spec, cio.NewCreator(opts...))
	if err != nil {
		return 0, judgeRunc("prepare process in", err)
	}
	defer r.forget(ctx, process)

	ended, err := process.Wait(ctx)
	if err != nil {
		return 0, err
	}
	if err := startWholly(ctx, process); err != nil {
		return 0, judgeRunc("start process in", err)
	}
	if listen != nil {
		go listen(process)
	}
	return p.wait(ctx, process, stdin, ended)
}

// startWholly starts a process, also where ctx ends meanwhile: the shim would go on
// with it, and a process that is half started can't be killed.
func startWholly(ctx context.Context, process client.Process) error {
	starting, cancel := context.WithTimeout(context.WithoutCancel(ctx), shortTimeout)
	defer cancel()
	return process.Start(starting)
}

// wait waits for the end of the process, and then for its last output, which
// a child of it may hold open for ever.
func (p *execution) wait(ctx context.Context, process client.Process, stdin *input, ended <-chan client.ExitStatus) (int, error) {
	var closed <-chan struct{}
	if stdin != nil {
		closed = stdin.ended
	}
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-closed:
			closed = nil
			_ = process.CloseIO(ctx, client.WithStdinCloser) // the process may be gone
		case status := <-ended:
			if err := status.Error(); err != nil {
				return 0, err
			}
			flushed := make(chan struct{})
			go func() {
				process.IO().Wait()
				close(flushed)
			}()
			select {
			case <-flushed:
			case <-time.After(lastOutput):
			}
			return int(status.ExitCode()), nil
		}
	}
}

// forget kills a process that still runs and removes its traces.
func (r *Runtime) forget(ctx context.Context, process client.Process) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shortTimeout)
	defer cancel()
	_, err := process.Delete(ctx, client.WithProcessKill)
	if err != nil && !errdefs.IsNotFound(err) && r.ctx.Err() == nil {
		r.log.Warn("exec was not cleaned up", "process", process.ID(), "err", err)
	}
	if io := process.IO(); io != nil {
		io.Cancel()
		io.Close()
	}
}
