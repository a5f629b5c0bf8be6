package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gitswarm/gitswarm/swarm"
)

const (
	// usedLabel is when an image was last asked for, RFC 3339.
	usedLabel = "gitswarm.used"
	usedEvery = time.Hour // how exact usedLabel is

	progressEvery = 250 * time.Millisecond
	dialTimeout   = 10 * time.Second
	headerTimeout = 30 * time.Second
)

// pull is one fetch that any number of callers wait for.
type pull struct {
	done    chan struct{}
	err     error // set before done is closed
	cancel  context.CancelFunc
	waiting int // guarded by Runtime.mu

	mu      sync.Mutex
	percent int
}

// Pull makes the image that has the given manifest present and unpacked;
// image is its name in the compose file. It returns at once if it is. progress
// may be nil; it gets percentages that never go back. Callers that ask for the
// same image share one transfer, which ends when the last of them gives up.
func (r *Runtime) Pull(ctx context.Context, image string, manifest swarm.Digest, progress func(percent int)) error {
	ctx = r.namespaced(ctx)
	name, err := imageName(image, manifest)
	if err != nil {
		return err
	}
	if ok, err := r.present(ctx, name); err != nil {
		return err
	} else if ok {
		return r.markUsed(ctx, name)
	}

	p := r.joinPull(ctx, name)
	defer r.leavePull(name, p)
	return p.wait(ctx, progress)
}

// joinPull starts the transfer, or joins the one that runs.
func (r *Runtime) joinPull(ctx context.Context, name string) *pull {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pulls[name]
	if p == nil {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		p = &pull{done: make(chan struct{}), cancel: cancel}
		r.pulls[name] = p
		go func() {
			p.err = r.fetch(ctx, name, p)
			close(p.done)
		}()
	}
	p.waiting++
	return p
}

func (r *Runtime) leavePull(name string, p *pull) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.waiting--; p.waiting == 0 {
		p.cancel()
		if r.pulls[name] == p {
			delete(r.pulls, name)
		}
	}
}

func (p *pull) wait(ctx context.Context, progress func(int)) error {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for last := -1; ; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("pull image: %w", ctx.Err())
		case <-p.done:
			return p.err
		case <-tick.C:
			p.mu.Lock()
			now := p.percent
			p.mu.Unlock()
			if progress != nil && now > last {
				progress(now)
				last = now
			}
		}
	}
}

// fetch transfers and unpacks.
func (r *Runtime) fetch(ctx context.Context, name string, p *pull) error {
	layers := &layerSet{}
	counted := make(chan struct{})
	watch, stop := context.WithCancel(ctx)
	go func() {
		defer close(counted)
		r.count(watch, layers, p)
	}()
	_, err := r.client.Pull(ctx, name,
		client.WithResolver(r.resolver()),
		client.WithPullUnpack,
		client.WithPullSnapshotter(snapshotter),
		client.WithPullLabel(usedLabel, time.Now().UTC().Format(time.RFC3339)),
		client.WithImageHandler(images.HandlerFunc(layers.add)))
	stop()
	<-counted
	if err != nil {
		return judgePull(name, err)
	}
	return nil
}

// layerSet collects the layers of an image while it is pulled.
type layerSet struct {
	mu     sync.Mutex
	layers []ocispec.Descriptor
}

func (l *layerSet) add(_ context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if images.IsLayerType(d.MediaType) {
		l.mu.Lock()
		l.layers = append(l.layers, d)
		l.mu.Unlock()
	}
	return nil, nil
}

// count keeps p.percent near the share of bytes that have come.
func (r *Runtime) count(ctx context.Context, layers *layerSet, p *pull) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		layers.mu.Lock()
		all := layers.layers
		layers.mu.Unlock()

		var have, total int64
		for _, d := range all {
			total += d.Size
			have += min(d.Size, r.fetched(ctx, d))
		}
		if total > 0 {
			p.mu.Lock()
			p.percent = max(p.percent, int(have*100/total))
			p.mu.Unlock()
		}
	}
}

// fetched is how many bytes of a layer are here.
func (r *Runtime) fetched(ctx context.Context, d ocispec.Descriptor) int64 {
	if _, err := r.client.ContentStore().Info(ctx, d.Digest); err == nil {
		return d.Size
	}
	status, err := r.client.ContentStore().Status(ctx, remotes.MakeRefKey(ctx, d))
	if err != nil {
		return 0
	}
	return status.Offset
}

// resolver talks to registries: TLS everywhere but on loopback, credentials
// only to the host that they belong to.
func (r *Runtime) resolver() remotes.Resolver {
	httpClient := &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		IdleConnTimeout:       dialTimeout,
		ForceAttemptHTTP2:     true,
	}}
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthClient(httpClient), docker.WithAuthCreds(r.credentials))
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(
			docker.WithClient(httpClient), docker.WithAuthorizer(authorizer), docker.WithPlainHTTP(docker.MatchLocalhost)),
	})
}

// judgePull finds the cause of a failed pull. Registries and disks are the
// environment; bytes that no container can be made of are content.
func judgePull(name string, err error) error {
	err = fmt.Errorf("pull %s: %w", name, err)
	if errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		return &Error{Cause: swarm.CauseEnvironment, Err: fmt.Errorf("%w: free space on the node", err)}
	}
	for _, sign := range []string{"failed to extract layer", "mismatched rootfs", "no match for platform"} {
		if strings.Contains(err.Error(), sign) {
			return &Error{Cause: swarm.CauseContent, Err: err}
		}
	}
	return &Error{Cause: swarm.CauseEnvironment, Err: err}
}

// markUsed remembers that the image was asked for.
func (r *Runtime) markUsed(ctx context.Context, name string) error {
	service := r.client.ImageService()
	record, err := service.Get(ctx, name)
	if err != nil {
		return environmentError("find image %s: %w", name, err)
	}
	now := time.Now().UTC()
	if last, err := time.Parse(time.RFC3339, record.Labels[usedLabel]); err == nil && now.Sub(last) < usedEvery {
		return nil
	}

	_, err = service.Update(ctx, images.Image{Name: name, Target: record.Target, Labels: map[string]string{usedLabel: now.Format(time.RFC3339)}},
		"labels."+usedLabel)
	if err != nil && !errdefs.IsNotFound(err) {
		return environmentError("mark image %s as used: %w", name, err)
	}
	return nil
}

// PruneImages removes the images that no container uses and that no Pull asked
// for within keep. It returns their names, sorted.
func (r *Runtime) PruneImages(ctx context.Context, keep time.Duration) ([]string, error) {
	ctx = r.namespaced(ctx)
	containers, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	used := make(map[string]bool, len(containers))
	for _, c := range containers {
		used[c.Image] = true
	}

	records, err := r.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var removed []string
	for _, record := range records {
		last, err := time.Parse(time.RFC3339, record.Labels[usedLabel])
		if err != nil {
			last = record.CreatedAt
		}
		if used[record.Name] || time.Since(last) < keep {
			continue
		}
		if err := r.client.ImageService().Delete(ctx, record.Name, images.SynchronousDelete()); err != nil && !errdefs.IsNotFound(err) {
			return removed, fmt.Errorf("remove image %s: %w", record.Name, err)
		}
		r.mu.Lock()
		delete(r.images, record.Name)
		r.mu.Unlock()
		removed = append(removed, record.Name)
	}
	return removed, nil
}
