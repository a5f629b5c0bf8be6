package runtime

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestAHundredAtOnceAllStart(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	r := shared.open(t)
	spec := tinySpec(t)
	const count = 100
	began := time.Now()
	var all sync.WaitGroup
	ids := make([]swarm.TaskID, count)
	for i := range count {
		c := named(t, fmt.Sprintf("web%d", i))
		c.Spec = spec
		ids[i] = c.ID
		all.Go(func() {
			if err := r.Create(t.Context(), c); err != nil {
				t.Error(err)
				return
			}
			if _, err := r.Start(t.Context(), c.ID); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	t.Logf("%d started in %s", count, time.Since(began).Round(time.Millisecond))
	logShims(t, r.config.Namespace)

	usage, err := r.Usage(t.Context(), ids)
	if err != nil || len(usage) != count {
		t.Errorf("usage of %d: %v", len(usage), err)
	}
	began = time.Now()
	for _, id := range ids {
		all.Go(func() {
			if err := r.Remove(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	t.Logf("removed in %s", time.Since(began).Round(time.Millisecond))
}

// logShims logs what a shim costs.
func logShims(t *testing.T, namespace string) {
	t.Helper()
	sums, count := map[string]int{}, 0
	for _, pid := range shims(namespace) {
		data, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
		if err != nil {
			continue
		}
		count++
		for line := range strings.Lines(string(data)) {
			var name string
			var kib int
			if _, err := fmt.Sscanf(line, "%s %d kB", &name, &kib); err == nil {
				sums[name] += kib
			}
		}
	}
	if count > 0 {
		t.Logf("%d shims: PSS %d KiB each, of that anonymous %d, file %d", count, sums["Pss:"]/count, sums["Pss_Anon:"]/count, sums["Pss_File:"]/count)
	}
}

// BenchmarkStart compares Create and Start with containerd driven directly,
// same image, same concurrency, one after the other.
func BenchmarkStart(b *testing.B) {
	for _, count := range []int{1, 20} {
		b.Run(fmt.Sprintf("ours-%d", count), func(b *testing.B) { benchOurs(b, count) })
		b.Run(fmt.Sprintf("direct-%d", count), func(b *testing.B) { benchDirect(b, count) })
	}
}

func benchOurs(b *testing.B, count int) {
	r, spec := benchSpec(b)
	for b.Loop() {
		var all sync.WaitGroup
		ids := make([]swarm.TaskID, count)
		for i := range count {
			ids[i] = swarm.TaskID("bench/web." + chance())
			all.Go(func() {
				if err := r.Create(b.Context(), Container{ID: ids[i], Spec: spec, Service: "bench/web"}); err != nil {
					b.Error(err)
				}
				if _, err := r.Start(b.Context(), ids[i]); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
		b.StopTimer()
		for _, id := range ids {
			if err := r.Remove(b.Context(), id); err != nil {
				b.Error(err)
			}
		}
		b.StartTimer()
	}
}

func benchSpec(b *testing.B) (*Runtime, swarm.TaskSpec) {
	if tiny.image == "" {
		b.Skip("run it behind a test: -run TestRunsATask -bench Start")
	}
	return shared.runtime, swarm.TaskSpec{Image: tiny.image, Manifest: tiny.digest}
}

func benchDirect(b *testing.B, count int) {
	r, spec := benchSpec(b)
	ctx := r.namespaced(b.Context())
	name, err := imageName(spec.Image, spec.Manifest)
	if err != nil {
		b.Fatal(err)
	}
	image, err := r.client.GetImage(ctx, name)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var all sync.WaitGroup
		made := make([]client.Container, count)
		for i := range count {
			all.Go(func() {
				id := "direct-" + chance()
				c, err := r.client.NewContainer(ctx, id, client.WithImage(image), client.WithNewSnapshot(id, image),
					client.WithNewSpec(oci.WithImageConfig(image), oci.WithCgroup(r.cgroup(id))), client.WithRuntime(r.shim, nil))
				if err != nil {
					b.Error(err)
					return
				}
				made[i] = c
				task, err := c.NewTask(ctx, cio.LogFile(b.TempDir()+"/log"))
				if err != nil {
					b.Error(err)
					return
				}
				if err := task.Start(ctx); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
		b.StopTimer()
		for _, c := range made {
			dropDirect(b, r, c)
		}
		b.StartTimer()
	}
}

func dropDirect(b *testing.B, r *Runtime, c client.Container) {
	ctx := r.namespaced(b.Context())
	task, err := c.Task(ctx, nil)
	if err != nil {
		b.Fatal(err)
	}
	_ = task.Kill(ctx, syscall.SIGKILL)
	if _, err := task.Delete(ctx, client.WithProcessKill); err != nil {
		b.Error(err)
	}
	if err := c.Delete(ctx, client.WithSnapshotCleanup); err != nil {
		b.Error(err)
	}
}
