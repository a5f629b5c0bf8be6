package runtime

import (
	"context"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gitswarm/gitswarm/nodeagent/runtime/shim"
)

const (
	defaultPath    = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultShmSize = 64 << 20
	initPath       = "/dev/" + shim.InitName // on a tmpfs of the container's own: no trace in its root
	cpuPeriod      = 100_000                 // µs, as the kernel's default
	minCPUQuota    = 1_000                   // µs, the least that the kernel takes
)

// blueprint is all that a container is built from.
type blueprint struct {
	Container
	id      string // containerd's
	image   ocispec.ImageConfig
	user    specs.User
	mounts  []specs.Mount // volumes, binds, files, /etc
	shim    string        // path of the binary that is also the init process
	cgroup  string
	seccomp bool // runc can do it
}

// spec is the OCI description of the container.
func (b *blueprint) spec(ctx context.Context) (*specs.Spec, error) {
	args, err := b.args()
	if err != nil {
		return nil, err
	}
	s, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: b.id})
	if err != nil {
		return nil, environmentError("describe container: %w", err)
	}

	s.Hostname = b.Hostname()
	s.Root.Readonly = b.Spec.ReadOnly
	s.Process.Args = args
	s.Process.Env = b.env()
	s.Process.Cwd = b.workingDir()
	s.Process.User = b.user
	s.Process.Terminal = b.Spec.TTY
	s.Process.NoNewPrivileges = false
	s.Linux.CgroupsPath = b.cgroup
	s.Linux.Sysctl = maps.Clone(b.Spec.Sysctls)
	b.setNamespaces(s)
	b.setResources(s)
	b.setMounts(s)
	if err := b.setRlimits(s); err != nil {
		return nil, err
	}
	if err := b.setDevices(s); err != nil {
		return nil, err
	}
	return s, b.setPrivileges(ctx, s)
}

// args is entrypoint and command, each the image's own unless the spec has
// one. An Entrypoint of one empty string clears the image's.
func (b *blueprint) args() ([]string, error) {
	entrypoint, command := b.Spec.Entrypoint, b.Spec.Command
	if entrypoint == nil {
		entrypoint = b.image.Entrypoint
		if command == nil {
			command = b.image.Cmd
		}
	}
	if len(entrypoint) == 1 && entrypoint[0] == "" {
		entrypoint = nil
	}

	args := slices.Concat(entrypoint, command)
	if len(args) == 0 {
		return nil, contentError("image %s has no command: set command or entrypoint", b.Spec.Image)
	}
	if b.Spec.Init {
		args = slices.Concat([]string{initPath}, args)
	}
	return args, nil
}

// env is the image's environment, the spec's over it, sorted where order is
// free.
func (b *blueprint) env() []string {
	base := []string{"HOSTNAME=" + b.Hostname()}
	if b.Spec.TTY {
		base = append(base, "TERM=xterm")
	}
	env := overlayEnv(append([]string{defaultPath}, base...), b.image.Env)
	var own []string
	for _, key := range slices.Sorted(maps.Keys(b.Spec.Env)) {
		own = append(own, key+"="+b.Spec.Env[key])
	}
	return overlayEnv(overlayEnv(env, own), b.Env)
}

// overlayEnv gives base with the values of over, which also adds to it.
func overlayEnv(base, over []string) []string {
	out := slices.Clone(base)
	at := make(map[string]int, len(out))
	for i, entry := range out {
		key, _, _ := strings.Cut(entry, "=")
		at[key] = i
	}
	for _, entry := range over {
		key, _, _ := strings.Cut(entry, "=")
		if i, ok := at[key]; ok {
			out[i] = entry
			continue
		}
		at[key] = len(out)
		out = append(out, entry)
	}
	return out
}

func (b *blueprint) workingDir() string {
	dir := b.Spec.WorkingDir
	if dir == "" {
		dir = b.image.WorkingDir
	}
	return path.Join("/", dir)
}

// Hostname is the container's host name: what the spec says, or the task's id
// in letters that a host name may have.
func (c Container) Hostname() string {
	switch {
	case c.Spec.Hostname != "":
		return c.Spec.Hostname
	case c.Spec.HostNet:
		if name, err := os.Hostname(); err == nil {
			return name
		}
	}
	name := strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9') {
			return r
		}
		return '-'
	}, string(c.ID))
	if len(name) > 63 { // RFC 1035; the end is what tells tasks apart
		name = name[len(name)-63:]
	}
	return strings.Trim(name, "-")
}

func (b *blueprint) setNamespaces(s *specs.Spec) {
	drop := map[specs.LinuxNamespaceType]bool{
		specs.PIDNamespace:     b.Spec.HostPID,
		specs.IPCNamespace:     b.Spec.HostIPC,
		specs.NetworkNamespace: b.Spec.HostNet,
	}
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return drop[ns.Type] })
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
			s.Linux.Namespaces[i].Path = b.NetNS
		}
	}
	if unified() {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
}

func (b *blueprint) setResources(s *specs.Spec) {
	limits := b.Spec.Limits
	if limits.NanoCPUs > 0 {
		quota, period := max(limits.NanoCPUs*cpuPeriod/1e9, minCPUQuota), uint64(cpuPeriod)
		s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if limits.Memory > 0 {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limits.Memory}
	}
	if limits.Pids > 0 {
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limits.Pids}
	}
}

// setPrivileges sets capabilities, and what depends on them.
func (b *blueprint) setPrivileges(ctx context.Context, s *specs.Spec) error {
	caps, err := capabilities(s.Process.Capabilities.Bounding, b.Spec.CapAdd, b.Spec.CapDrop)
	if err != nil {
		return err
	}
	if b.Spec.Privileged {
		if caps, err = cap.Current(); err != nil {
			return environmentError("read own capabilities: %w", err)
		}
		err = oci.ApplyOpts(ctx, nil, nil, s, oci.WithMaskedPaths(nil), oci.WithReadonlyPaths(nil), oci.WithWriteableSysfs,
			oci.WithWriteableCgroupfs, oci.WithHostDevices, oci.WithAllDevicesAllowed)
		if err != nil {
			return environmentError("describe privileged container: %w", err)
		}
	}

	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps}
	if b.user.UID == 0 { // as execve(2) would leave it
		s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = caps, caps
	}
	if b.seccomp && !b.Spec.Privileged {
		s.Linux.Seccomp = seccompProfile(s)
	}
	return nil
}

// seccompProfile is containerd's default without the x32 ABI, which
// distributions' kernels have off: it costs each start 5 to 10 ms of CPU.
// Calls by that ABI are refused, as those of any foreign one.
func seccompProfile(s *specs.Spec) *specs.LinuxSeccomp {
	profile := seccomp.DefaultProfile(s)
	profile.Architectures = slices.DeleteFunc(profile.Architectures, func(a specs.Arch) bool { return a == specs.ArchX32 })
	return profile
}

// capabilities applies add and drop to base, as Compose means them: ALL first,
// then the single ones.
func capabilities(base, add, drop []string) ([]string, error) {
	known := cap.Known()
	set := make(map[string]bool)
	for _, name := range base {
		set[name] = true
	}
	for _, change := range []struct {
		names []string
		to    bool
	}{{add, true}, {drop, false}} {
		if slices.ContainsFunc(change.names, func(n string) bool { return strings.EqualFold(n, "ALL") }) {
			for _, name := range known {
				set[name] = change.to
			}
		}
	}
	for _, change := range []struct {
		names []string
		to    bool
	}{{drop, false}, {add, true}} {
		for _, name := range change.names {
			name = strings.ToUpper(name)
			if name == "ALL" {
				continue
			}
			if name = "CAP_" + strings.TrimPrefix(name, "CAP_"); !slices.Contains(known, name) {
				return nil, contentError("capability %s is unknown", name)
			}
			set[name] = change.to
		}
	}
	maps.DeleteFunc(set, func(_ string, in bool) bool { return !in })
	return slices.Sorted(maps.Keys(set)), nil
}

// setRlimits leaves the daemon's own limits where the spec says nothing.
func (b *blueprint) setRlimits(s *specs.Spec) error {
	s.Process.Rlimits = nil
	names := []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
		"rss", "rtprio", "rttime", "sigpending", "stack"}
	for _, u := range b.Spec.Ulimits {
		if !slices.Contains(names, strings.ToLower(u.Name)) {
			return contentError("ulimit %s is unknown", u.Name)
		}
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(u.Name),
			Soft: uint64(u.Soft), // -1 is RLIM_INFINITY
			Hard: uint64(u.Hard),
		})
	}
	return nil
}

// setDevices shows the node's devices that the spec names.
func (b *blueprint) setDevices(s *specs.Spec) error {
	for _, d := range b.Spec.Devices {
		source, err := filepath.EvalSymlinks(d.Source)
		if err != nil {
			return environmentError("find device %s: %w", d.Source, err)
		}
		device, err := oci.DeviceFromPath(source)
		if err != nil {
			return environmentError("find device %s: %w", d.Source, err)
		}
		device.Path = d.Target
		if device.Path == "" {
			device.Path = d.Source
		}
		access := d.Permissions
		if access == "" {
			access = "rwm"
		}
		s.Linux.Devices = append(s.Linux.Devices, *device)
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: device.Type, Major: &device.Major, Minor: &device.Minor, Access: access,
		})
	}
	return nil
}
