package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// clerk is what stands behind the API in a world: it proposes what operators
// ask, as the manager does, and its containers are processes of this machine.
type clerk struct {
	*world
	handedOver atomic.Bool // in the middle of an upgrade
}

func (c *clerk) AddSource(_ context.Context, source api.NewSource, by string) (swarm.SourceID, error) {
	if source.Credential.Password == "" && source.URL == "https://private.example/stacks.git" {
		return "", api.Invalid("the repository wants a token", "give --git-token-file")
	}
	c.do(store.Command{By: by, PutSource: &swarm.Source{
		ID: worldSource, URL: source.URL, Branch: source.Branch, Path: source.Path, Environment: source.Environment,
		Approved: source.Approved, Created: time.Now(),
	}})
	return worldSource, nil
}

func (c *clerk) RemoveSource(_ context.Context, id swarm.SourceID, by string) error {
	c.do(store.Command{By: by, RemoveSource: &id})
	return nil
}

// SyncSource finds one stack, which waits for approval unless the source may act.
func (c *clerk) SyncSource(context.Context, swarm.SourceID) error {
	source, _ := c.store.View().Source(worldSource)
	switch {
	case source.URL == "/gone.git":
		c.do(store.Command{SawSource: &store.SawSource{Source: worldSource, Status: swarm.SourceStatus{Problem: "repository /gone.git is not there", Since: time.Now()}}})
	case c.record("shop").Name == "" && source.Approved:
		c.accept("shop", c.render("shop", "3f2c91a", "Ana", "begin", []string{"web=2@web:1"}), nil)
	case c.record("shop").Name == "":
		c.hold([]string{"shop", "3f2c91a", "approval", "first sync of a new source", "plan-1"})
	}
	return nil
}

func (c *clerk) operate(by string, o store.Operate) error {
	_, err := c.store.Propose(context.Background(), store.Command{At: time.Now(), By: by, Operate: &o})
	return err
}

func (c *clerk) Approve(_ context.Context, plan, by string) ([]swarm.StackName, error) {
	var stacks []swarm.StackName
	for _, record := range c.store.View().Stacks() {
		if record.Problem != nil && record.Problem.Plan == plan {
			stacks = append(stacks, record.Name)
		}
	}
	return stacks, c.operate(by, store.Operate{Approve: plan})
}

func (c *clerk) Retry(_ context.Context, stack swarm.StackName, by string) error {
	return c.operate(by, store.Operate{Stack: stack, Retry: true})
}

func (c *clerk) Rollback(_ context.Context, stack swarm.StackName, to swarm.Revision, by string) (swarm.Revision, error) {
	record := c.record(string(stack))
	for _, ended := range record.History {
		if ended.To.Content != record.Accepted.Content && (to == "" || ended.To.Revision == to) {
			return ended.To.Revision, c.operate(by, store.Operate{Stack: stack, Rollback: &ended.To})
		}
	}
	return "", errors.New("roll back: there is no earlier healthy revision")
}

func (c *clerk) Redeploy(ctx context.Context, stack swarm.StackName, services []string, pull bool, by string) error {
	return c.Restart(ctx, stack, services, by)
}

func (c *clerk) Restart(_ context.Context, stack swarm.StackName, services []string, by string) error {
	if len(services) == 0 {
		for _, service := range c.content(c.record(string(stack)).Accepted.Content).Services {
			services = append(services, service.Name)
		}
	}
	err := c.operate(by, store.Operate{Stack: stack, Restart: services})
	c.settle(string(stack))
	return err
}

func (c *clerk) Scale(_ context.Context, stack swarm.StackName, replicas map[string]int, by string) error {
	err := c.operate(by, store.Operate{Stack: stack, Scale: replicas})
	c.settle(string(stack))
	return err
}

func (c *clerk) Suspend(_ context.Context, stack swarm.StackName, why, by string) error {
	return c.operate(by, store.Operate{Stack: stack, Suspend: &why})
}

func (c *clerk) Resume(_ context.Context, stack swarm.StackName, by string) error {
	empty := ""
	return c.operate(by, store.Operate{Stack: stack, Suspend: &empty})
}

func (c *clerk) ReleaseVolume(context.Context, swarm.VolumeID, swarm.NodeID, string) error {
	return nil
}

func (c *clerk) RemoveVolume(_ context.Context, volume swarm.VolumeID, node swarm.NodeID, by string) error {
	c.do(store.Command{By: by, DropVolumes: []swarm.KeptVolume{{ID: volume, Node: node}}})
	return nil
}

// Plan starts each file of a folder, and nothing of a commit.
func (c *clerk) Plan(_ context.Context, request api.PlanRequest) (api.PlanResult, error) {
	switch {
	case request.Ref == "nowhere":
		return api.PlanResult{}, errors.New("plan: no branch, tag or commit is named nowhere")
	case request.Dir == "":
		return api.PlanResult{Revision: commit("3f2c91a")}, nil
	}
	result := api.PlanResult{}
	err := filepath.WalkDir(request.Dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, _ := filepath.Rel(request.Dir, name)
		result.Stacks = append(result.Stacks, api.StackPlan{
			Name: swarm.StackName(filepath.Dir(relative)),
			Plan: swarm.Plan{Steps: []swarm.Step{
				{Verb: swarm.Start, Stack: "new", Service: "web", Slot: 1, Node: "w1", Why: "slot is empty"},
				{Verb: swarm.Replace, Stack: "new", Service: "db", Slot: 1, Node: "w1", Why: "image db:1 becomes db:2"},
			}},
		})
		return nil
	})
	return result, err
}

func (c *clerk) Logs(ctx context.Context, query swarm.LogQuery, emit func(swarm.LogLine) error) error {
	c.mu.Lock()
	lines := slices.Clone(c.lines)
	c.mu.Unlock()
	left := map[swarm.TaskID]int{}
	for _, line := range lines {
		left[line.Task]++
	}
	for _, line := range lines {
		left[line.Task]--
		wanted := slices.Contains(query.Tasks, line.Task) && !line.At.Before(query.Since)
		if wanted && (query.Tail < 0 || left[line.Task] < query.Tail) {
			if err := emit(line); err != nil {
				return err
			}
		}
	}
	if query.Follow {
		<-ctx.Done()
	}
	return nil
}

func (c *clerk) Stats(_ context.Context, tasks []swarm.TaskID) ([]swarm.Usage, error) {
	var usages []swarm.Usage
	for _, task := range tasks {
		usages = append(usages, swarm.Usage{
			Task: task, At: time.Now(), CPU: time.Duration(time.Now().UnixNano() / 4), Memory: 12 << 20, MemoryLimit: 64 << 20, Pids: 3,
		})
	}
	return usages, nil
}

// Exec runs a process of this machine.
func (c *clerk) Exec(ctx context.Context, request swarm.ExecRequest) (api.Conversation, error) {
	if request.Args[0] == "absent" {
		return nil, api.Invalid(fmt.Sprintf("%s has no command %q", request.Task, request.Args[0]), "")
	}
	process := exec.CommandContext(ctx, request.Args[0], request.Args[1:]...)
	process.Env = append(request.Env, "TASK="+string(request.Task), "PATH="+os.Getenv("PATH"),
		fmt.Sprintf("TERMINAL=%v %dx%d", request.TTY, request.Rows, request.Cols))
	talk := &talk{frames: make(chan swarm.ExecFrame), gone: make(chan struct{})}
	process.Stdout = writer(func(p []byte) { talk.send(swarm.ExecFrame{Stdout: bytes.Clone(p)}) })
	process.Stderr = writer(func(p []byte) { talk.send(swarm.ExecFrame{Stderr: bytes.Clone(p)}) })
	if request.Stdin {
		var err error
		if talk.stdin, err = process.StdinPipe(); err != nil {
			return nil, err
		}
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = process.Wait() // its exit code says it all
		code := process.ProcessState.ExitCode()
		talk.send(swarm.ExecFrame{Exit: &code})
		close(talk.frames)
	}()
	return talk, nil
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

type talk struct {
	stdin  io.WriteCloser
	frames chan swarm.ExecFrame
	once   sync.Once
	gone   chan struct{}
}

func (t *talk) send(frame swarm.ExecFrame) {
	select {
	case t.frames <- frame:
	case <-t.gone:
	}
}

func (t *talk) Send(frame swarm.ExecFrame) error {
	if frame.Rows > 0 { // the world's terminal shows its size
		t.send(swarm.ExecFrame{Stdout: fmt.Appendf(nil, "resized %dx%d\r\n", frame.Rows, frame.Cols)})
	}
	if t.stdin == nil {
		return nil
	}
	if frame.EOF {
		return t.stdin.Close()
	}
	_, err := t.stdin.Write(frame.Stdin)
	return err
}

func (t *talk) Recv() (swarm.ExecFrame, error) {
	frame, ok := <-t.frames
	if !ok {
		return frame, io.EOF
	}
	return frame, nil
}

func (t *talk) Close() error {
	t.once.Do(func() { close(t.gone) })
	return nil
}
