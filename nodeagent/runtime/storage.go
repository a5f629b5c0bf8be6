package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gitswarm/gitswarm/swarm"
)

// prepareMounts makes what the container's mounts show and describes them.
// tmpfs mounts are the container's own and need nothing.
func (r *Runtime) prepareMounts(ctx context.Context, b *blueprint, im *image) ([]specs.Mount, error) {
	mounts, err := r.etc(b)
	if err != nil {
		return nil, err
	}
	var volumes []string
	for i, m := range imageVolumes(b) {
		var source string
		switch m.Kind {
		case swarm.MountTmpfs:
			continue
		case swarm.MountVolume:
			source, err = r.volumeFor(ctx, b, im, m, i)
			if m.Source != "" {
				volumes = append(volumes, string(swarm.NewVolumeID(b.Service.Stack(), m.Source)))
			}
		case swarm.MountBind:
			source, err = bindSource(m)
		default:
			err = contentError("mount kind %q of %s is unknown", m.Kind, m.Target)
		}
		if err != nil {
			return nil, err
		}
		if m.Subpath != "" {
			if source, err = r.pinSubpath(b, source, m.Subpath, i); err != nil {
				return nil, err
			}
		}
		mounts = append(mounts, specs.Mount{Type: "bind", Source: source, Destination: m.Target, Options: bindOptions(m)})
	}
	if err := writeRecord(filepath.Join(r.dir(b.id), volumesFile), []byte(strings.Join(volumes, "\n"))); err != nil {
		return nil, environmentError("%w", err)
	}
	files, err := r.files(b)
	return append(mounts, files...), err
}

// imageVolumes are the spec's mounts and, where the root is read-only, the
// image's VOLUMEs that no mount covers: they stay writable, as in Docker. With
// a writable root the image's VOLUMEs are a part of it and as short-lived.
func imageVolumes(b *blueprint) []swarm.Mount {
	all := b.Spec.Mounts
	if !b.Spec.ReadOnly {
		return all
	}
	for _, target := range sortedKeys(b.image.Volumes) {
		covered := false
		for _, m := range b.Spec.Mounts {
			covered = covered || filepath.Clean(m.Target) == filepath.Clean(target)
		}
		if !covered && filepath.IsAbs(target) {
			all = append(all[:len(all):len(all)], swarm.Mount{Kind: swarm.MountVolume, Target: target})
		}
	}
	return all
}

// bindSource is a path of the node, which must be there unless the spec asks
// for it to be made.
func bindSource(m swarm.Mount) (string, error) {
	_, err := os.Stat(m.Source)
	if errors.Is(err, os.ErrNotExist) && m.CreateHost {
		err = os.MkdirAll(m.Source, 0o755)
	}
	if err != nil {
		return "", environmentError("bind %s to %s: %w", m.Source, m.Target, err)
	}
	return m.Source, nil
}

// pinSubpath mounts a part of a volume where no one can exchange it for a link
// before runc mounts it.
func (r *Runtime) pinSubpath(b *blueprint, source, subpath string, index int) (string, error) {
	root, err := os.Open(source)
	if err != nil {
		return "", environmentError("open volume: %w", err)
	}
	defer root.Close()
	part, err := openIn(root, subpath, unix.O_PATH)
	if err != nil {
		return "", environmentError("find subpath %s: %w", subpath, err)
	}
	defer part.Close()
	info, err := part.Stat()
	if err != nil {
		return "", environmentError("find subpath %s: %w", subpath, err)
	}

	target := filepath.Join(r.runDir(b.id), "sub", strconv.Itoa(index))
	if err := makeTarget(target, info.IsDir()); err != nil {
		return "", environmentError("pin subpath %s: %w", subpath, err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", part.Fd()), target, "", unix.MS_BIND, ""); err != nil {
		return "", environmentError("pin subpath %s: %w", subpath, err)
	}
	return target, nil
}

// makeTarget makes an empty directory or file to mount upon.
func makeTarget(path string, dir bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if dir {
		return os.Mkdir(path, 0o700)
	}
	return os.WriteFile(path, nil, 0o600)
}

// unmountTask takes away all that is mounted in a task's run directory. It
// fails rather than leave a mount behind: what is removed next must not be a
// volume's content.
func unmountTask(runDir string) error {
	targets := []string{filepath.Join(runDir, "files")}
	subs, err := os.ReadDir(filepath.Join(runDir, "sub"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list subpath mounts: %w", err)
	}
	for _, sub := range subs {
		targets = append(targets, filepath.Join(runDir, "sub", sub.Name()))
	}

	for _, target := range targets {
		for { // EINVAL: nothing is mounted there any more
			err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
				break
			}
			if err != nil {
				return fmt.Errorf("unmount %s: %w", target, err)
			}
		}
	}
	return nil
}

// etc writes the files of /etc that the node knows better than the image.
func (r *Runtime) etc(b *blueprint) ([]specs.Mount, error) {
	dir := filepath.Join(r.runDir(b.id), "etc")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, environmentError("write /etc: %w", err)
	}
	resolv := b.ResolvConf
	if resolv == nil {
		resolv, _ = os.ReadFile("/etc/resolv.conf") // a node without one has none to give
	}
	hosts := b.Hosts
	if hosts == nil {
		hosts = b.defaultHosts()
	}

	var mounts []specs.Mount
	for _, file := range []struct {
		name string
		data []byte
	}{{"hostname", []byte(b.Hostname() + "\n")}, {"hosts", hosts}, {"resolv.conf", resolv}} {
		path := filepath.Join(dir, file.name)
		err := os.WriteFile(path, file.data, 0o644)
		if err == nil {
			err = os.Chmod(path, 0o644) // whatever the daemon's umask is
		}
		if err != nil {
			return nil, environmentError("write /etc/%s: %w", file.name, err)
		}
		mounts = append(mounts, specs.Mount{
			Type: "bind", Source: path, Destination: "/etc/" + file.name, Options: []string{"bind", "rprivate"},
		})
	}
	return mounts, nil
}

func (b *blueprint) defaultHosts() []byte {
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, h := range b.Spec.ExtraHosts {
		if h.Address != "host-gateway" {
			fmt.Fprintf(&hosts, "%s\t%s\n", h.Address, h.Name)
		}
	}
	return []byte(hosts.String())
}

// files puts the content of the spec's files into memory of the node, never on
// a disk, and shows them read-only. Only a file of the repository that is
// executable there can be executed.
func (r *Runtime) files(b *blueprint) ([]specs.Mount, error) {
	if len(b.Spec.Files) == 0 {
		return nil, nil
	}
	dir := filepath.Join(r.runDir(b.id), "files")
	if err := mountMemory(dir, b); err != nil {
		return nil, environmentError("mount memory for files: %w", err)
	}

	var mounts []specs.Mount
	for i, f := range b.Spec.Files {
		data, ok := b.Files[f.Content]
		if !ok {
			return nil, environmentError("content %s of %s has not arrived", f.Content, f.Target)
		}
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := writeFile(path, data, f); err != nil {
			return nil, environmentError("write %s: %w", f.Target, err)
		}
		options := []string{"bind", "rprivate", "ro", "nodev", "nosuid"}
		if f.Kind != swarm.FileRepo || f.Mode&0o111 == 0 {
			options = append(options, "noexec")
		}
		mounts = append(mounts, specs.Mount{Type: "bind", Source: path, Destination: f.Target, Options: options})
	}
	return mounts, nil
}

// mountMemory mounts a tmpfs on dir that has room for the container's files.
// It is kept out of swap where the kernel can (6.4).
func mountMemory(dir string, b *blueprint) error {
	const page = 4096
	size := 16 * page
	for _, f := range b.Spec.Files {
		size += (len(b.Files[f.Content])/page + 2) * page
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	options := fmt.Sprintf("mode=0700,size=%d", size)
	flags := uintptr(unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC)
	err := unix.Mount("gitswarm", dir, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("gitswarm", dir, "tmpfs", flags, options)
	}
	return err
}

func writeFile(path string, data []byte, f swarm.File) error {
	mode := f.Mode.Perm()
	if mode == 0 {
		mode = 0o444
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	if err := os.Chown(path, int(f.UID), int(f.GID)); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}
