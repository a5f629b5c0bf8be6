package wire_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/dispatcher"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/nodeagent"
	"github.com/gitswarm/gitswarm/nodeagent/agenttest"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

// cluster is a real manager's side and a real agent over a unix socket; only
// containers and network are played.
type cluster struct {
	tb      testing.TB
	store   *store.Store
	blobs   *blobs.Blobs
	serve   *dispatcher.Dispatcher
	runtime *agenttest.Runtime
	network *agenttest.Network
	socket  string
	dir     string
}

func newCluster(tb testing.TB) *cluster {
	tb.Helper()
	dir := tb.TempDir()
	keyring, err := seal.Create(filepath.Join(dir, "keyring"))
	if err != nil {
		tb.Fatal(err)
	}
	c := &cluster{tb: tb, dir: dir, socket: filepath.Join(dir, "agents.sock"), runtime: agenttest.NewRuntime(), network: &agenttest.Network{}}
	if c.blobs, err = blobs.Open(filepath.Join(dir, "blobs"), keyring); err != nil {
		tb.Fatal(err)
	}
	if c.store, err = store.Open(store.Config{Dir: filepath.Join(dir, "store"), Node: "m1", Keyring: keyring}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.store.Close() })
	c.propose(store.Command{AcceptStacks: &store.AcceptStacks{Stacks: []store.AcceptStack{{Name: "shop", Head: swarm.Rendered{Revision: "main@sha1:1", Content: "sha256:1"}}}}})
	return c
}

// manage serves agents until the returned function is called.
func (c *cluster) manage() (stop func()) {
	listener, err := net.Listen("unix", c.socket)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.serve = dispatcher.New(dispatcher.Config{
		Local: "m1", Store: c.store, Blobs: c.blobs, Plain: func(swarm.NodeID) bool { return true },
	})
	return c.run(func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return c.serve.Run(ctx) })
		group.Go(func() error { return wire.Serve(ctx, listener, wire.Services{Agents: c.serve}) })
		return group.Wait()
	})
}

// work runs an agent until the returned function is called.
func (c *cluster) work() (stop func()) {
	agent := nodeagent.New(nodeagent.Config{
		Node: "n1", Dir: filepath.Join(c.dir, "agent"), Runtime: c.runtime, Network: c.network,
		Describe: func() swarm.NodeDescription { return swarm.NodeDescription{Hostname: "n1"} },
		Own:      func() string { return "own" },
		Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", c.socket)
		},
	})
	return c.run(agent.Run)
}

func (c *cluster) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			c.tb.Error(err)
		}
	}
	c.tb.Cleanup(stop)
	return stop
}

func (c *cluster) propose(command store.Command) {
	c.tb.Helper()
	command.At = time.Now()
	if _, err := c.store.Propose(context.Background(), command); err != nil {
		c.tb.Fatal(err)
	}
}

func (c *cluster) decide(d swarm.Decision) {
	c.tb.Helper()
	record, _ := c.store.View().Stack("shop")
	d.Stack, d.Version = "shop", record.Version
	c.propose(store.Command{Decide: &store.Decide{
		Decision:  d,
		Networks:  []swarm.AllocatedNetwork{{ID: "shop/default", Subnet: "10.0.0.0/16"}},
		Endpoints: []swarm.Endpoint{{Service: "shop/web", Mode: swarm.VIP, VIPs: []swarm.Address{{Network: "shop/default", IP: "10.0.0.2"}}}},
	}})
}

func (c *cluster) spec(spec swarm.TaskSpec) swarm.Digest {
	c.tb.Helper()
	data, err := codec.Encode(spec)
	if err != nil {
		c.tb.Fatal(err)
	}
	digest, err := c.blobs.Put(context.Background(), data)
	if err != nil {
		c.tb.Fatal(err)
	}
	return digest
}

func (c *cluster) tasks(spec swarm.Digest, n int, desired swarm.Desired) (tasks []swarm.Task) {
	for i := range n {
		tasks = append(tasks, swarm.Task{
			ID: swarm.TaskID(fmt.Sprintf("shop/web.%03d.a", i)), Service: "shop/web", Slot: i + 1, Node: "n1", Spec: spec, Desired: desired,
			Addresses: []swarm.Address{{Network: "shop/default", IP: fmt.Sprintf("10.0.1.%d", i)}},
		})
	}
	return tasks
}

func (c *cluster) within(claim string, holds func() bool) {
	c.tb.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			c.tb.Fatalf("it never is so that %s", claim)
		}
	}
}

// all reports whether every task of the stack is in the state.
func (c *cluster) all(state swarm.TaskState) bool {
	return !slices.ContainsFunc(c.store.View().Tasks("shop"), func(t swarm.Task) bool { return t.Status.State != state })
}

func TestARolloutStepGoesThroughManagerAndAgent(t *testing.T) {
	c := newCluster(t)
	c.manage()
	c.work()
	tasks := c.tasks(c.spec(swarm.TaskSpec{Image: "hello:1", StopGrace: time.Second}), 2, swarm.DesiredPrepare)
	c.decide(swarm.Decision{Create: tasks})
	c.within("both are prepared", func() bool { return c.all(swarm.TaskPrepared) })

	desire := func(id swarm.TaskID, desired swarm.Desired) {
		c.decide(swarm.Decision{Desire: []swarm.Desire{{Task: id, Desired: desired}}})
	}
	desire(tasks[0].ID, swarm.DesiredRun)
	desire(tasks[1].ID, swarm.DesiredRun)
	c.within("both are healthy", func() bool { return c.all(swarm.TaskHealthy) })
	c.within("both take connections", func() bool { return len(c.network.Backends("shop/web")) == 2 })

	desire(tasks[0].ID, swarm.DesiredDrain)
	c.within("the first is drained", func() bool {
		task, _ := c.store.View().Task(tasks[0].ID)
		return task.Status.Drained && task.Status.State == swarm.TaskHealthy
	})
	if got := c.network.Backends("shop/web"); !slices.Equal(got, []swarm.TaskID{tasks[1].ID}) {
		t.Errorf("backends are %v", got)
	}
	desire(tasks[0].ID, swarm.DesiredRemove)
	c.within("the first has stopped", func() bool {
		task, _ := c.store.View().Task(tasks[0].ID)
		return task.Status.State == swarm.TaskStopped
	})
	c.decide(swarm.Decision{Forget: []swarm.TaskID{tasks[0].ID}})
	c.within("only the second runs", func() bool { return slices.Equal(c.runtime.Running(), []swarm.TaskID{tasks[1].ID}) })
}

func TestNothingIsLostWhenEitherSideRestarts(t *testing.T) {
	c := newCluster(t)
	leave, rest := c.manage(), c.work()
	tasks := c.tasks(c.spec(swarm.TaskSpec{Image: "hello:1"}), 3, swarm.DesiredRun)
	c.decide(swarm.Decision{Create: tasks})
	c.within("all are healthy", func() bool { return c.all(swarm.TaskHealthy) })
	c.runtime.Told()

	leave()
	c.runtime.End(tasks[0].ID, runtime.Exit{Code: 7}) // nobody hears it
	rest()
	c.runtime.End(tasks[1].ID, runtime.Exit{Code: 8}) // not even the agent
	c.work()
	c.manage()
	c.within("both ends are known", func() bool {
		one, _ := c.store.View().Task(tasks[0].ID)
		two, _ := c.store.View().Task(tasks[1].ID)
		return one.Status.State == swarm.TaskFailed && *one.Status.Exit == 7 && two.Status.State == swarm.TaskFailed && *two.Status.Exit == 8
	})
	if told := c.runtime.Told(); len(told) != 0 {
		t.Errorf("the restarts touched containers: %v", told)
	}
	if got := c.runtime.Running(); !slices.Equal(got, []swarm.TaskID{tasks[2].ID}) {
		t.Errorf("running are %v", got)
	}
}

func TestLogsAndExecGoThrough(t *testing.T) {
	c := newCluster(t)
	c.manage()
	c.work()
	tasks := c.tasks(c.spec(swarm.TaskSpec{}), 3, swarm.DesiredRun)
	c.decide(swarm.Decision{Create: tasks})
	c.within("all are healthy", func() bool { return c.all(swarm.TaskHealthy) })

	var lines int
	query := swarm.LogQuery{Tasks: []swarm.TaskID{tasks[0].ID, tasks[1].ID, tasks[2].ID}}
	err := c.serve.Logs(t.Context(), query, func(line swarm.LogLine) error {
		lines++
		return nil
	})
	if err != nil || lines != 3 {
		t.Errorf("%d lines, %v", lines, err)
	}

	exec, err := c.serve.Exec(t.Context(), swarm.ExecRequest{Task: tasks[0].ID, Args: []string{"cat"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Close()
	for i := range 1000 {
		if err := exec.Send(swarm.ExecFrame{Stdin: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
		frame, err := exec.Recv()
		if err != nil || string(frame.Stdout) != fmt.Sprint(i) {
			t.Fatalf("frame %d is %q, %v", i, frame.Stdout, err)
		}
	}
	if err := exec.Send(swarm.ExecFrame{EOF: true}); err != nil {
		t.Fatal(err)
	}
	if frame, err := exec.Recv(); err != nil || frame.Exit == nil {
		t.Errorf("last frame is %+v, %v", frame, err)
	}
	usage, err := c.serve.Stats(t.Context(), query.Tasks)
	if err != nil || len(usage) != 3 {
		t.Errorf("usage is %v, %v", usage, err)
	}
}

// The own overhead of both sides: from a decision in the log to the
// container's start asked for, and back to its status in the log.
func BenchmarkFromDecisionToRunningStatus(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n, " tasks"), func(b *testing.B) {
			c := newCluster(b)
			c.manage()
			c.work()
			spec := c.spec(swarm.TaskSpec{Image: "hello:1"})
			round := 0
			for b.Loop() {
				round++
				tasks := c.tasks(spec, n, swarm.DesiredRun)
				var old []swarm.TaskID
				for i := range tasks {
					tasks[i].ID = swarm.TaskID(fmt.Sprintf("%s%d", tasks[i].ID, round))
				}
				for _, task := range c.store.View().Tasks("shop") {
					old = append(old, task.ID)
				}
				c.decide(swarm.Decision{Create: tasks, Forget: old})
				c.within("all are healthy", func() bool { return c.all(swarm.TaskHealthy) })
			}
		})
	}
}
