package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"github.com/gitswarm/gitswarm/swarm"
)

// dataDir is the directory of a volume that containers see.
const dataDir = "_data"

// Volume is a named volume on this node.
type Volume struct {
	ID      swarm.VolumeID
	Path    string // what containers see
	Created time.Time
	Users   []swarm.TaskID // tasks whose containers mount it, sorted
}

// ErrVolumeUsed says that a container still mounts the volume.
var ErrVolumeUsed = errors.New("volume is in use")

// CreateVolume makes an empty named volume; one that is there stays as it is.
func (r *Runtime) CreateVolume(id swarm.VolumeID) (path string, err error) {
	name, err := volumeDir(id)
	if err != nil {
		return "", err
	}
	root, err := os.OpenRoot(filepath.Join(r.config.Dir, "volumes"))
	if err != nil {
		return "", environmentError("open volumes: %w", err)
	}
	defer root.Close()

	if err := root.MkdirAll(name, 0o711); err != nil {
		return "", environmentError("create volume %s: %w", id, err)
	}
	path = filepath.Join(root.Name(), name, dataDir)
	switch err := root.Mkdir(filepath.Join(name, dataDir), 0o755); {
	case errors.Is(err, os.ErrExist):
		return path, nil
	case err != nil:
		return "", environmentError("create volume %s: %w", id, err)
	}
	return path, os.Chmod(path, 0o755) // whatever the daemon's umask is
}

// volumeDir is the path of a volume below the volumes' directory.
func volumeDir(id swarm.VolumeID) (string, error) {
	stack, name, ok := strings.Cut(string(id), "/")
	for _, part := range []string{stack, name} {
		if !ok || part == "" || part == "." || part == ".." || strings.ContainsAny(part, "/\x00") {
			return "", contentError("volume name %q is not STACK/NAME", id)
		}
	}
	return filepath.Join(stack, name), nil
}

// Volumes gives the node's named volumes, by id.
func (r *Runtime) Volumes(ctx context.Context) ([]Volume, error) {
	users, err := r.volumeUsers(ctx)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(r.config.Dir, "volumes")
	paths, err := filepath.Glob(filepath.Join(root, "*", "*", dataDir))
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}

	volumes := make([]Volume, 0, len(paths))
	for _, path := range paths {
		name, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return nil, fmt.Errorf("list volumes: %w", err)
		}
		volume := Volume{ID: swarm.VolumeID(name), Path: path, Users: users[swarm.VolumeID(name)]}
		if info, err := os.Stat(filepath.Dir(path)); err == nil {
			volume.Created = info.ModTime()
		}
		volumes = append(volumes, volume)
	}
	return volumes, nil
}

// volumeUsers finds who mounts which volume.
func (r *Runtime) volumeUsers(ctx context.Context) (map[swarm.VolumeID][]swarm.TaskID, error) {
	all, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	users := make(map[swarm.VolumeID][]swarm.TaskID)
	for _, o := range all { // in order
		data, err := os.ReadFile(filepath.Join(r.dir(containerID(o.ID)), volumesFile))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read volumes of %s: %w", o.ID, err)
		}
		for id := range strings.FieldsSeq(string(data)) {
			users[swarm.VolumeID(id)] = append(users[swarm.VolumeID(id)], o.ID)
		}
	}
	return users, nil
}

// RemoveVolume removes a named volume with all that is in it, unless a
// container mounts it (ErrVolumeUsed). One that is not there is no error.
func (r *Runtime) RemoveVolume(ctx context.Context, id swarm.VolumeID) error {
	name, err := volumeDir(id)
	if err != nil {
		return err
	}
	users, err := r.volumeUsers(ctx)
	if err != nil {
		return err
	}
	if len(users[id]) > 0 {
		return fmt.Errorf("remove volume %s: %w by %s", id, ErrVolumeUsed, users[id][0])
	}

	root, err := os.OpenRoot(filepath.Join(r.config.Dir, "volumes"))
	if err != nil {
		return fmt.Errorf("open volumes: %w", err)
	}
	defer root.Close()
	if err := root.RemoveAll(name); err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	err = root.Remove(filepath.Dir(name)) // the stack's last volume takes its directory along
	if err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	return nil
}

// volumeFor finds or makes the volume of a mount. One without a name is the
// task's own and goes with it.
func (r *Runtime) volumeFor(ctx context.Context, b *blueprint, im *image, m swarm.Mount, index int) (string, error) {
	path := filepath.Join(r.dir(b.id), "volumes", strconv.Itoa(index), dataDir)
	var err error
	if m.Source != "" {
		path, err = r.CreateVolume(swarm.NewVolumeID(b.Service.Stack(), m.Source))
	} else if err = os.MkdirAll(path, 0o755); err != nil {
		err = environmentError("create volume: %w", err)
	}
	if err != nil || m.NoCopy {
		return path, err
	}

	r.mu.Lock()
	lock := r.volumes[path]
	if lock == nil {
		lock = new(sync.Mutex)
		r.volumes[path] = lock
	}
	r.mu.Unlock()
	lock.Lock()
	defer lock.Unlock()
	if err := r.fill(ctx, im, m.Target, path); err != nil {
		return "", environmentError("copy the image's %s into its volume: %w", m.Target, err)
	}
	return path, nil
}

// fill copies what the image has at target into an empty volume. It does so
// beside the volume and then exchanges the two, so that a volume is never half
// full.
func (r *Runtime) fill(ctx context.Context, im *image, target, path string) error {
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) > 0 {
		return err
	}
	return r.viewImage(ctx, im, func(root *os.File) error {
		source, err := openIn(root, target, unix.O_PATH|unix.O_DIRECTORY)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return err
		}
		defer source.Close()

		fresh := path + ".new"
		if err := os.RemoveAll(fresh); err != nil {
			return err
		}
		if err := cfs.CopyDir(fresh, fmt.Sprintf("/proc/self/fd/%d/.", source.Fd())); err != nil {
			return errors.Join(err, os.RemoveAll(fresh))
		}
		return unix.Rename(fresh, path) // over an empty directory, which os.Rename refuses
	})
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
