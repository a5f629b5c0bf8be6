package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestAnEmptyVolumeBeginsWithWhatTheImageHasThere(t *testing.T) {
	r := shared.open(t)
	image, digest := push(t, "seeded:v1", v1.Config{Env: []string{"PATH=/bin"}, User: "1000"},
		entry{path: "store/", mode: 0o750, uid: 1000}, entry{path: "store/sub/", mode: 0o755, uid: 1000},
		entry{path: "store/sub/seed", mode: 0o640, data: "seed\n", uid: 1000}, entry{path: "store/out", link: "/etc/shadow"},
		entry{path: "linked", link: "/../../store"})
	if err := r.Pull(t.Context(), image, digest, nil); err != nil {
		t.Fatal(err)
	}
	spec := swarm.TaskSpec{Image: image, Manifest: digest}
	spec.Command = []string{"/bin/sh", "-c", "stat -c '%a %u' /data /data/sub/seed && cat /data/sub/seed && readlink /data/out; echo more >> /data/sub/seed; ls /bare; ls /other/sub"}
	spec.Mounts = []swarm.Mount{
		{Kind: swarm.MountVolume, Source: "bare", Target: "/store", NoCopy: true}, {Kind: swarm.MountVolume, Source: "bare", Target: "/bare"},
		{Kind: swarm.MountVolume, Source: "data", Target: "/data"},
		{Kind: swarm.MountVolume, Source: "linked", Target: "/other"},
	}
	spec.Mounts[2].Target = "/store/../data" // not in the image: nothing to copy
	c := named(t, "web")
	stack := c.Service.Stack()
	t.Cleanup(func() { dropVolumes(t, stack, "bare", "data", "linked") })

	// First through the image's own directory, then seen elsewhere.
	seed := spec
	seed.Command = []string{"/bin/true"}
	seed.Mounts = []swarm.Mount{{Kind: swarm.MountVolume, Source: "data", Target: "/store"}, {Kind: swarm.MountVolume, Source: "linked", Target: "/linked"}}
	first := named(t, "seed")
	first.Spec = seed
	start(t, first)
	if exit := ended(t, first.ID); exit.Code != 0 {
		t.Fatalf("exit is %+v", exit)
	}
	c.Spec = spec
	start(t, c)
	ended(t, c.ID)
	want(t, logOf(t, c.ID), "750 1000", "640 1000", "seed", "/etc/shadow", "seed")

	// A volume that has content is left alone.
	again := named(t, "again")
	again.Spec = seed
	again.Spec.Command = []string{"/bin/cat", "/store/sub/seed"}
	start(t, again)
	ended(t, again.ID)
	want(t, logOf(t, again.ID), "seed", "more")
}

func dropVolumes(t *testing.T, stack swarm.StackName, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := shared.runtime.RemoveVolume(context.Background(), swarm.NewVolumeID(stack, name)); err != nil && !errors.Is(err, ErrVolumeUsed) {
			t.Error(err)
		}
	}
}

func TestAVolumeInUseIsNotRemoved(t *testing.T) {
	r := shared.open(t)
	c := named(t, "web")
	c.Spec = tinySpec(t)
	c.Spec.Mounts = []swarm.Mount{{Kind: swarm.MountVolume, Source: "data", Target: "/data"}}
	start(t, c)
	id := swarm.NewVolumeID(c.Service.Stack(), "data")
	if err := r.RemoveVolume(t.Context(), id); !errors.Is(err, ErrVolumeUsed) || !strings.Contains(err.Error(), string(c.ID)) {
		t.Errorf("got %v", err)
	}
	volumes, err := r.Volumes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes {
		if v.ID == id && (len(v.Users) != 1 || v.Users[0] != c.ID || time.Since(v.Created) > time.Minute) {
			t.Errorf("volume is %+v", v)
		}
	}
	if err := r.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.RemoveVolume(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func TestVolumeNamesLeadNowhereElse(t *testing.T) {
	r := shared.open(t)
	for _, id := range []swarm.VolumeID{"", "x", "a/", "/b", "../b", "a/..", "a/b/c", "./b", "a/b\x00"} {
		if _, err := r.CreateVolume(id); err == nil {
			t.Errorf("made volume %q", id)
		}
		if err := r.RemoveVolume(t.Context(), id); err == nil {
			t.Errorf("removed volume %q", id)
		}
	}
}

func TestASubpathDoesNotLeaveItsVolume(t *testing.T) {
	r := shared.open(t)
	c := named(t, "web")
	id := swarm.NewVolumeID(c.Service.Stack(), "data")
	path, err := r.CreateVolume(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropVolumes(t, c.Service.Stack(), "data") })
	mkdir(t, path+"/etc")
	for name, target := range map[string]string{"up": "../../../../../../etc", "abs": "/etc"} {
		if err := os.Symlink(target, path+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	c.Spec = shell(t, "ls -A /up /abs | grep -v ':' | grep . || echo empty")
	for _, sub := range []string{"up", "abs"} {
		c.Spec.Mounts = append(c.Spec.Mounts, swarm.Mount{Kind: swarm.MountVolume, Source: "data", Target: "/" + sub, Subpath: sub})
	}
	start(t, c)
	ended(t, c.ID)
	want(t, logOf(t, c.ID), "empty")
	if err := r.Remove(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
}

func TestLogsFollowARunningTaskToItsEnd(t *testing.T) {
	r := shared.open(t)
	c := started(t, shell(t, "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done; printf last"))
	var got []string
	err := r.Logs(t.Context(), c.ID, swarm.LogQuery{Follow: true, Tail: -1}, func(l swarm.LogLine) error {
		if l.Task != c.ID || time.Since(l.At) > time.Minute {
			t.Errorf("line is %+v", l)
		}
		got = append(got, string(l.Text))
		return nil
	})
	if err != nil || strings.Join(got, ",") != "line 1,line 2,line 3,line 4,line 5,last" {
		t.Errorf("got %q, %v", got, err)
	}

	var tail []string
	err = r.LogsOf(t.Context(), swarm.LogQuery{Tasks: []swarm.TaskID{c.ID, "no/such"}, Tail: 2}, func(l swarm.LogLine) error {
		tail = append(tail, string(l.Text))
		return nil
	})
	if err != nil || fmt.Sprint(tail) != "[line 5 last]" {
		t.Errorf("tail is %q, %v", tail, err)
	}
}

func TestAFloodOfOutputIsRotatedAndSlowsNoOne(t *testing.T) {
	c := started(t, shell(t, "yes 0123456789012345678901234567890123456789 | head -c 45000000; echo over"))
	if exit := ended(t, c.ID); exit.Code != 0 {
		t.Fatalf("exit is %+v", exit)
	}
	dir := shared.runtime.logDir(containerID(c.ID))
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("%d log files, %v", len(entries), err)
	}
	var last string
	err = shared.runtime.Logs(t.Context(), c.ID, swarm.LogQuery{Tail: 1}, func(l swarm.LogLine) error { last = string(l.Text); return nil })
	if err != nil || !strings.HasSuffix(last, "over") {
		t.Errorf("the last line is %q, %v", last, err)
	}
}

func TestUsageIsWhatTheContainerConsumes(t *testing.T) {
	r := shared.open(t)
	spec := shell(t, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/fill/x bs=1M count=8 2>/dev/null; echo ready; sleep 1000")
	spec.Limits.Memory = 64 << 20
	spec.Mounts = []swarm.Mount{{Kind: swarm.MountTmpfs, Target: "/fill"}}
	c := started(t, spec)
	waitLog(t, c.ID, "ready")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			usage, err := r.Usage(t.Context(), []swarm.TaskID{"no/such", c.ID})
			if err != nil || len(usage) != 1 {
				t.Errorf("usage is %+v, %v", usage, err)
				return
			}
			u := usage[0]
			if u.Task != c.ID || u.CPU < time.Millisecond || u.Memory < 8<<20 || u.MemoryLimit != 64<<20 || u.Pids < 1 || u.At.IsZero() {
				t.Errorf("usage is %+v", u)
			}
		})
	}
	all.Wait()
}
