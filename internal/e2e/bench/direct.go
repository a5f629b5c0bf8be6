package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	atOnce = 8               // containers started side by side; the agent's number, too
	grace  = 2 * time.Second // between SIGTERM and SIGKILL, on both sides
)

// direct is containerd without gitswarm around it.
type direct struct {
	*observer
	runtime  *runtime.Runtime
	dirs     []string
	registry string
	ids      []swarm.TaskID // containers that are there, oldest first
	made     int

	mu     sync.Mutex
	deaths map[swarm.TaskID]chan struct{}
}

func openDirect(ctx context.Context, l *lab.Lab) (*direct, error) {
	run, err := os.MkdirTemp("/run", "gitswarm-lab-")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.Dir, "direct")
	namespace := filepath.Base(run)
	d := &direct{observer: newObserver(namespace), dirs: []string{run, dir}, registry: l.Registry, deaths: make(map[swarm.TaskID]chan struct{})}
	d.runtime, err = runtime.Open(ctx, runtime.Config{
		Dir: dir, RunDir: run, Namespace: namespace, Shim: l.Bin + "-shim", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, fmt.Errorf("drive containerd directly: %w", err)
	}
	go func() { // ends with the program
		for exit := range d.runtime.Exits() {
			close(d.death(exit.ID))
		}
	}()
	return d, nil
}

// death is a channel that is closed when the container ends.
func (d *direct) death(id swarm.TaskID) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaths[id] == nil {
		d.deaths[id] = make(chan struct{})
	}
	return d.deaths[id]
}

// exited waits for a container's end.
func (d *direct) exited(ctx context.Context, id swarm.TaskID) error {
	select {
	case <-d.death(id):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close removes all of it.
func (d *direct) close() error {
	err := d.runtime.Sweep(context.Background(), func(swarm.TaskID) bool { return false })
	if e := d.runtime.Close(); err == nil {
		err = e
	}
	for _, dir := range d.dirs {
		if e := os.RemoveAll(dir); err == nil {
			err = e
		}
	}
	return err
}

// spec pulls the image of a tag and returns a container of it.
func (d *direct) spec(ctx context.Context, tag string) (swarm.TaskSpec, error) {
	digest, err := digestOf(ctx, d.registry, tag)
	if err != nil {
		return swarm.TaskSpec{}, err
	}
	spec := swarm.TaskSpec{Image: d.registry + "/app:" + tag, Manifest: digest, StopGrace: grace}
	return spec, d.runtime.Pull(ctx, spec.Image, digest, nil)
}

// digestOf asks the registry for what a tag names.
func digestOf(ctx context.Context, registry, tag string) (swarm.Digest, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://"+registry+"/v2/app/manifests/"+tag, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("resolve app:%s: %w", tag, err)
	}
	answer.Body.Close()
	digest := answer.Header.Get("Docker-Content-Digest")
	if digest == "" {
		return "", fmt.Errorf("resolve app:%s: the registry answered %s without a digest", tag, answer.Status)
	}
	return swarm.Digest(digest), nil
}

// start starts n containers.
func (d *direct) start(ctx context.Context, spec swarm.TaskSpec, n int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for range n {
		id := d.next()
		group.Go(func() error { return d.startOne(ctx, id, spec) })
	}
	return group.Wait()
}

// next names a container.
func (d *direct) next() swarm.TaskID {
	d.made++
	id := swarm.TaskID(fmt.Sprintf("direct/web.%d", d.made))
	d.ids = append(d.ids, id)
	return id
}

func (d *direct) startOne(ctx context.Context, id swarm.TaskID, spec swarm.TaskSpec) error {
	err := d.runtime.Create(ctx, runtime.Container{ID: id, Spec: spec, SpecDigest: "sha256:00", Service: "direct/web", Slot: 1})
	if err == nil {
		_, err = d.runtime.Start(ctx, id)
	}
	return err
}

// replace stops the oldest container and starts another in its place.
func (d *direct) replace(ctx context.Context, spec swarm.TaskSpec) error {
	if err := d.runtime.Stop(ctx, d.ids[len(d.ids)-replicasRolled], "", grace); err != nil {
		return err
	}
	return d.startOne(ctx, d.next(), spec)
}

// remove takes containers away.
func (d *direct) remove(ctx context.Context, ids []swarm.TaskID) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, id := range ids {
		group.Go(func() error { return d.runtime.Remove(ctx, id) })
	}
	d.ids = slices.DeleteFunc(d.ids, func(id swarm.TaskID) bool { return slices.Contains(ids, id) })
	return group.Wait()
}

// removeAll takes every container away.
func (d *direct) removeAll(ctx context.Context) error { return d.remove(ctx, slices.Clone(d.ids)) }
