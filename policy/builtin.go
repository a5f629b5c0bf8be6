package policy

import (
	"path"

	"github.com/gitswarm/gitswarm/swarm"
)

// Builtin are the rules that hold in every cluster unless a grant lifts them.
// They follow the "baseline" level of the Kubernetes Pod Security Standards
// and section 5 of the CIS Docker Benchmark.
func Builtin() []Rule {
	return []Rule{
		{
			Name: "privileged", Key: "privileged",
			Offend: `service.privileged ? ["privileged: true"] : []`,
			Says:   "gives the container every right on the node",
		},
		{
			Name: "host-namespace", Key: "pid",
			Offend: `(service.host_pid ? ["pid: host"] : []) + (service.host_ipc ? ["ipc: host"] : []) + (service.host_net ? ["network_mode: host"] : [])`,
			Says:   "lets the container see and reach the node's own processes or network",
		},
		{
			Name: "runtime-socket", Key: "volumes",
			Offend: `service.binds.filter(b, b.source.matches("^(/var)?/run/(.*/)?(docker|containerd|gitswarm|crio|podman|buildkitd)\\.sock$") ||
				b.source.matches("^(/var)?/run/(docker|containerd|gitswarm|crio|podman|buildkit)/.") || b.source.matches("^/var/lib/gitswarm/.*\\.sock$")).map(b, b.source)`,
			Says: "hands the whole node to the container",
		},
		{
			Name: "sensitive-bind", Key: "volumes",
			Offend: `service.binds.filter(b, b.source == "/" ||
				b.source.matches("^/(etc|proc|sys|dev|boot|root|bin|sbin|lib|lib32|lib64|usr)(/|$)") ||
				b.source.matches("^(/var)?/run/?$") || b.source.matches("^(/var)?/run/(docker|containerd|gitswarm|crio|podman|buildkit|user(/[^/]*)?)/?$") ||
				b.source.matches("^(/var)?/run/(netns|dbus|systemd)(/|$)") ||
				b.source.matches("^/var(/lib)?/?$") || b.source.matches("^/var/spool/(cron|at)(/|$)") || b.source.matches("^/var/lib/(gitswarm|docker|containerd|kubelet)(/|$)")).map(b, b.source)`,
			Says: "is part of the node itself",
		},
		{
			Name: "bind-propagation", Key: "volumes",
			Offend: `service.binds.filter(b, b.propagation in ["shared", "rshared", "slave", "rslave"]).map(b, b.source)`,
			Says:   "passes mounts between the node and the container",
		},
		{
			Name: "capability", Key: "cap_add",
			Offend: `service.cap_add.filter(c, !(c in ["AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"]))`,
			Says:   "is a capability that containers do not have by default",
		},
		{
			Name: "device", Key: "devices",
			Offend: `service.devices.filter(d, d.matches("^/dev/(mem|kmem|port|kmsg|sd|vd|xvd|hd|nvme|mmcblk|pmem|nbd|rbd|drbd|bcache|dm-|md|loop|mapper|disk|block|raw|sg|sr)") || !d.startsWith("/dev/"))`,
			Says:   "gives the container the node's memory or disks",
		},
	}
}

// factsOf is a service as rules see it.
func factsOf(service swarm.Service) map[string]any {
	spec := service.Task
	binds := []map[string]any{}
	for _, mount := range spec.Mounts {
		if mount.Kind == swarm.MountBind {
			binds = append(binds, map[string]any{
				"source": path.Clean(mount.Source), "target": mount.Target, "read_only": mount.ReadOnly, "propagation": mount.Propagation,
			})
		}
	}
	devices := []string{}
	for _, device := range spec.Devices {
		devices = append(devices, path.Clean(device.Source))
	}
	return map[string]any{
		"name": service.Name, "image": spec.Image, "user": spec.User, "mode": string(service.Mode), "replicas": service.Replicas,
		"privileged": spec.Privileged, "host_pid": spec.HostPID, "host_ipc": spec.HostIPC, "host_net": spec.HostNet,
		"binds": binds, "devices": devices, "cap_add": append([]string{}, spec.CapAdd...),
		"read_only": spec.ReadOnly, "memory_limit": spec.Limits.Memory, "cpu_limit": spec.Limits.NanoCPUs,
		"labels": labelsOf(service),
	}
}

func labelsOf(service swarm.Service) map[string]string {
	labels := make(map[string]string, len(service.Labels))
	for key, value := range service.Labels {
		labels[key] = value
	}
	return labels
}
