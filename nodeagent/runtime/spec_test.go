package runtime

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/gitswarm/gitswarm/swarm"
)

// want compares the lines of a container's output.
func want(t *testing.T, got string, lines ...string) {
	t.Helper()
	if expected := strings.Join(lines, "\n") + "\n"; got != expected {
		t.Errorf("got:\n%swant:\n%s", got, expected)
	}
}

func TestEnvironmentIsTheImagesWithTheSpecsOverIt(t *testing.T) {
	spec := shell(t, "echo $FROM $NEW $LATE $PATH; pwd; hostname; echo $HOSTNAME; cat /etc/hostname")
	spec.Env = map[string]string{"NEW": "spec", "LATE": "spec"}
	spec.WorkingDir = "/made/here"
	spec.Hostname = "shop"
	c := named(t, "web")
	c.Spec, c.Env = spec, []string{"LATE=last"}
	start(t, c)
	ended(t, c.ID)
	want(t, logOf(t, c.ID), "image spec last /bin", "/made/here", "shop", "shop", "shop")
}

func TestRunsAsTheUserThatTheImageKnows(t *testing.T) {
	for user, id := range map[string]string{
		"web":       "uid=1000(web) gid=1001(web) groups=1001(web),2000(logs)",
		"1000":      "uid=1000(web) gid=1001(web) groups=1001(web),2000(logs)",
		"1000:logs": "uid=1000(web) gid=2000(logs) groups=2000(logs)",
		"77:88":     "uid=77 gid=88 groups=88",
		"":          "uid=0(root) gid=0(root) groups=0(root),2000(logs)",
	} {
		spec := shell(t, "id; grep CapEff /proc/self/status")
		spec.User = user
		got := strings.Split(output(t, spec), "\n")
		if got[0] != id {
			t.Errorf("user %q is %q, want %q", user, got[0], id)
		}
		if root := strings.HasPrefix(id, "uid=0"); root == strings.HasSuffix(got[1], "0000000000000000") {
			t.Errorf("user %q has %q", user, got[1])
		}
	}
}

func TestRefusesUsersThatAreNotThereOrWrap(t *testing.T) {
	for user, reason := range map[string]string{
		"nobody-here": "/etc/passwd", "0:nogroup": "/etc/group", "4294967296": "above", "2147483648:0": "above",
	} {
		c := named(t, "web")
		c.Spec = tinySpec(t)
		c.Spec.User = user
		err := shared.open(t).Create(t.Context(), c)
		if err == nil || CauseOf(err) != swarm.CauseContent || !strings.Contains(err.Error(), reason) {
			t.Errorf("user %q: %v", user, err)
		}
	}
}

func TestBlamesTheContentForACommandThatIsNotThere(t *testing.T) {
	c := named(t, "web")
	c.Spec = tinySpec(t)
	c.Spec.Command = []string{"/bin/nonesuch"}
	err := shared.open(t).Create(t.Context(), c)
	if err == nil || CauseOf(err) != swarm.CauseContent || !strings.Contains(err.Error(), "nonesuch") {
		t.Fatalf("got %v (%s)", err, CauseOf(err))
	}
	gone(t, shared.open(t).dir(containerID(c.ID)))
	gone(t, shared.open(t).runDir(containerID(c.ID)))
}

func TestEntrypointAndCommandReplaceTheImagesAsInDocker(t *testing.T) {
	r := shared.open(t)
	image, digest := push(t, "entry:v1", v1.Config{
		Env: []string{"PATH=/bin"}, Entrypoint: []string{"/bin/echo", "image-entry"}, Cmd: []string{"image-cmd"},
	})
	if err := r.Pull(t.Context(), image, digest, nil); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		entrypoint, command []string
		want                string
	}{
		{nil, nil, "image-entry image-cmd"},
		{nil, []string{"mine"}, "image-entry mine"},
		{[]string{"/bin/echo", "own"}, nil, "own"},
		{[]string{""}, []string{"/bin/echo", "cleared"}, "cleared"},
	} {
		spec := swarm.TaskSpec{Image: image, Manifest: digest, Entrypoint: test.entrypoint, Command: test.command}
		want(t, output(t, spec), test.want)
	}
}

func TestLimitsReachTheKernel(t *testing.T) {
	spec := shell(t, "cat /proc/self/limits | grep 'open files'; df -k /dev/shm | tail -1 | awk '{print $2}'; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; while :; do sleep 1; done")
	spec.Limits = swarm.Resources{NanoCPUs: 250_000_000, Memory: 64 << 20, Pids: 20}
	spec.Ulimits = []swarm.Ulimit{{Name: "nofile", Soft: 1000, Hard: 2000}}
	spec.ShmSize = 8 << 20
	spec.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "80"}
	c := started(t, spec)
	waitLog(t, c.ID, "80\n")
	if got := strings.Fields(logOf(t, c.ID)); strings.Join(got, " ") != "Max open files 1000 2000 files 8192 80" {
		t.Errorf("the container sees %q", got)
	}
	if unified() {
		t.Skip("the paths below are those of control groups version 1")
	}
	group := shared.runtime.cgroup(containerID(c.ID))
	for file, value := range map[string]string{
		"memory" + group + "/memory.limit_in_bytes": "67108864", "pids" + group + "/pids.max": "20",
		"cpu" + group + "/cpu.cfs_quota_us": "25000", "cpu" + group + "/cpu.cfs_period_us": "100000",
	} {
		if got := strings.TrimSpace(read(t, "/sys/fs/cgroup/"+file)); got != value {
			t.Errorf("%s is %s, want %s", file, got, value)
		}
	}
}

func TestCapabilitiesAreDockersUnlessChanged(t *testing.T) {
	caps := func(add, drop []string, privileged bool) string {
		spec := shell(t, "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t' | tr '\\n' ' '")
		spec.CapAdd, spec.CapDrop, spec.Privileged = add, drop, privileged
		return strings.TrimSpace(output(t, spec))
	}
	if got := caps(nil, nil, false); got != "CapEff:00000000a80425fb NoNewPrivs:0 Seccomp:2" {
		t.Errorf("default: %s", got)
	}
	if got := caps([]string{"NET_ADMIN"}, []string{"CHOWN"}, false); got != "CapEff:00000000a80435fa NoNewPrivs:0 Seccomp:2" {
		t.Errorf("changed: %s", got)
	}
	if got := caps([]string{"CAP_NET_BIND_SERVICE"}, []string{"ALL"}, false); got != "CapEff:0000000000000400 NoNewPrivs:0 Seccomp:2" {
		t.Errorf("one alone: %s", got)
	}
	if got := caps(nil, nil, true); !strings.Contains(got, "Seccomp:0") || strings.Contains(got, "a80425fb") {
		t.Errorf("privileged: %s", got)
	}
}

func TestReadOnlyRootLeavesTmpfsAndTheImagesVolumesWritable(t *testing.T) {
	r := shared.open(t)
	image, digest := push(t, "volumes:v1", v1.Config{Env: []string{"PATH=/bin"}, Volumes: map[string]struct{}{"/store": {}}},
		entry{path: "store/", mode: 0o755}, entry{path: "store/seed", mode: 0o600, data: "seed\n", uid: 1000})
	if err := r.Pull(t.Context(), image, digest, nil); err != nil {
		t.Fatal(err)
	}
	spec := swarm.TaskSpec{Image: image, Manifest: digest, ReadOnly: true}
	spec.Mounts = []swarm.Mount{{Kind: swarm.MountTmpfs, Target: "/scratch", Size: 1 << 20, Mode: 0o700, Options: []string{"exec"}}}
	spec.Command = []string{"/bin/sh", "-c", "touch /etc/x 2>/dev/null || echo read-only; touch /scratch/x && stat -c %a /scratch; grep ' /scratch ' /proc/mounts; cat /store/seed; stat -c %u /store/seed; touch /store/y && ls /store"}
	got := strings.Split(output(t, spec), "\n")
	if got[0] != "read-only" || got[1] != "700" || strings.Join(got[3:], " ") != "seed 1000 seed y " {
		t.Errorf("got %q", got)
	}
	if !strings.Contains(got[2], "nosuid") || strings.Contains(got[2], "noexec") || !strings.Contains(got[2], "size=1024k") {
		t.Errorf("tmpfs is mounted %s", got[2])
	}
}

func TestFilesAreReadOnlyMemoryWithTheirOwners(t *testing.T) {
	c := named(t, "web")
	c.Spec = shell(t, "cat /run/secrets/key; stat -c '%a %u %g' /run/secrets/key; echo x 2>/dev/null > /run/secrets/key || echo refused; cat /app/conf; stat -c %a /app/conf; /app/run.sh; grep -E 'secrets/key|app/conf' /proc/mounts | grep -c noexec")
	c.Spec.Files = []swarm.File{
		{Kind: swarm.FileConfig, Target: "/app/conf", Content: "sha256:01"},
		{Kind: swarm.FileRepo, Target: "/app/run.sh", Content: "sha256:02", Mode: 0o755},
		{Kind: swarm.FileSecret, Target: "/run/secrets/key", Content: "sha256:03", Mode: 0o400, UID: 1000, GID: 1001},
	}
	c.Files = map[swarm.Digest][]byte{
		"sha256:01": []byte("conf\n"), "sha256:02": []byte("#!/bin/sh\necho ran\n"), "sha256:03": []byte("s3cr3t\n"),
	}
	start(t, c)
	ended(t, c.ID)
	want(t, strings.ReplaceAll(logOf(t, c.ID), "!/bin/sh: can't create /run/secrets/key: Read-only file system\n", ""),
		"s3cr3t", "400 1000 1001", "refused", "conf", "444", "ran", "2")
	if err := filepath.Walk(shared.dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Size() < 1<<16 && !strings.HasPrefix(path, shared.dir+"/tasks") {
			if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), "s3cr3t") {
				t.Errorf("the secret is on disk: %s", path)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestAFileWhoseContentIsMissingBlamesTheEnvironment(t *testing.T) {
	c := named(t, "web")
	c.Spec = tinySpec(t)
	c.Spec.Files = []swarm.File{{Kind: swarm.FileSecret, Target: "/run/secrets/key", Content: "sha256:03"}}
	if err := shared.open(t).Create(t.Context(), c); err == nil || CauseOf(err) != swarm.CauseEnvironment {
		t.Errorf("got %v", err)
	}
}

func TestTheNodesFilesInEtcAreTheGivenOnes(t *testing.T) {
	c := named(t, "web")
	c.Spec = shell(t, "cat /etc/resolv.conf /etc/hosts")
	c.ResolvConf, c.Hosts = []byte("nameserver 127.0.0.11\n"), []byte("10.0.0.1 db\n")
	start(t, c)
	ended(t, c.ID)
	want(t, logOf(t, c.ID), "nameserver 127.0.0.11", "10.0.0.1 db")
}

func TestBindsShowTheNodeAndMissingOnesBlameTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/a", []byte("node\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := shell(t, "cat /here/a; touch /here/b 2>/dev/null || echo read-only; touch /made/c")
	spec.Mounts = []swarm.Mount{
		{Kind: swarm.MountBind, Source: dir, Target: "/here", ReadOnly: true},
		{Kind: swarm.MountBind, Source: dir + "/new/dir", Target: "/made", CreateHost: true},
	}
	want(t, output(t, spec), "node", "read-only")
	if _, err := os.Stat(dir + "/new/dir/c"); err != nil {
		t.Error(err)
	}

	c := named(t, "db")
	c.Spec = tinySpec(t)
	c.Spec.Mounts = []swarm.Mount{{Kind: swarm.MountBind, Source: dir + "/nonesuch", Target: "/x"}}
	if err := shared.open(t).Create(t.Context(), c); err == nil || CauseOf(err) != swarm.CauseEnvironment {
		t.Errorf("got %v", err)
	}
}

func TestInitReapsAndHandsSignalsOn(t *testing.T) {
	spec := shell(t, "trap 'echo term; exit 5' TERM; (sleep 0.2 &) ; sleep 0.5; echo first $(cat /proc/1/comm); ps | grep -c 'Z'; echo ready; while :; do sleep 1000 & wait; done")
	spec.Init, spec.ReadOnly = true, true
	c := started(t, spec)
	waitLog(t, c.ID, "ready")
	if err := shared.open(t).Stop(t.Context(), c.ID, "", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if exit := ended(t, c.ID); exit.Code != 5 {
		t.Errorf("exit is %+v", exit)
	}
	if got := logOf(t, c.ID); !strings.Contains(got, "first gitswarm-init\n") || !strings.Contains(got, "term\n") {
		t.Errorf("log is %q", got)
	}

	spec = tinySpec(t)
	spec.Init, spec.Command = true, []string{"/bin/nonesuch"}
	if exit := ended(t, started(t, spec).ID); exit.Code != 127 {
		t.Errorf("a missing command exits %d", exit.Code)
	}
}

func TestHostNamespacesAreTheNodes(t *testing.T) {
	spec := shell(t, "for ns in net pid ipc; do readlink /proc/self/ns/$ns; done")
	spec.HostNet, spec.HostPID, spec.HostIPC = true, true, true
	var node []string
	for _, ns := range []string{"net", "pid", "ipc"} {
		link, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		node = append(node, link)
	}
	want(t, output(t, spec), node...)
}

func TestDevicesAreThoseOfTheSpec(t *testing.T) {
	node := t.TempDir() + "/kmsg"
	if err := syscall.Mknod(node, syscall.S_IFCHR|0o600, 1<<8|11); err != nil {
		t.Fatal(err)
	}
	for permissions, answer := range map[string]string{"rwm": "opened", "rm": "refused"} {
		spec := shell(t, "stat -c '%t %T' /dev/mine; (: > /dev/mine) 2>/dev/null && echo opened || echo refused")
		spec.Devices = []swarm.Device{{Source: node, Target: "/dev/mine", Permissions: permissions}}
		want(t, output(t, spec), "1 b", answer)
	}
}

func TestATaskWithATerminalHasOne(t *testing.T) {
	spec := shell(t, "tty; echo $TERM; cat")
	spec.TTY, spec.StdinOpen = true, true
	c := started(t, spec)
	waitLog(t, c.ID, "xterm")
	if got := strings.ReplaceAll(logOf(t, c.ID), "\r", ""); got != "/dev/pts/0\nxterm\n" {
		t.Errorf("log is %q", got)
	}
	if state(t, c.ID) != StateRunning {
		t.Error("its open input has ended")
	}
}

func TestStdinStaysOpenOnlyIfAskedTo(t *testing.T) {
	spec := shell(t, "cat; echo over")
	want(t, output(t, spec), "over")
	spec.StdinOpen = true
	c := started(t, spec)
	time.Sleep(200 * time.Millisecond) // nothing is to happen
	if state(t, c.ID) != StateRunning {
		t.Errorf("log is %q", logOf(t, c.ID))
	}
}

func TestJoinsTheGivenNetworkNamespace(t *testing.T) {
	c := named(t, "web")
	c.Spec = shell(t, "readlink /proc/self/ns/net")
	c.NetNS = namespacePath(t)
	start(t, c)
	ended(t, c.ID)
	want(t, logOf(t, c.ID), namespaceOf(t, c.NetNS))
	if _, err := net.Interfaces(); err != nil { // this process is where it was
		t.Fatal(err)
	}
}
