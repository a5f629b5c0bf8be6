package nodeagent

import (
	"bytes"
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	maxAttached   = 128       // streams at once; more are refused
	maxBatch      = 256       // lines of one frame
	maxBatchBytes = 256 << 10 // text of one frame
	maxLine       = 16 << 10  // bytes of one line
)

// attach serves one stream that the manager asked for, until either end has
// had enough.
func (a *Agent) attach(ctx context.Context, client *wire.Client, open wire.Open, room chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up, err := client.Attach(ctx)
	if err != nil {
		return // the manager is gone, and its asking with it
	}
	if err := up.Send(&wire.UpFrame{Stream: open.Stream}); err != nil {
		return
	}

	restart := false
	heard := make(chan swarm.ExecFrame)
	go func() { // ends with the stream
		defer close(heard)
		defer cancel() // the manager has had enough
		hearFrames(ctx, up, heard)
	}()
	select {
	case room <- struct{}{}:
		if open.Upgrade != nil {
			restart, err = a.serveUpgrade(ctx, up, *open.Upgrade)
		} else {
			err = a.fill(ctx, up, open, heard)
		}
		<-room
	default:
		err = errors.New("the node serves too many streams: close some")
	}
	if err != nil && ctx.Err() == nil {
		_ = up.Send(&wire.UpFrame{Error: err.Error()})
	}
	_ = up.CloseSend()
	for range heard { // until the manager has read it all
	}
	if restart {
		a.config.Restart()
	}
}

func hearFrames(ctx context.Context, up wire.Attached, heard chan<- swarm.ExecFrame) {
	for {
		down, err := up.Recv()
		if err != nil {
			return
		}
		if down.Exec == nil {
			continue
		}
		select {
		case heard <- *down.Exec:
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) fill(ctx context.Context, up wire.Attached, open wire.Open, heard <-chan swarm.ExecFrame) error {
	switch {
	case open.Exec != nil:
		return a.serveExec(ctx, up, *open.Exec, heard)
	case open.Logs != nil:
		return a.serveLogs(ctx, up, *open.Logs)
	default:
		usage, err := a.config.Runtime.Usage(ctx, open.Stats)
		if err != nil {
			return err
		}
		return up.Send(&wire.UpFrame{Usage: usage})
	}
}

// serveLogs sends the lines of the query's tasks in the order of their times,
// as many in a frame as there are at the moment.
func (a *Agent) serveLogs(ctx context.Context, up wire.Attached, query swarm.LogQuery) error {
	var sources []wire.Lines
	for _, task := range query.Tasks {
		sources = append(sources, func(ctx context.Context, emit func(swarm.LogLine) error) error {
			return a.config.Runtime.Logs(ctx, task, query, func(line swarm.LogLine) error {
				line.Text = bytes.Clone(line.Text[:min(len(line.Text), maxLine)]) // theirs until we return
				return emit(line)
			})
		})
	}

	group, ctx := errgroup.WithContext(ctx)
	lines := make(chan swarm.LogLine, maxBatch)
	group.Go(func() error {
		defer close(lines)
		return wire.MergeLines(ctx, sources, query.Follow, func(line swarm.LogLine, err error) error {
			if err != nil {
				return err
			}
			select {
			case lines <- line:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	group.Go(func() error {
		for line := range lines {
			if err := up.Send(&wire.UpFrame{Lines: batch(line, lines)}); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// batch takes the lines that are ready.
func batch(first swarm.LogLine, lines <-chan swarm.LogLine) []swarm.LogLine {
	out, size := []swarm.LogLine{first}, len(first.Text)
	for len(out) < maxBatch && size < maxBatchBytes {
		select {
		case line, ok := <-lines:
			if !ok {
				return out
			}
			out, size = append(out, line), size+len(line.Text)
		default:
			return out
		}
	}
	return out
}

// serveExec runs a process and carries its conversation, until it has exited or
// the manager hangs up.
func (a *Agent) serveExec(ctx context.Context, up wire.Attached, request swarm.ExecRequest, heard <-chan swarm.ExecFrame) error {
	return a.config.Runtime.Exec(ctx, request, conversation{up: up, heard: heard})
}

// conversation is the manager's side of a process.
type conversation struct {
	up    wire.Attached
	heard <-chan swarm.ExecFrame
}

// Send takes a frame of the process to the manager.
func (c conversation) Send(frame swarm.ExecFrame) error {
	return c.up.Send(&wire.UpFrame{Exec: &frame})
}

// Recv gives what the manager says to the process.
func (c conversation) Recv() (swarm.ExecFrame, error) {
	frame, more := <-c.heard
	if !more {
		return frame, io.EOF
	}
	return frame, nil
}
