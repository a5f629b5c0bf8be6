package compose

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// worker owns one child process at a time.
type worker struct {
	limits Limits
	child  *child // nil until it is needed, and after a child that was killed
}

// maxAsks bounds the questions of a child about one project.
const maxAsks = 10_000

// child is a running process that loads projects.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *tail
	folder string
}

func start(limits Limits) (*child, error) {
	folder, err := os.MkdirTemp(limits.Folder, "gitswarm-compose-")
	if err != nil {
		return nil, fmt.Errorf("make folder for the compose loader: %w", err)
	}
	c := &child{folder: folder, stderr: &tail{}}
	c.cmd = exec.Command(limits.Executable, ChildArgument, folder, strconv.FormatInt(limits.Memory, 10))
	c.cmd.Env = []string{} // not one variable of this process may reach a stack
	c.cmd.Dir = folder
	c.cmd.Stderr = c.stderr
	c.cmd.WaitDelay = time.Second

	if err := c.run(); err != nil {
		os.RemoveAll(folder)
		return nil, fmt.Errorf("start compose loader %s: %w", limits.Executable, err)
	}
	return c, nil
}

func (c *child) run() (err error) {
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c.out = bufio.NewReader(out)
	return c.cmd.Start()
}

// end kills the process and waits for it.
func (c *child) end() {
	c.in.Close()
	c.cmd.Process.Kill()
	c.cmd.Wait() // it was killed: its status says nothing
	os.RemoveAll(c.folder)
}

func (w *worker) close() {
	if w.child != nil {
		w.child.end()
		w.child = nil
	}
}

// render has the child load one project. What the child dies of is a finding:
// another commit mends it.
func (w *worker) render(ctx context.Context, from *confined, project Project) (rendered, error) {
	if err := ctx.Err(); err != nil {
		return rendered{}, err
	}
	if w.child == nil {
		var err error
		if w.child, err = start(w.limits); err != nil {
			return rendered{}, err
		}
	}

	var late atomic.Bool
	process := w.child.cmd.Process
	timer := time.AfterFunc(w.limits.Wall, func() {
		late.Store(true)
		process.Kill()
	})
	stop := context.AfterFunc(ctx, func() { process.Kill() })
	result, failed, err := w.child.converse(from, project)
	stop()
	intime := timer.Stop()
	if err == nil && intime && ctx.Err() == nil {
		return result, failed
	}

	stderr := w.child
	w.close()
	if ctx.Err() != nil {
		return rendered{}, ctx.Err()
	}
	return died(project, w.limits, late.Load(), stderr, err)
}

// died says in words for people why a child ended early.
func died(project Project, limits Limits, late bool, c *child, cause error) (rendered, error) {
	said := c.stderr.text()
	status, _ := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	text := fmt.Sprintf("loading ends in an error: %s; please report this file", firstLine(said, cause))
	switch {
	case late:
		text = fmt.Sprintf("takes longer than %s to load; simplify it", limits.Wall)
	case status.Signaled() && status.Signal() == syscall.SIGXCPU:
		text = "takes too much CPU time to load; simplify it"
	case strings.Contains(said, "out of memory") || strings.Contains(said, "cannot allocate memory"):
		text = fmt.Sprintf("takes more than %s of memory to load; simplify it", size(limits.Memory))
	case strings.HasPrefix(said, "enclose "):
		return rendered{}, errors.New(strings.TrimSpace(said))
	}
	at := place{file: project.Dir}
	if len(project.Files) > 0 {
		at = place{project.Files[0], 1}
	}
	return rendered{Findings: []swarm.Finding{{Class: swarm.Refused, File: at.file, Line: at.line, Text: text}}}, nil
}

func firstLine(said string, cause error) string {
	if line, _, _ := strings.Cut(strings.TrimSpace(said), "\n"); line != "" {
		return line
	}
	return cause.Error()
}

// converse sends a project and answers questions until the result is there.
// Failed is an error of the tree; err one of the child.
func (c *child) converse(from *confined, project Project) (result rendered, failed, err error) {
	if err := writeFrame(c.in, frame{Render: &project}); err != nil {
		return rendered{}, nil, err
	}
	for range maxAsks {
		message, err := readFrame(c.out)
		switch {
		case err != nil:
			return rendered{}, nil, err
		case message.Done != nil:
			return *message.Done, nil, nil
		case message.Failed != "":
			return rendered{}, errors.New(message.Failed), nil
		case message.Ask == nil:
			return rendered{}, nil, errors.New("the compose loader sent an empty message")
		}
		reply := from.answer(*message.Ask)
		if err := writeFrame(c.in, frame{Answer: &reply}); err != nil {
			return rendered{}, nil, err
		}
	}
	return rendered{}, nil, fmt.Errorf("the compose loader asked for more than %d files", maxAsks)
}

// answer reads what the child asks for, within bounds of its own.
func (c *confined) answer(question ask) (reply answer) {
	var err error
	switch question.What {
	case "read":
		reply.Data, err = c.read(question.Path, min(max(question.Limit, 0), maxFileBytes))
	case "list":
		reply.Entries, err = c.list(question.Path)
		for _, name := range append(mainFiles(), overrideFiles()...) {
			c.reads[path.Join(question.Path, name)] = true // what is absent now may come
		}
	case "files":
		reply.Files, reply.Folder, err = c.files(question.Path, int(min(max(question.Limit, 0), maxRepoFiles)))
	default:
		err = fmt.Errorf("the compose loader asked to %q", question.What)
	}
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		return answer{Refused: refused.text, Absent: refused.absent}
	case err != nil:
		return answer{Failed: err.Error()}
	}
	return reply
}

// tail keeps the first bytes that a process says before it dies.
type tail struct{ buffer bytes.Buffer }

const maxTail = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.buffer.Write(p[:min(len(p), max(0, maxTail-t.buffer.Len()))])
	return len(p), nil
}

func (t *tail) text() string { return t.buffer.String() }
