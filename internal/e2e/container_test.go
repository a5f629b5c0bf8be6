package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// in runs the app's tools in a replica, and returns what they print.
func (w *world) in(target string, args ...string) string {
	w.t.Helper()
	return strings.TrimSpace(w.run(0, append([]string{"exec", target, "--", "/app"}, args...)...))
}

// refused runs the app's tools in a replica, expects them to fail, and returns
// what they say.
func (w *world) refused(target string, args ...string) string {
	w.t.Helper()
	return w.run(1, append([]string{"exec", target, "--", "/app"}, args...)...)
}

// expect reports each of want that got lacks.
func expect(t *testing.T, what, got string, want ...string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(got, text) {
			t.Errorf("%s lacks %q:\n%s", what, text, got)
		}
	}
}

func TestAContainerIsWhatItsComposeFileSays(t *testing.T) {
	w := settled(t, map[string]string{
		"shop/.env":     "COLOUR=green\n",
		"shop/more.env": "FROM_FILE=\"in a file\"\nPLAIN=overridden\n",
		"shop/compose.yaml": strings.ReplaceAll(`services:
  web:
    image: REGISTRY/app:v1
    entrypoint: ["/app"]
    command: [serve, "a b", "$$HOME"]
    environment: {PLAIN: one, COLOUR: "${COLOUR}", DEFAULTED: "${NONE:-two}", EMPTY: ""}
    env_file: [./more.env]
    labels: {org.example.team: shop}
    user: "1234:2345"
    working_dir: /etc
    hostname: the-web
    extra_hosts: ["elsewhere:192.0.2.7"]
    init: true
    read_only: true
    tmpfs: ["/scratch:size=4k,mode=1777"]
    shm_size: 32m
    ulimits: {sigpending: {soft: 1000, hard: 2000}, core: 0}
    sysctls: {net.core.somaxconn: 321}
    cap_drop: [ALL]
    cap_add: [CHOWN, NET_BIND_SERVICE]
    devices: ["DEVICE:/dev/nothing:r"]
    cpus: "0.5"
    mem_limit: 64m
    pids_limit: 40
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 0s}}
  root: {image: "REGISTRY/app:v1", user: nobody, stop_grace_period: 1s, deploy: {update_config: {monitor: 0s}}}
`, "DEVICE", someDevice(t))})
	const web = "shop/web"

	expect(t, "the environment", strings.ReplaceAll(w.in(web, "cat", "/proc/1/environ"), "\x00", "\n"),
		"PLAIN=one\n", "COLOUR=green\n", "DEFAULTED=two\n", "FROM_FILE=in a file\n", "EMPTY=\n", "HOSTNAME=the-web\n", "APP_VERSION=v1\n")
	if got := strings.Split(w.in(web, "cat", "/proc/1/cmdline"), "\x00"); !strings.Contains(strings.Join(got, "|"), "/app|serve|a b|$HOME") || got[0] == "/app" {
		t.Errorf("the first process is %q, want an init with the app behind it", got)
	}
	expect(t, "the host name", w.in(web, "cat", "/proc/sys/kernel/hostname"), "the-web")
	expect(t, "/etc/hosts", w.in(web, "cat", "/etc/hosts"), "192.0.2.7", "elsewhere", "the-web")
	expect(t, "the working folder", w.in(web, "stat", "/proc/self/cwd"), "-> /etc")

	status := w.in(web, "cat", "/proc/self/status")
	expect(t, "the user", status, "Uid:\t1234\t1234", "Gid:\t2345\t2345")
	expect(t, "the capabilities", status, "CapBnd:\t0000000000000401") // CHOWN is 0, NET_BIND_SERVICE is 10
	expect(t, "the user of an image", w.in("shop/root", "cat", "/proc/self/status"), "Uid:\t65534\t65534")
	expect(t, "the limits", strings.Join(strings.Fields(w.in(web, "cat", "/proc/self/limits")), " "),
		"Max pending signals 1000 2000", "Max core file size 0 0")
	expect(t, "the sysctl", w.in(web, "cat", "/proc/sys/net/core/somaxconn"), "321")

	expect(t, "writing the root", w.refused(web, "write", "/tmp/file", "x"), "read-only")
	w.in(web, "write", "/scratch/file", "x")
	expect(t, "a full tmpfs", w.refused(web, "write", "/scratch/file", strings.Repeat("x", 5000)), "no space left")
	expect(t, "the mounts", w.in(web, "cat", "/proc/self/mounts"), "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=32768k", "/scratch tmpfs")
	expect(t, "the device", w.in(web, "stat", "/dev/nothing"), "Dcrw")
	expect(t, "writing the device", w.run(1, "exec", "-u", "0", web, "--", "/app", "write", "/dev/nothing", "x"), "not permitted")

	pid := w.pid(t, "hostname", "the-web")
	for limit, files := range map[string][2]string{
		"67108864": {"memory/memory.limit_in_bytes", "memory.max"},
		"40":       {"pids/pids.max", "pids.max"},
		"50000":    {"cpu/cpu.cfs_quota_us", "cpu.max"},
	} {
		if got := cgroupFile(t, pid, files[0], files[1]); !strings.HasPrefix(got, limit) {
			t.Errorf("the cgroup's %s is %q, want %s", files[1], got, limit)
		}
	}
	expect(t, "too many processes", w.refused(web, "spawn", "60"), "resource temporarily unavailable")
	expect(t, "inspect", w.run(0, "inspect", "shop/web"), "org.example.team")
}

func TestAContainerThatTakesTooMuchMemoryIsToldSo(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": `services:
  web: {image: "REGISTRY/app:v1", mem_limit: 48m, stop_grace_period: 1s, deploy: {restart_policy: {delay: 0s}, update_config: {monitor: 0s}}}
  other: {image: "REGISTRY/app:v1", stop_grace_period: 1s}
`})
	other := w.healthy("shop/other")
	w.Run(t.Context(), "exec", "shop/web", "--", "/app", "get", "http://127.0.0.1:8080/hold?mib=200")

	w.until("ps names the reason, and the replica is back", func() bool {
		said := false
		for _, task := range w.tasks("shop") {
			said = said || task.Service == "shop/web" && task.State == "failed" && strings.Contains(task.Message, "memory")
		}
		return said && len(w.healthy("shop/web")) == 1
	})
	if kept(other, w.healthy("shop/other")) != 1 {
		t.Error("the other service was touched")
	}
}

func TestStoppingSendsTheSignalAndKillsOnlyAfterTheGracePeriod(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": `services:
  polite: {image: "REGISTRY/app:v1", stop_signal: SIGUSR1, stop_grace_period: 20s, deploy: {update_config: {monitor: 0s}}}
  stubborn: {image: "REGISTRY/app:v1", environment: {APP_IGNORE_TERM: "1"}, stop_grace_period: 2s, deploy: {update_config: {monitor: 0s}}}
`})
	for service, limits := range map[string][2]time.Duration{"shop/polite": {0, 10 * time.Second}, "shop/stubborn": {2 * time.Second, 10 * time.Second}} {
		var old string
		for old = range w.healthy(service) {
		}
		began := time.Now()
		w.run(0, "restart", service)
		var took time.Duration
		w.until(service+" has a successor", func() bool {
			for _, task := range w.tasks("shop") {
				if task.ID == old && task.State == "stopped" && took == 0 {
					took = time.Since(began)
				}
			}
			return took > 0 && len(w.healthy(service)) == 1
		})
		if took < limits[0] || took > limits[1] {
			t.Errorf("stopping %s took %s, want %s to %s", service, took, limits[0], limits[1])
		}
		said := w.run(0, "logs", old)
		if service == "shop/polite" {
			expect(t, "its log", said, "by user defined signal 1")
		} else {
			expect(t, "its log", said, "ignored terminated")
		}
	}
}

// someDevice is one that no container has unless it asks for it.
func someDevice(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"/dev/fuse", "/dev/autofs", "/dev/rtc0", "/dev/hpet", "/dev/kvm"} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	t.Skip("this machine has no device to share")
	return ""
}

// pid finds the app's process whose environment, or host name, is that.
func (w *world) pid(t *testing.T, kind, want string) string {
	t.Helper()
	processes, err := lab.Processes("/app", w.Dir)
	must(t, err)
	for _, found := range processes {
		pid, _, _ := strings.Cut(found.ID, ":")
		environ, err := os.ReadFile(filepath.Join("/proc", pid, "environ"))
		if err == nil && strings.Contains(strings.ToLower(string(environ)), kind+"="+want+"\x00") {
			return pid
		}
	}
	t.Fatalf("no process has %s=%s", kind, want)
	return ""
}

// cgroupFile reads a limit of a process's cgroup: "controller/file" of version
// 1, or the file of version 2.
func cgroupFile(t *testing.T, pid, v1, v2 string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
	must(t, err)
	controller, file, _ := strings.Cut(v1, "/")
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		name := filepath.Join("/sys/fs/cgroup", controller, parts[2], file)
		if parts[0] == strconv.Itoa(0) {
			name = filepath.Join("/sys/fs/cgroup", parts[2], v2)
		} else if !strings.Contains(","+parts[1]+",", ","+controller+",") {
			continue
		}
		if data, err := os.ReadFile(name); err == nil {
			return strings.TrimSpace(string(data))
		}
	}
	t.Fatalf("process %s has no cgroup file %s or %s", pid, v1, v2)
	return ""
}
