package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// command is a gitswarm command that a test talks to while it runs.
func (w *world) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.Bin, args...)
	cmd.Env = append(os.Environ(), "GITSWARM_HOST=unix://"+w.Socket(), "NO_COLOR=1")
	return cmd
}

// lines collects what a command that follows something prints.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(data)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// follow starts a command, and returns what it prints until the test ends.
func (w *world) follow(args ...string) *lines {
	w.t.Helper()
	said := new(lines)
	ctx, stop := context.WithCancel(context.Background())
	cmd := w.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = said, said
	must(w.t, cmd.Start())
	w.t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // reports the signal that was just sent
	})
	return said
}

func TestLogsAreFollowedThroughADaemonsRestart(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 2, quick) + "  job: {image: \"REGISTRY/app:v1\", command: [get, \"http://web:8080/\"], depends_on: [web], deploy: {mode: replicated-job}}\n"})
	ask := func(slot string) {
		t.Helper()
		w.in("shop/web."+slot, "get", "http://127.0.0.1:8080/log?text=said-by-"+slot)
	}
	begun := time.Now().UTC().Format(time.RFC3339Nano)
	said := w.follow("logs", "-f", "shop/web")
	ask("1")
	ask("2")
	for _, text := range []string{"said-by-1", "said-by-2"} {
		w.until("logs -f shows "+text, func() bool { return strings.Contains(said.String(), text) })
	}
	for line := range strings.Lines(said.String()) {
		if strings.Contains(line, "said-by-") && !strings.HasPrefix(line, "web."+strings.TrimSpace(line)[len(strings.TrimSpace(line))-1:]) {
			t.Errorf("the line %q is not marked with the replica that wrote it", line)
		}
	}

	w.kill()
	_, err := w.StartDaemon(t.Context())
	must(t, err)
	w.until("the daemon knows its tasks", func() bool { return len(w.healthy("shop/web")) == 2 })
	ask("1")
	w.until("logs -f goes on after the restart", func() bool { return strings.Count(said.String(), "said-by-1") == 2 })
	if n := strings.Count(said.String(), "started v1"); n != 2 {
		t.Errorf("logs -f showed the first line of 2 replicas %d times", n)
	}

	expect(t, "the log of before the restart", w.run(0, "logs", "shop/web"), "started v1", "said-by-1", "said-by-2")
	if got := w.run(0, "logs", "shop/web", "--tail", "1"); strings.Count(got, "\n") != 2 || strings.Contains(got, "started") {
		t.Errorf("--tail 1 of two replicas is\n%s", got)
	}
	if got := w.run(0, "logs", "shop/web", "--since", begun); strings.Contains(got, "started") || !strings.Contains(got, "said-by-2") {
		t.Errorf("--since the first request is\n%s", got)
	}
	expect(t, "the log of a job that ended", w.run(0, "logs", "shop/job"), "hello from v1")
	if got := w.run(0, "logs", "shop/web.2"); strings.Contains(got, "said-by-1") {
		t.Errorf("the log of web.2 has web.1's lines:\n%s", got)
	}
}

func TestExecPassesInputAndExitCodes(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 1, quick)})
	w.run(7, "exec", "shop/web", "--", "/app", "exit", "7")
	w.run(0, "exec", "shop/web", "--", "/app", "exit", "0")
	expect(t, "a command that is not there", w.run(1, "exec", "shop/web", "--", "/no/such/command"), "/no/such/command")
	expect(t, "a service that is not there", w.run(1, "exec", "shop/nothing", "--", "/app"), "shop/nothing")

	input := strings.Repeat("0123456789abcdef", 1<<16)
	cmd := w.command(t.Context(), "exec", "-i", "shop/web", "--", "/app", "copy")
	cmd.Stdin = strings.NewReader(input)
	output, err := cmd.Output()
	must(t, err)
	if string(output) != input {
		t.Errorf("%d bytes of input came back as %d other ones", len(input), len(output))
	}
	expect(t, "environment, folder and user", w.run(0, "exec", "-e", "COLOUR=green", "-w", "/etc", "-u", "65534", "shop/web", "--", "/app", "cat", "/proc/self/environ", "passwd", "/proc/self/status"),
		"COLOUR=green", "root:x:0:0", "Uid:\t65534")
	if _, exit := w.Run(t.Context(), "exec", "-t", "shop/web", "--", "/app", "stat", "/dev/pts/0"); exit != 0 {
		t.Error("exec -t gives no terminal")
	}
}

func TestPlansTellWhatWouldHappenAndChangeNothing(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 2, quick)})
	before := w.healthy("shop/web")
	w.run(0, "plan", "--exit-code")

	must(t, w.repo.Write(map[string]string{"shop/compose.yaml": strings.ReplaceAll(web("v2", 3, quick), "REGISTRY", w.Registry)}))
	shell(t, w.repo.Work, "git", "checkout", "--quiet", "-b", "feature")
	shell(t, w.repo.Work, "git", "-c", "user.name=Example", "-c", "user.email=example@example.org", "commit", "--all", "--quiet", "--message", "try v2")
	shell(t, w.repo.Work, "git", "push", "--quiet", "origin", "feature")
	for _, what := range []string{"feature", w.repo.Work} {
		expect(t, "the plan of "+what, w.run(1, "plan", what, "--exit-code"), "shop/web.1", "shop/web.2", "shop/web.3", "v2")
	}

	folder := filepath.Join(w.Dir, "folder")
	must(t, os.MkdirAll(filepath.Join(folder, "shop"), 0o755))
	must(t, os.WriteFile(filepath.Join(folder, "shop", "compose.yaml"), []byte("services: {web: {image: \""+w.Registry+"/app:v1\", privileged: true}}\n"), 0o644))
	expect(t, "the plan of what policy refuses", w.run(1, "plan", folder, "--exit-code"), "privileged")
	if kept(before, w.healthy("shop/web")) != 2 {
		t.Error("a plan changed something")
	}
}

func TestWhatRunsCanBeLookedAt(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 2, quick) + "    mem_limit: 64m\n"})
	for _, ask := range []struct {
		args []string
		want []string
	}{
		{[]string{"ps", "shop/web"}, []string{"shop/web.1", "shop/web.2", "healthy"}},
		{[]string{"ps", "shop/web.2"}, []string{"shop/web.2"}},
		{[]string{"stats", "--no-stream"}, []string{"shop/web.1", "shop/web.2", "64.0MiB"}},
		{[]string{"events", "shop"}, []string{"is healthy"}},
		{[]string{"history", "shop"}, []string{w.first[:7], "healthy"}},
		{[]string{"inspect", "shop"}, []string{w.first[:7]}},
		{[]string{"inspect", "shop/web.1"}, []string{"healthy", w.Registry + "/app:v1"}},
		{[]string{"status"}, []string{"1/1 stacks healthy", "1/1 nodes"}},
		{[]string{"status", "shop"}, []string{"web"}},
		{[]string{"source", "ls"}, []string{w.repo.Bare}},
		{[]string{"doctor"}, []string{"runc"}},
		{[]string{"version"}, []string{"client", "daemon"}},
	} {
		said, exit := w.Run(t.Context(), ask.args...)
		if exit != 0 && ask.args[0] != "doctor" {
			t.Errorf("gitswarm %s: exit %d\n%s", strings.Join(ask.args, " "), exit, said)
		}
		expect(t, "gitswarm "+strings.Join(ask.args, " "), said, ask.want...)
	}
	for _, args := range [][]string{{"ps"}, {"stats", "--no-stream"}, {"events"}, {"history", "shop"}, {"inspect", "shop"}, {"status"}, {"source", "ls"}, {"volume", "ls"}, {"plan"}} {
		text := w.run(0, append(args, "-o", "json")...)
		decoder := json.NewDecoder(strings.NewReader(text))
		for decoder.More() {
			var value any
			if err := decoder.Decode(&value); err != nil {
				t.Errorf("gitswarm %s -o json: %v\n%s", strings.Join(args, " "), err, text)
				break
			}
		}
	}
}

func TestKilledShimsAndProcessesAreNoticedAndReplacedAlone(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 3, "      update_config: {monitor: 200ms}\n      restart_policy: {delay: 0s}\n")})
	for claim, reason := range map[string]string{"its process": "exited 137", "its shim": "its shim"} {
		before, old := containers(t, w), w.healthy("shop/web")
		pid, _, _ := strings.Cut(before[0].ID, ":")
		victim := pid
		if claim == "its shim" {
			victim = parentOf(t, pid)
		}
		shell(t, ".", "kill", "-9", victim)
		w.until("a replica lost "+claim+" and is replaced", func() bool {
			now := w.healthy("shop/web")
			return len(now) == 3 && kept(old, now) == 2
		})
		w.until("no process is left over", func() bool { return len(containers(t, w)) == 3 })
		after := containers(t, w)
		for _, process := range before[1:] {
			if !slices.Contains(after, process) {
				t.Errorf("%s was killed, and another replica's process ended too: %v became %v", claim, before, after)
			}
		}
		said := false
		for _, task := range w.tasks("shop") {
			_, was := old[task.ID]
			said = said || was && task.State == "failed" && strings.Contains(task.Message, reason)
		}
		if !said {
			t.Errorf("nothing tells that %s was killed:\n%s", claim, w.run(0, "ps", "-a"))
		}
	}
}

// parentOf reads field 4 of proc_pid_stat(5).
func parentOf(t *testing.T, pid string) string {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	must(t, err)
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[1]
}
