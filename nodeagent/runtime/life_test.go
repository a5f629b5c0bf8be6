package runtime

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestRunsATaskToItsEndAndKeepsItsExitCode(t *testing.T) {
	c := started(t, shell(t, "echo out; echo err >&2; exit 3"))
	exit := ended(t, c.ID)
	if exit.Code != 3 || exit.OOM || exit.Lost || time.Since(exit.At) > time.Minute {
		t.Errorf("exit is %+v", exit)
	}
	if got := logOf(t, c.ID); !strings.Contains(got, "out\n") || !strings.Contains(got, "!err\n") {
		t.Errorf("log is %q", got)
	}

	r := shared.open(t)
	all, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		if o.ID == c.ID && (o.State != StateExited || o.Exit == nil || o.Exit.Code != 3 || o.SpecDigest != "sha256:00" || o.Slot != 1) {
			t.Errorf("observed %+v", o)
		}
	}
	if left := shims(r.config.Namespace); len(left) > 0 {
		t.Errorf("an ended task keeps its shim: %v", left)
	}
}

func TestCreateIsRepeatableAndStartsNothing(t *testing.T) {
	r := shared.open(t)
	c := named(t, "web")
	c.Spec = tinySpec(t)
	for range 2 {
		if err := r.Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if got := state(t, c.ID); got != StateCreated {
		t.Errorf("state is %s", got)
	}
	first, err := r.Start(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := r.Start(t.Context(), c.ID); err != nil || first != second || first == 0 {
		t.Errorf("started again: pid %d then %d, %v", first, second, err)
	}
	if got := state(t, c.ID); got != StateRunning {
		t.Errorf("state is %s", got)
	}
}

func state(t *testing.T, id swarm.TaskID) State {
	t.Helper()
	all, err := shared.open(t).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		if o.ID == id {
			return o.State
		}
	}
	return ""
}

func TestStopsByTheSignalThatTheTaskUnderstands(t *testing.T) {
	r := shared.open(t)
	spec := shell(t, "trap 'echo usr1; exit 7' USR1; echo ready; while :; do sleep 1000 & wait; done")
	spec.StopSignal = "SIGUSR1"
	c := started(t, spec)
	waitLog(t, c.ID, "ready")
	if err := r.Stop(t.Context(), c.ID, "", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if exit := ended(t, c.ID); exit.Code != 7 {
		t.Errorf("exit is %+v", exit)
	}
}

func waitLog(t *testing.T, id swarm.TaskID, text string) {
	t.Helper()
	err := eventually(10*time.Second, func() error {
		if !strings.Contains(logOf(t, id), text) {
			return errNotYet(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

type errNotYet string

func (e errNotYet) Error() string { return "there is not yet " + string(e) }

// snapshotDirs counts what containerd's snapshotter has on the disk.
func snapshotDirs(t *testing.T) int {
	t.Helper()
	dirs, err := filepath.Glob(shared.dir + "/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*")
	if err != nil {
		t.Fatal(err)
	}
	return len(dirs)
}

func TestKillsWhatOutlivesItsGrace(t *testing.T) {
	r := shared.open(t)
	c := started(t, shell(t, "trap '' TERM; echo ready; while :; do sleep 1000 & wait; done"))
	waitLog(t, c.ID, "ready")
	began := time.Now()
	if err := r.Stop(t.Context(), c.ID, "", 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("stop took %s", took)
	}
	if exit := ended(t, c.ID); exit.Code != 137 {
		t.Errorf("exit is %+v", exit)
	}
}

func TestTellsThatATaskRanOutOfMemory(t *testing.T) {
	spec := shell(t, "a=x; while :; do a=$a$a$a; done")
	spec.Limits.Memory = 16 << 20
	c := started(t, spec)
	if exit := ended(t, c.ID); !exit.OOM || exit.Code == 0 {
		t.Errorf("exit is %+v", exit)
	}
}

func TestRemoveLeavesNoTrace(t *testing.T) {
	r := shared.open(t)
	c := named(t, "web")
	c.Spec = tinySpec(t)
	layers := snapshotDirs(t)
	c.Spec.Files = []swarm.File{{Kind: swarm.FileSecret, Target: "/run/secrets/a", Content: "sha256:aa"}}
	c.Files = map[swarm.Digest][]byte{"sha256:aa": []byte("secret")}
	c.Spec.Mounts = []swarm.Mount{{Kind: swarm.MountVolume, Source: "data", Target: "/data"}, {Kind: swarm.MountVolume, Source: "data", Target: "/part", Subpath: "part"}}
	path, err := r.CreateVolume(swarm.NewVolumeID(c.Service.Stack(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	mkdir(t, path+"/part")
	start(t, c)
	inside(t, c.ID, "echo kept > /part/file")

	for range 2 {
		if err := r.Remove(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	if len(shared.exits.of(c.ID)) > 0 {
		t.Error("the end of a removed task is news")
	}
	cid := containerID(c.ID)
	for _, path := range []string{r.dir(cid), r.runDir(cid), "/sys/fs/cgroup/memory" + r.cgroup(cid)} {
		gone(t, path)
	}
	if err := eventually(10*time.Second, func() error {
		if now := snapshotDirs(t); now > layers {
			return errNotYet("its writable layer removed")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if got := read(t, path+"/part/file"); got != "kept\n" {
		t.Errorf("the volume holds %q", got)
	}
	if err := r.RemoveVolume(t.Context(), swarm.NewVolumeID(c.Service.Stack(), "data")); err != nil {
		t.Error(err)
	}
	gone(t, path)
}

func TestAContainerWhoseStartWasCutOffIsNotTakenForOneThatRuns(t *testing.T) {
	r := shared.open(t)
	c := named(t, "web")
	c.Spec = tinySpec(t)
	if err := r.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := r.writeStarted(containerID(c.ID), time.Now()); err != nil { // and here the daemon was killed
		t.Fatal(err)
	}
	state := func() State {
		all, err := r.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[slices.IndexFunc(all, func(o Observed) bool { return o.ID == c.ID })].State
	}
	if got := state(); got != StateCreated {
		t.Errorf("it is %s, want %s: nothing of it has run", got, StateCreated)
	}

	if _, err := r.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if got := state(); got != StateRunning {
		t.Errorf("after its start it is %s", got)
	}
	if got := inside(t, c.ID, "echo here"); got != "here\n" {
		t.Errorf("inside it says %q", got)
	}
	if _, err := r.Start(t.Context(), c.ID); err != nil {
		t.Errorf("a second start: %v, want nothing done", err)
	}
}
