package api

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/swarm"
)

type logQuery struct {
	Target   string    `query:"target" maxLength:"512" doc:"STACK, STACK/SERVICE, STACK/SERVICE.SLOT, a task's id, or nothing for all"`
	Revision string    `query:"revision" maxLength:"255" doc:"only of tasks that this revision brought"`
	Follow   bool      `query:"follow" doc:"go on with new lines, also of new tasks"`
	Since    time.Time `query:"since" doc:"RFC 3339"`
	Tail     int       `query:"tail" minimum:"-1" default:"-1" doc:"last lines of each task; -1 means all"`
}

func (s *Server) logs(ctx context.Context, in *logQuery) (func(context.Context, emitter) error, error) {
	query := *in
	tasks, err := s.loggedTasks(ctx, query)
	if err != nil {
		return nil, err
	}
	if len(tasks) == 0 && query.Revision != "" && !query.Follow {
		return nil, NotFound(fmt.Sprintf("no task of %s is left that revision %s brought", query.Target, query.Revision),
			"gitswarm ps --all "+query.Target+" lists those that are kept")
	}
	return func(ctx context.Context, emit emitter) error {
		if !query.Follow {
			if len(tasks) == 0 {
				return nil
			}
			return s.Streams.Logs(ctx, swarm.LogQuery{Tasks: tasks, Since: query.Since, Tail: query.Tail}, lineEmitter(emit))
		}
		return s.followLogs(ctx, query, emit)
	}, nil
}

// loggedTasks lists the tasks whose lines are asked for: all that reached a
// node, ended ones included.
func (s *Server) loggedTasks(ctx context.Context, query logQuery) ([]swarm.TaskID, error) {
	shot, err := s.snapshotOf(ctx, query.Target)
	if err != nil {
		return nil, err
	}
	tasks, err := shot.tasksOf(query.Target)
	if err != nil {
		return nil, err
	}
	var ids []swarm.TaskID
	for _, task := range tasks {
		ofRevision := query.Revision == "" || Matches(task.Revision, query.Revision)
		if ofRevision && task.Node != "" && task.Status.State >= swarm.TaskStarting {
			ids = append(ids, task.ID)
		}
	}
	return ids, nil
}

// followLogs follows the tasks that are there and, as they come, their
// successors. One goroutine follows each batch of tasks that came together.
func (s *Server) followLogs(ctx context.Context, query logQuery, emit emitter) error {
	group, ctx := errgroup.WithContext(ctx)
	send := serial(lineEmitter(emit))
	changes := s.Changes()
	defer changes.Close()

	followed := map[swarm.TaskID]bool{}
	tail := query.Tail
	for {
		changed := changes.Next()
		tasks, err := s.loggedTasks(ctx, query)
		if err != nil {
			break // what was asked for is gone; those that are followed end by themselves
		}
		batch := swarm.LogQuery{Follow: true, Since: query.Since, Tail: tail}
		for _, id := range tasks {
			if !followed[id] {
				followed[id] = true
				batch.Tasks = append(batch.Tasks, id)
			}
		}
		if len(batch.Tasks) > 0 {
			group.Go(func() error { return s.Streams.Logs(ctx, batch, send) })
		}
		tail = -1
		if pause(ctx, changed, 0) != nil {
			break
		}
	}
	return group.Wait()
}

func lineEmitter(emit emitter) func(swarm.LogLine) error {
	return func(line swarm.LogLine) error {
		return emit(LogLine{
			Task: string(line.Task), At: line.At, Stderr: line.Stderr,
			Text: strings.ToValidUTF8(string(line.Text), "\uFFFD"),
		})
	}
}

// serial lets several goroutines use one emit.
func serial(emit func(swarm.LogLine) error) func(swarm.LogLine) error {
	var mu sync.Mutex
	return func(line swarm.LogLine) error {
		mu.Lock()
		defer mu.Unlock()
		return emit(line)
	}
}
