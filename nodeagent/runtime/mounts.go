package runtime

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gitswarm/gitswarm/swarm"
)

// setMounts sets the mounts that every container has, and behind them the
// container's own, parents before children.
func (b *blueprint) setMounts(s *specs.Spec) {
	shm := b.Spec.ShmSize
	if shm == 0 {
		shm = defaultShmSize
	}
	own := slices.Clone(b.mounts)
	for _, m := range b.Spec.Mounts {
		if m.Kind == swarm.MountTmpfs {
			own = append(own, tmpfs(m))
		}
	}
	if b.Spec.Init {
		own = append(own, specs.Mount{Type: "bind", Source: b.shim, Destination: initPath, Options: []string{"bind", "ro"}})
	}
	slices.SortStableFunc(own, func(x, y specs.Mount) int {
		return cmp.Or(cmp.Compare(depth(x.Destination), depth(y.Destination)), cmp.Compare(x.Destination, y.Destination))
	})

	var mounts []specs.Mount
	for _, m := range s.Mounts {
		switch {
		case m.Destination == "/run": // containerd's habit, not Docker's
			continue
		case b.Spec.HostIPC && (m.Destination == "/dev/shm" || m.Destination == "/dev/mqueue"):
			if _, err := os.Stat(m.Destination); err != nil {
				continue // the node has none either
			}
			m = hostBind(m.Destination)
		case m.Destination == "/dev/shm":
			m.Options = []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10)}
		}
		if !slices.ContainsFunc(own, func(o specs.Mount) bool { return o.Destination == m.Destination }) {
			mounts = append(mounts, m)
		}
	}
	mounts = append(mounts, specs.Mount{
		Type: "cgroup", Source: "cgroup", Destination: "/sys/fs/cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"},
	})
	s.Mounts = append(mounts, own...)
	s.Linux.RootfsPropagation = rootPropagation(own)
}

func depth(p string) int { return strings.Count(filepath.Clean(p), "/") }

func hostBind(p string) specs.Mount {
	return specs.Mount{Type: "bind", Source: p, Destination: p, Options: []string{"rbind", "rprivate"}}
}

// tmpfs is memory that one container sees. What Docker forbids there is
// forbidden unless the spec's options allow it.
func tmpfs(m swarm.Mount) specs.Mount {
	options := []string{"nosuid", "nodev", "noexec"}
	for _, o := range m.Options {
		allow, ok := map[string]string{"suid": "nosuid", "dev": "nodev", "exec": "noexec"}[o]
		if ok {
			options = slices.DeleteFunc(options, func(have string) bool { return have == allow })
		}
		if !slices.Contains(options, o) {
			options = append(options, o)
		}
	}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	if m.Size > 0 {
		options = append(options, "size="+strconv.FormatInt(m.Size, 10))
	}
	mode := uint64(m.Mode & 0o7777)
	if mode == 0 {
		mode = 0o1777
	}
	options = append(options, "mode="+strconv.FormatUint(mode, 8))
	return specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: m.Target, Options: options}
}

// bindOptions are those of a volume or bind mount.
func bindOptions(m swarm.Mount) []string {
	propagation := m.Propagation
	if propagation == "" {
		propagation = "rprivate"
	}
	options := []string{"rbind", propagation}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	return options
}

// rootPropagation is what the container's root needs so that the propagation
// of its mounts can work.
func rootPropagation(mounts []specs.Mount) string {
	root := ""
	for _, m := range mounts {
		for _, o := range m.Options {
			switch {
			case strings.HasSuffix(o, "shared"):
				return "rshared"
			case strings.HasSuffix(o, "slave"):
				root = "rslave"
			}
		}
	}
	return root
}
