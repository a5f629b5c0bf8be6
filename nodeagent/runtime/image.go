package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gitswarm/gitswarm/swarm"
)

const (
	// maxAccountFile bounds what is read of an image's /etc/passwd and
	// /etc/group (CVE-2026-47262).
	maxAccountFile = 1 << 20
	maxConfig      = 4 << 20
)

// image is what creating a container needs to know of one.
type image struct {
	name     string // containerd's record
	config   ocispec.ImageConfig
	top      string // chain id: the snapshot that containers stand on
	accounts accounts
}

// imageName is the name of containerd's record: repository and digest, so that
// a moved tag is another image.
func imageName(name string, manifest swarm.Digest) (string, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", contentError("read image name %q: %w", name, err)
	}
	if manifest == "" {
		return reference.TagNameOnly(ref).String(), nil
	}
	return reference.TrimNamed(ref).String() + "@" + string(manifest), nil
}

// image finds a pulled image. What it found once it remembers: an image never
// changes under its digest.
func (r *Runtime) image(ctx context.Context, name string) (*image, error) {
	r.mu.Lock()
	known := r.images[name]
	r.mu.Unlock()
	if known != nil {
		return known, nil
	}

	found, err := r.client.GetImage(ctx, name)
	if err != nil {
		return nil, environmentError("find image %s: %w", name, err)
	}
	known, err = r.inspect(ctx, found)
	if err != nil {
		return nil, environmentError("inspect image %s: %w", name, err)
	}
	r.mu.Lock()
	r.images[name] = known
	r.mu.Unlock()
	return known, nil
}

func (r *Runtime) inspect(ctx context.Context, found client.Image) (*image, error) {
	known := &image{name: found.Name()}
	layers, err := found.RootFS(ctx)
	if err != nil {
		return nil, err
	}
	known.top = identity.ChainID(layers).String()

	desc, err := found.Config(ctx)
	if err != nil {
		return nil, err
	}
	if desc.Size > maxConfig {
		return nil, fmt.Errorf("image config has %d bytes, more than %d", desc.Size, maxConfig)
	}
	data, err := content.ReadBlob(ctx, found.ContentStore(), desc)
	if err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("read image config: %w", err)
	}
	known.config = config.Config

	err = r.viewImage(ctx, known, func(root *os.File) (err error) {
		if known.accounts.passwd, err = readBounded(root, "etc/passwd"); err != nil {
			return err
		}
		known.accounts.group, err = readBounded(root, "etc/group")
		return err
	})
	return known, err
}

// viewImage mounts the image read-only while f runs.
func (r *Runtime) viewImage(ctx context.Context, im *image, f func(root *os.File) error) error {
	ctx, release, err := r.client.WithLease(ctx)
	if err != nil {
		return fmt.Errorf("view image: %w", err)
	}
	defer func() { _ = release(context.WithoutCancel(ctx)) }() // it expires by itself

	snapshots := r.client.SnapshotService(snapshotter)
	key := "view-" + chance()
	mounts, err := snapshots.View(ctx, key, im.top)
	if err != nil {
		return fmt.Errorf("view image: %w", err)
	}
	defer func() { _ = snapshots.Remove(context.WithoutCancel(ctx), key) }() // Sweep takes what is left

	return mount.WithReadonlyTempMount(ctx, mounts, func(path string) error {
		root, err := os.Open(path)
		if err != nil {
			return err
		}
		defer root.Close()
		return f(root)
	})
}

// openIn opens path as a process whose root is root would find it: no link
// leads out (openat2(2)).
func openIn(root *os.File, path string, flags int) (*os.File, error) {
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// readBounded reads a regular file of an image; one that is not there is
// empty.
func readBounded(root *os.File, path string) ([]byte, error) {
	f, err := openIn(root, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()

	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxAccountFile+1))
	if err == nil && len(data) > maxAccountFile {
		return nil, contentError("the image's /%s has more than %d bytes", path, maxAccountFile)
	}
	return data, err
}

// present reports whether the image is there and unpacked.
func (r *Runtime) present(ctx context.Context, name string) (bool, error) {
	found, err := r.client.GetImage(ctx, name)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, environmentError("find image %s: %w", name, err)
	}
	unpacked, err := found.IsUnpacked(ctx, snapshotter)
	if err != nil {
		return false, nil // its content is gone in part: pull it again
	}
	return unpacked, nil
}
