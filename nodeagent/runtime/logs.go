package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/nodeagent/runtime/tasklog"
	"github.com/gitswarm/gitswarm/swarm"
)

// Logs gives the lines of a task to emit, oldest first; the task need not run.
// With query.Follow it goes on until the task has ended or ctx ends.
// query.Tasks does not matter. A line's Text is valid until emit returns.
func (r *Runtime) Logs(ctx context.Context, id swarm.TaskID, query swarm.LogQuery, emit func(swarm.LogLine) error) error {
	q := tasklog.Query{Since: query.Since, Tail: query.Tail, Follow: query.Follow}
	if l, err := r.alive(id); err == nil {
		q.Ended = l.ended
	} else {
		q.Follow = false
	}
	err := tasklog.Read(ctx, r.logDir(containerID(id)), q, func(line tasklog.Line) error {
		return emit(swarm.LogLine{Task: id, At: line.At, Stderr: line.Stderr, Text: line.Text})
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read log of %s: %w", id, err)
	}
	return nil
}

// LogsOf is Logs of all tasks that query names. Lines of one task are in
// order; emit is never called twice at once.
func (r *Runtime) LogsOf(ctx context.Context, query swarm.LogQuery, emit func(swarm.LogLine) error) error {
	var one sync.Mutex
	all, ctx := errgroup.WithContext(ctx)
	for _, id := range query.Tasks {
		all.Go(func() error {
			return r.Logs(ctx, id, query, func(line swarm.LogLine) error {
				one.Lock()
				defer one.Unlock()
				return emit(line)
			})
		})
	}
	return all.Wait()
}
