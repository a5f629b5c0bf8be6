package shim

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
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

// settleTime is when a container has been created and started: what that took
// of memory is given back.
const settleTime = 3 * time.Second

// Sink is where a shim keeps what a task leaves.
type Sink struct {
	Dir    string // absolute: of the exit record; the log is in LogDir of it
	Log    tasklog.Options
	Stdin  bool   // the task has a standard input that stays open and empty
	Cgroup string // path of the task's control group
}

// LogDir is where the log of a task is whose Sink has the given Dir.
func LogDir(dir string) string { return filepath.Join(dir, "log") }

// URL is what the task's stdout is set to.
func (s Sink) URL() *url.URL {
	query := url.Values{}
	query.Set("size", strconv.FormatInt(s.Log.Size, 10))
	query.Set("files", strconv.Itoa(s.Log.Files))
	query.Set("stdin", strconv.FormatBool(s.Stdin))
	query.Set("cgroup", s.Cgroup)
	return &url.URL{Scheme: scheme, Path: s.Dir, RawQuery: query.Encode()}
}

// parseSink reads what URL wrote.
func parseSink(text string) (Sink, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Sink{}, fmt.Errorf("read log URL: %w", err)
	}
	query := u.Query()
	size, err1 := strconv.ParseInt(query.Get("size"), 10, 64)
	files, err2 := strconv.Atoi(query.Get("files"))
	stdin, err3 := strconv.ParseBool(query.Get("stdin"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return Sink{}, fmt.Errorf("read log URL: %w", err)
	}
	return Sink{Dir: u.Path, Log: tasklog.Options{Size: size, Files: files}, Stdin: stdin, Cgroup: query.Get("cgroup")}, nil
}

// service is runc's task service with a log and a record of the exit: a daemon
// that was away when the task ended finds both.
type service struct {
	task.TTRPCTaskService

	mu   sync.Mutex
	kept map[string]<-chan struct{} // by task, closed when log and record are complete
}

func newService(inner any) (*service, error) {
	tasks, ok := inner.(task.TTRPCTaskService)
	if !ok {
		return nil, fmt.Errorf("wrap the task service: %T is none", inner)
	}
	return &service{TTRPCTaskService: tasks, kept: make(map[string]<-chan struct{})}, nil
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

	sink, err := parseSink(r.Stdout)
	if err != nil {
		return nil, err
	}
	p, err := openPipes(r, sink)
	if err != nil {
		return nil, err
	}
	response, err := s.TTRPCTaskService.Create(ctx, r)
	if err != nil {
		p.abandon()
		return nil, err
	}
	p.handOver()

	var work sync.WaitGroup
	work.Go(func() { p.write(ctx) })
	work.Go(func() { s.recordExit(r.ID, sink) })
	time.AfterFunc(settleTime, debug.FreeOSMemory)
	kept := make(chan struct{})
	go func() {
		work.Wait()
		close(kept)
	}()
	s.mu.Lock()
	s.kept[r.ID] = kept
	s.mu.Unlock()
	return response, nil
}

// Delete returns when the log holds all that the task wrote, and the exit is
// recorded.
func (s *service) Delete(ctx context.Context, r *task.DeleteRequest) (*task.DeleteResponse, error) {
	response, err := s.TTRPCTaskService.Delete(ctx, r)
	if err != nil || r.ExecID != "" {
		return response, err
	}

	s.mu.Lock()
	kept := s.kept[r.ID]
	delete(s.kept, r.ID)
	s.mu.Unlock()
	if kept != nil {
		select {
		case <-kept:
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

// openPipes opens the log and puts pipes in the place of r's streams.
func openPipes(r *task.CreateTaskRequest, sink Sink) (_ *pipes, err error) {
	p := &pipes{}
	if p.log, err = tasklog.Create(LogDir(sink.Dir), sink.Log); err != nil {
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
	if r.Stdin = ""; sink.Stdin {
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

// write writes the log until all streams end.
func (p *pipes) write(ctx context.Context) {
	var streams sync.WaitGroup
	for _, st := range p.streams {
		streams.Go(func() {
			defer st.from.Close()
			if err := p.log.Copy(st.from, st.stderr); err != nil {
				log.G(ctx).WithError(err).Error("log ended early")
			}
		})
	}
	streams.Wait()
	p.log.Close()
}
