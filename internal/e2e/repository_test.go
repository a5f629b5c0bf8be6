package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestATroubledRepositoryRemovesNothing(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 2, quick)})
	before := w.healthy("shop/web")
	unharmed := func(claim, says string) {
		t.Helper()
		w.until(claim+": status says "+says, func() bool { return strings.Contains(w.run(0, "status", "-a"), says) })
		if n := kept(before, w.healthy("shop/web")); n != 2 {
			t.Fatalf("%s: %d of 2 containers were left alone, want all", claim, n)
		}
	}

	away := w.repo.Bare + ".away"
	must(t, os.Rename(w.repo.Bare, away))
	unharmed("the repository is gone", "GIT")
	must(t, os.Rename(away, w.repo.Bare))
	w.until("it recovers by itself", func() bool { return !strings.Contains(w.run(0, "status", "-a"), "GIT ") })

	shell(t, w.repo.Bare, "git", "update-ref", "-d", "refs/heads/main")
	unharmed("the branch is gone", "GIT")
	w.wait(w.push(map[string]string{"shop/compose.yaml": web("v1", 2, quick) + "# again\n"}), 0)

	shell(t, w.repo.Work, "git", "-c", "user.name=Example", "-c", "user.email=example@example.org", "commit", "--amend", "--quiet", "--message", "rewritten")
	rewritten, err := w.repo.Push("after the rewrite", "--force")
	must(t, err)
	w.wait(rewritten, 0)
	if n := kept(before, w.healthy("shop/web")); n != 2 {
		t.Errorf("a forced push of the same content replaced containers: %d of 2 are left", n)
	}

	w.push(map[string]string{"shop/compose.yaml": ""})
	unharmed("the tree is empty", "approve")
}

func TestTheDeletionGuardAsksAndApproveLetsGo(t *testing.T) {
	small := func() string { return "services:\n  web: {image: REGISTRY/app:v1, stop_grace_period: 1s}\n" }
	files := map[string]string{}
	for i := range 7 {
		files[fmt.Sprintf("s%d/compose.yaml", i)] = small()
	}
	files["data/compose.yaml"] = "services:\n  db: {image: REGISTRY/app:v1, stop_grace_period: 1s, volumes: [\"files:/var/files\"]}\nvolumes: {files: {}}\n"
	w := settled(t, files)

	w.wait(w.push(map[string]string{"s0/compose.yaml": ""}), 0)
	w.until("one small stack of many goes by itself", func() bool { return !strings.Contains(w.run(0, "status", "-a"), "s0 ") })

	w.push(map[string]string{"data/compose.yaml": ""})
	plan := w.planThatWaits("owns volumes")
	if len(w.healthy("data/db")) != 1 {
		t.Fatal("a stack with volumes was stopped before anyone approved")
	}
	w.run(0, "approve", plan)
	w.until("the approved stack is gone", func() bool { return !strings.Contains(w.run(0, "status", "-a"), "data ") })
	if volumes := w.run(0, "volume", "ls"); !strings.Contains(volumes, "data/files") {
		t.Errorf("the volume did not outlive its stack:\n%s", volumes)
	}

	w.push(map[string]string{"s1/compose.yaml": "", "s2/compose.yaml": ""})
	w.planThatWaits("stacks removed within a day")
}

// planThatWaits waits until status asks for an approval, and returns the plan.
func (w *world) planThatWaits(why string) (plan string) {
	w.t.Helper()
	w.until("status asks because "+why, func() bool {
		said := w.run(0, "status", "-a")
		_, after, found := strings.Cut(said, "gitswarm approve ")
		if found && strings.Contains(said, why) {
			plan = strings.TrimRight(strings.Fields(after)[0], "`)")
		}
		return plan != ""
	})
	return plan
}

func TestAMissingSecretAndATakenPortAreWaitedFor(t *testing.T) {
	listener, port := occupy(t)
	text := func(extra string) string {
		return web("v2", 2, quick) + extra
	}
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 2, quick)})
	before := w.healthy("shop/web")

	secret := text("    secrets: [token]\nsecrets: {token: {file: ./token.txt}}\n")
	w.push(map[string]string{"shop/compose.yaml": secret})
	w.until("status names the missing secret", func() bool {
		said := w.run(0, "status", "-a")
		return strings.Contains(said, "waiting") && strings.Contains(said, "token.txt")
	})
	if n := kept(before, w.healthy("shop/web")); n != 2 {
		t.Fatalf("%d of 2 containers were left alone, want all", n)
	}
	w.wait(w.push(map[string]string{"shop/token.txt": "a secret\n"}), 0)

	before = w.healthy("shop/web")
	commit := w.push(map[string]string{"shop/compose.yaml": web("v3", 2, quick) + fmt.Sprintf("    ports: [\"%d:8080\"]\n", port)})
	w.until("status names the port", func() bool {
		said := w.run(0, "status", "-a")
		return strings.Contains(said, "waiting") && strings.Contains(said, fmt.Sprint(port))
	})
	if n := kept(before, w.healthy("shop/web")); n != 2 {
		t.Fatalf("%d of 2 containers were left alone, want all", n)
	}
	must(t, listener.Close())
	w.wait(commit, 0)
}

func TestADaemonOfAnotherBuildRestartsNothing(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 2, quick)})
	before := containers(t, w)

	other := filepath.Join(w.Dir, "other", "gitswarm")
	shell(t, ".", "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=other", "-o", other, "../../cmd/gitswarm")
	w.Daemon().Stop()
	w.Bin = other
	_, err := w.StartDaemon(t.Context())
	must(t, err)

	w.until("the new build knows its tasks", func() bool { return len(w.healthy("shop/web")) == 2 })
	if after := containers(t, w); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("containers are %v under another build, want the same processes %v", after, before)
	}
	for id := range w.healthy("shop/web") {
		w.run(0, "exec", id, "/app", "cat", "/etc/hostname")
	}
	w.run(0, "scale", "shop/web=1")
	w.until("the new build can stop what the old one started", func() bool { return len(containers(t, w)) == 1 })
}

// occupy listens on a free port of every address.
func occupy(t *testing.T) (net.Listener, int) {
	t.Helper()
	listener, err := net.Listen("tcp", ":0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	return listener, listener.Addr().(*net.TCPAddr).Port
}

func shell(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, text)
	}
}
