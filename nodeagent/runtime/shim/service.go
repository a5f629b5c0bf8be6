package shim

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"

	"github.com/gitswarm/gitswarm/nodeagent/runtime/tasklog"
)

// scheme is that of the URLs that LogURL makes.
const scheme = "gitswarm-log"

// flushTimeout bounds how long a Delete waits for the last lines: a process
// outside of the container may hold its output open.
const flushTimeout = 2 * time.Second

// LogURL is what a task's stdout is set to so that the shim writes its log in
// dir. With stdin the task has a standard input that stays open and empty.
func LogURL(dir string, opts tasklog.Options, stdin bool) *url.URL {
	query := url.Values{}
	query.Set("size", strconv.FormatInt(opts.Size, 10))
	query.Set("files", strconv.Itoa(opts.Files))
	query.Set("stdin", strconv.FormatBool(stdin))
	return &url.URL{Scheme: scheme, Path: dir, RawQuery: query.Encode()}
}

// service is runc's task service with a log.
type service struct {
	task.TTRPCTaskService

	mu   sync.Mutex
	logs map[string]<-chan struct{} // by task, closed when its log is complete
}

func newService(inner any) (*service, error) {
	tasks, ok := inner.(task.TTRPCTaskService)
	if !ok {
		return nil, fmt.Errorf("wrap the task service: %T is none", inner)
	}
	return &service{TTRPCTaskService: tasks, logs: make(map[string]<-chan struct{})}, nil
}

// RegisterTTRPC makes the shim serve s instead of the service inside.
func (s *service) RegisterTTRPC(server *ttrpc.Server) error {
	task.RegisterTTRPCTaskService(server, s)
	return nil
}

// Create gives the task pipes that end in its log.
func (s *service) Create(ctx context.Context, r *task.CreateTaskRequest) (*task.CreateTaskResponse, error) {
	if !strings.HasPrefix(r.Stdout, scheme+":") {
		return s.TTRPCTaskService.Create(ctx, r)
	}

	p, err := openPipes(r)
	if err != nil {
		return nil, err
	}
	response, err := s.TTRPCTaskService.Create(ctx, r)
	if err != nil {
		p.abandon()
		return nil, err
	}
	p.handOver()

	s.mu.Lock()
	s.logs[r.ID] = p.write(ctx)
	s.mu.Unlock()
	return response, nil
}

// Delete returns when the log holds all that the task wrote.
func (s *service) Delete(ctx context.Context, r *task.DeleteRequest) (*task.DeleteResponse, error) {
	response, err := s.TTRPCTaskService.Delete(ctx, r)
	if err != nil || r.ExecID != "" {
		return response, err
	}

	s.mu.Lock()
	complete := s.logs[r.ID]
	delete(s.logs, r.ID)
	s.mu.Unlock()
	if complete != nil {
		select {
		case <-complete:
		case <-time.After(flushTimeout):
			log.G(ctx).WithField("id", r.ID).Warn("log is incomplete: output is still open")
		}
	}
	return response, nil
}

// pipes lead from a task to its log. The task service opens them again by
// their path under /proc, so nothing lies on a disk.
type pipes struct {
	log     *tasklog.Writer
	streams []stream
	given   []*os.File // the task service's ends
}

type stream struct {
	from   *os.File
	stderr bool
}

// openPipes opens the log that r.Stdout names and puts pipes in its place.
func openPipes(r *task.CreateTaskRequest) (_ *pipes, err error) {
	u, err := url.Parse(r.Stdout)
	if err != nil {
		return nil, fmt.Errorf("read log URL: %w", err)
	}
	size, err1 := strconv.ParseInt(u.Query().Get("size"), 10, 64)
	files, err2 := strconv.Atoi(u.Query().Get("files"))
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("read log URL: %w", err)
	}

	p := &pipes{}
	if p.log, err = tasklog.Create(u.Path, tasklog.Options{Size: size, Files: files}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.abandon()
		}
	}()

	if r.Stdout, err = p.output(false); err != nil {
		return nil, err
	}
	r.Stderr = ""
	if !r.Terminal {
		if r.Stderr, err = p.output(true); err != nil {
			return nil, err
		}
	}
	if r.Stdin = ""; u.Query().Get("stdin") == "true" {
		r.Stdin, err = p.input()
	}
	return p, err
}

// output makes a stream and returns the path of its writing end.
func (p *pipes) output(stderr bool) (string, error) {
	from, to, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("open output pipe: %w", err)
	}
	p.streams = append(p.streams, stream{from, stderr})
	p.given = append(p.given, to)
	return fdPath(to), nil
}

// input makes a pipe that the task service keeps open from both sides.
func (p *pipes) input() (string, error) {
	from, to, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("open input pipe: %w", err)
	}
	p.given = append(p.given, from, to)
	return fdPath(from), nil
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// handOver closes what the task service has opened for itself.
func (p *pipes) handOver() {
	for _, f := range p.given {
		f.Close()
	}
	p.given = nil
}

// abandon closes all that openPipes opened.
func (p *pipes) abandon() {
	p.handOver()
	for _, st := range p.streams {
		st.from.Close()
	}
	p.log.Close()
}

// write writes the log until all streams end, then closes the channel.
func (p *pipes) write(ctx context.Context) <-chan struct{} {
	var streams sync.WaitGroup
	for _, st := range p.streams {
		streams.Go(func() {
			defer st.from.Close()
			if err := p.log.Copy(st.from, st.stderr); err != nil {
				log.G(ctx).WithError(err).Error("log ended early")
			}
		})
	}

	complete := make(chan struct{})
	go func() {
		streams.Wait()
		p.log.Close()
		close(complete)
	}()
	return complete
}
