package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// order is a line that a test gives to a daemon process, and answer what comes
// back.
type order struct {
	Do     string
	Task   swarm.TaskID
	Spec   swarm.TaskSpec
	Script string
}

type answer struct {
	Err   string
	Out   string
	Pid   int
	All   []Observed
	Exits []Exit
}

// daemon is a process with a Runtime that takes orders until its input ends.
func daemon() int {
	var config Config
	if err := json.Unmarshal([]byte(os.Getenv(daemonEnv)), &config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	config.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r, err := Open(context.Background(), config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer r.Close()
	fmt.Println(`{}`)

	in := json.NewDecoder(os.Stdin)
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return 0
		}
		a, err := obey(r, o)
		if err != nil {
			a.Err = err.Error()
		}
		if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
			return 1
		}
	}
}

func obey(r *Runtime, o order) (a answer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	switch o.Do {
	case "pull":
		return a, r.Pull(ctx, o.Spec.Image, o.Spec.Manifest, nil)
	case "create":
		return a, r.Create(ctx, Container{ID: o.Task, Spec: o.Spec, SpecDigest: "sha256:11", Service: "shop/web", Slot: 1})
	case "start":
		a.Pid, err = r.Start(ctx, o.Task)
	case "stop":
		return a, r.Stop(ctx, o.Task, "", time.Second)
	case "remove":
		return a, r.Remove(ctx, o.Task)
	case "list":
		a.All, err = r.List(ctx)
	case "probe":
		_, out, err := r.Probe(ctx, o.Task, []string{"/bin/sh", "-c", o.Script}, 5*time.Second)
		return answer{Out: string(out)}, err
	case "exits":
		for {
			select {
			case e := <-r.Exits():
				a.Exits = append(a.Exits, e)
			case <-time.After(300 * time.Millisecond): // what was missed is told at once
				return a, nil
			}
		}
	case "logs":
		var out strings.Builder
		err = r.Logs(ctx, o.Task, swarm.LogQuery{Tail: -1}, func(l swarm.LogLine) error {
			fmt.Fprintf(&out, "%s\n", l.Text)
			return nil
		})
		a.Out = out.String()
	case "sweep":
		return a, r.Sweep(ctx, func(id swarm.TaskID) bool { return id == o.Task })
	}
	return a, err
}

// remote is a daemon process as its test sees it.
type remoteDaemon struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// daemonConfig is that of a daemon with data of its own; what it leaves is
// removed.
func daemonConfig(t *testing.T) Config {
	t.Helper()
	shared.open(t) // the registry and the image
	run, err := os.MkdirTemp("/run", "gsrt-")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/tmp", "gsrt-")
	if err != nil {
		t.Fatal(err)
	}
	places.Store(run, dir)
	config := Config{Dir: dir, RunDir: run, Namespace: filepath.Base(run), Shim: shared.shim}
	t.Cleanup(func() {
		d := launch(t, config)
		d.do(order{Do: "sweep"})
		if err := leftovers(run); err != nil {
			t.Error(err)
		}
		d.stop()
		places.Delete(run)
		for _, dir := range []string{run, dir} {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		}
	})
	return config
}

func launch(t *testing.T, config Config) *remoteDaemon {
	t.Helper()
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &remoteDaemon{t: t, cmd: exec.Command(self)}
	d.cmd.Env = append(os.Environ(), daemonEnv+"="+string(data))
	d.cmd.Stderr = os.Stderr
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.cmd.Process.Kill() })
	d.out = bufio.NewScanner(out)
	d.out.Buffer(nil, 1<<20)
	d.read()
	return d
}

func (d *remoteDaemon) read() (a answer) {
	d.t.Helper()
	if !d.out.Scan() {
		d.t.Fatalf("the daemon is gone: %v", d.out.Err())
	}
	if err := json.Unmarshal(d.out.Bytes(), &a); err != nil {
		d.t.Fatal(err)
	}
	if a.Err != "" {
		d.t.Fatal(a.Err)
	}
	return a
}

func (d *remoteDaemon) do(o order) answer {
	d.t.Helper()
	if err := json.NewEncoder(d.in).Encode(o); err != nil {
		d.t.Fatal(err)
	}
	return d.read()
}

func (d *remoteDaemon) stop() {
	d.in.Close()
	_ = d.cmd.Wait()
}

func (d *remoteDaemon) kill() {
	_ = d.cmd.Process.Signal(syscall.SIGKILL)
	_ = d.cmd.Wait()
}

// observed finds one task in a list.
func observed(t *testing.T, all []Observed, id swarm.TaskID) Observed {
	t.Helper()
	for _, o := range all {
		if o.ID == id {
			return o
		}
	}
	t.Fatalf("%s is not in %+v", id, all)
	return Observed{}
}

func TestAKilledDaemonLosesNoContainerNoLineAndNoExit(t *testing.T) {
	config := daemonConfig(t)
	ticker := shell(t, "trap 'echo term; exit 0' TERM; i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done")
	short := shell(t, "sleep 0.5; exit 42")

	d := launch(t, config)
	d.do(order{Do: "pull", Spec: ticker})
	pids := make(map[swarm.TaskID]int)
	for i := range 10 {
		id := swarm.TaskID("shop/web." + strconv.Itoa(i) + ".abc")
		d.do(order{Do: "create", Task: id, Spec: ticker})
		pids[id] = d.do(order{Do: "start", Task: id}).Pid
	}
	d.do(order{Do: "create", Task: "shop/job", Spec: short})
	d.do(order{Do: "create", Task: "shop/later", Spec: ticker})
	d.do(order{Do: "start", Task: "shop/job"})
	d.kill()
	time.Sleep(700 * time.Millisecond) // the job ends while there is no daemon

	d = launch(t, config)
	all := d.do(order{Do: "list"}).All
	for id, pid := range pids {
		if o := observed(t, all, id); o.State != StateRunning || o.Pid != pid || o.SpecDigest != "sha256:11" || o.Started.IsZero() {
			t.Errorf("adopted %+v, want pid %d", o, pid)
		}
	}
	if o := observed(t, all, "shop/later"); o.State != StateCreated {
		t.Errorf("adopted %+v", o)
	}
	if exits := d.do(order{Do: "exits"}).Exits; len(exits) != 1 || exits[0].ID != "shop/job" || exits[0].Code != 42 || exits[0].Lost {
		t.Errorf("exits are %+v", exits)
	}

	// The log has no gap, and the adopted containers obey.
	d.do(order{Do: "stop", Task: "shop/web.3.abc"})
	lines := strings.Split(strings.TrimSpace(d.do(order{Do: "logs", Task: "shop/web.3.abc"}).Out), "\n")
	for i, line := range lines[:len(lines)-1] {
		if line != "tick "+strconv.Itoa(i+1) {
			t.Fatalf("line %d of %d is %q", i, len(lines), line)
		}
	}
	if last := lines[len(lines)-1]; last != "term" || len(lines) < 12 {
		t.Errorf("%d lines, the last is %q", len(lines), last)
	}
	if out := d.do(order{Do: "probe", Task: "shop/web.4.abc", Script: "echo alive"}).Out; out != "alive\n" {
		t.Errorf("probe gives %q", out)
	}
	d.do(order{Do: "start", Task: "shop/later"})
	d.do(order{Do: "sweep", Task: "shop/later"})
	if all := d.do(order{Do: "list"}).All; len(all) != 1 || all[0].State != StateRunning {
		t.Errorf("sweep left %+v", all)
	}
	d.stop()
}

func TestATaskWhoseShimIsKilledEndsAsLost(t *testing.T) {
	config := daemonConfig(t)
	d := launch(t, config)
	spec := tinySpec(t)
	d.do(order{Do: "pull", Spec: spec})
	d.do(order{Do: "create", Task: "shop/web", Spec: spec})
	pid := d.do(order{Do: "start", Task: "shop/web"}).Pid

	for _, shim := range shims(config.Namespace) {
		number, err := strconv.Atoi(shim)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(number, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	var exits []Exit
	err := eventually(10*time.Second, func() error {
		if exits = append(exits, d.do(order{Do: "exits"}).Exits...); len(exits) == 0 {
			return fmt.Errorf("the end is not told")
		}
		return nil
	})
	if err != nil || len(exits) != 1 || exits[0].Code != 137 {
		t.Errorf("exits are %+v: %v", exits, err)
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err == nil && !strings.Contains(string(status), "State:\tZ") {
		t.Errorf("process %d still runs:\n%s", pid, status)
	}
	d.stop()
}

func TestAnotherBuildStopsWhatThisOneStarted(t *testing.T) {
	config := daemonConfig(t)
	d := launch(t, config)
	spec := tinySpec(t)
	d.do(order{Do: "pull", Spec: spec})
	d.do(order{Do: "create", Task: "shop/old", Spec: spec})
	d.do(order{Do: "start", Task: "shop/old"})
	d.stop()

	upgraded := config
	upgraded.Shim = "/proc/self/exe" // the test binary: another build
	d = launch(t, upgraded)
	builds, _ := filepath.Glob(config.Dir + "/bin/*")
	if len(builds) != 2 {
		t.Errorf("kept builds are %v", builds)
	}
	d.do(order{Do: "create", Task: "shop/new", Spec: spec})
	d.do(order{Do: "start", Task: "shop/new"})
	d.do(order{Do: "probe", Task: "shop/old", Script: "true"})
	d.do(order{Do: "stop", Task: "shop/old"})
	d.do(order{Do: "sweep", Task: "shop/new"})
	if builds, _ = filepath.Glob(config.Dir + "/bin/*"); len(builds) != 1 {
		t.Errorf("kept builds are %v", builds)
	}
	d.do(order{Do: "remove", Task: "shop/new"})
	d.stop()
}

func TestSweepRemovesWhatAnInterruptedCreateLeft(t *testing.T) {
	config := daemonConfig(t)
	d := launch(t, config)
	spec := tinySpec(t)
	spec.Files = []swarm.File{{Kind: swarm.FileConfig, Target: "/c", Content: "sha256:01"}}
	d.do(order{Do: "pull", Spec: spec})

	cid := containerID("shop/web")
	for _, dir := range []string{config.Dir + "/tasks/" + cid + "/log", config.RunDir + "/tasks/" + cid + "/files"} {
		mkdir(t, dir)
	}
	if err := syscall.Mount("x", config.RunDir+"/tasks/"+cid+"/files", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	d.do(order{Do: "sweep"})
	gone(t, config.Dir+"/tasks/"+cid)
	gone(t, config.RunDir+"/tasks/"+cid)
	d.stop()
}
