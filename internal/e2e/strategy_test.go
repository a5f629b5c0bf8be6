package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// counted samples how many of the app's containers there are until the
// function returned is called, which says the fewest and the most.
func counted(t *testing.T, w *world) (stop func() (fewest, most int)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan [2]int)
	go func() {
		seen := [2]int{len(containers(t, w)), 0}
		for ctx.Err() == nil {
			n := len(containers(t, w))
			seen[0], seen[1] = min(seen[0], n), max(seen[1], n)
			pause(t, 5*time.Millisecond)
		}
		done <- seen
	}()
	return func() (int, int) {
		cancel()
		seen := <-done
		return seen[0], seen[1]
	}
}

func TestStartFirstNeverHasFewerHealthyThanReplicas(t *testing.T) {
	port := freePorts(t, 1)[0]
	stack := func(tag string) map[string]string {
		return map[string]string{"shop/compose.yaml": fmt.Sprintf(`services:
  web:
    image: REGISTRY/app:%s
    stop_grace_period: 2s
    ports: ["%d:8080"]
    environment: {APP_SLOW_START: 300ms}
    healthcheck: {test: ["CMD", "/app", "health"], interval: 1s, start_period: 10s, start_interval: 100ms}
    deploy: {replicas: 3, update_config: {order: start-first, monitor: 0s}}
`, tag, port)}
	}
	w := settled(t, stack("v1"))

	var asked, failed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		for ctx.Err() == nil {
			asked.Add(1)
			answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
			if err != nil {
				failed.Add(1)
				continue
			}
			answer.Body.Close()
		}
	}()
	count := counted(t, w)
	w.wait(w.push(stack("v2")), 0)
	w.until("the old ones are gone", func() bool { return len(containers(t, w)) == 3 })
	fewest, most := count()
	cancel()
	<-done

	if fewest != 3 || most > 5 { // three, a new one, and one that was asked to go
		t.Errorf("there were %d to %d containers, want 3 to 5", fewest, most)
	}
	if failed.Load() > 0 || asked.Load() < 10 {
		t.Errorf("%d of %d requests failed, want none", failed.Load(), asked.Load())
	}
}

func TestParallelismFailureActionsAndGroupsAreHeeded(t *testing.T) {
	w := settled(t, map[string]string{"two/compose.yaml": web("v1", 6, "      update_config: {monitor: 200ms, parallelism: 2}\n")})
	count := counted(t, w)
	w.wait(w.push(map[string]string{"two/compose.yaml": web("v2", 6, "      update_config: {monitor: 200ms, parallelism: 2}\n")}), 0)
	if fewest, most := count(); fewest != 4 || most != 6 {
		t.Errorf("parallelism 2: there were %d to %d of 6 containers, want 4 to 6", fewest, most)
	}

	const pausing = "      update_config: {monitor: 200ms, failure_action: pause}\n"
	w.wait(w.push(map[string]string{"two/compose.yaml": web("v2", 2, pausing)}), 0)
	before := w.healthy("two/web")
	bad := w.push(map[string]string{"two/compose.yaml": web("exits-at-once", 2, pausing)})
	expect(t, "the paused rollout", w.wait(bad, 2), "paused", "exited 7")
	if kept(before, w.healthy("two/web")) != 1 {
		t.Errorf("a paused rollout left %d of 2 replicas alone, want 1", kept(before, w.healthy("two/web")))
	}
	w.wait(w.push(map[string]string{"two/compose.yaml": web("v3", 2, pausing)}), 0)

	w.push(map[string]string{"two/compose.yaml": web("exits-at-once", 2, "      update_config: {monitor: 200ms, failure_action: continue}\n      restart_policy: {delay: 1s}\n")})
	w.until("a rollout that continues replaces all", func() bool {
		touched := map[int]bool{}
		for _, task := range w.tasks("two") {
			if strings.HasSuffix(task.Image, "exits-at-once") && task.State == "failed" {
				touched[task.Slot] = true
			}
		}
		return len(touched) == 2
	})

	groups := func(tag, bad string) map[string]string {
		return map[string]string{"two/compose.yaml": fmt.Sprintf(`services:
  web: {image: "REGISTRY/app:%s", stop_grace_period: 1s, x-gitswarm: {rollback_group: front}, %s}
  api: {image: "REGISTRY/app:%s", stop_grace_period: 1s, depends_on: [web], deploy: {update_config: {monitor: 200ms}}}
  job: {image: "REGISTRY/app:%s", stop_grace_period: 1s, depends_on: [web], deploy: {update_config: {monitor: 1s}}}
`, tag, instant, tag, bad)}
	}
	w.wait(w.push(groups("v1", "v1")), 0)
	w.wait(w.push(groups("v2", "exits-at-once")), 2)
	for service, tag := range map[string]string{"two/web": "v2", "two/api": "v1", "two/job": "v1"} {
		w.until(service+" runs "+tag, func() bool {
			for _, image := range w.healthy(service) {
				return strings.HasSuffix(image, ":"+tag)
			}
			return false
		})
	}
}

func TestOperatorsScaleRestartRedeploySuspendRollBackAndRetry(t *testing.T) {
	stack := func(tag, other string, replicas int) map[string]string {
		return map[string]string{"shop/compose.yaml": web(tag, replicas, quick) + "  other: {image: \"REGISTRY/app:v1\", environment: {ROUND: \"" + other + "\"}, stop_grace_period: 1s, " + instant + "}\n"}
	}
	w := settled(t, stack("v1", "1", 2))
	images := func(service string) (tags []string) {
		for _, image := range w.healthy(service) {
			tags = append(tags, image[strings.LastIndex(image, ":")+1:])
		}
		slices.Sort(tags)
		return tags
	}

	before := w.healthy("shop/web")
	w.run(0, "scale", "shop/web=4", "--wait")
	if got := w.healthy("shop/web"); len(got) != 4 || kept(before, got) != 2 {
		t.Errorf("scaled to %d replicas with %d of the old ones, want 4 and 2", len(got), kept(before, got))
	}
	w.wait(w.push(stack("v1", "2", 2)), 0)
	if got := len(w.healthy("shop/web")); got != 4 {
		t.Errorf("a change of another service left %d replicas, want the operator's 4", got)
	}
	w.wait(w.push(stack("v2", "2", 3)), 0)
	w.until("a revision that changes the service ends the scale", func() bool { return fmt.Sprint(images("shop/web")) == "[v2 v2 v2]" })

	before, other := w.healthy("shop/web"), w.healthy("shop/other")
	count := counted(t, w)
	w.run(0, "restart", "shop/web", "--wait")
	if fewest, most := count(); fewest != 3 || most != 4 {
		t.Errorf("a restart had %d to %d of 4 containers running, want one at a time", fewest, most)
	}
	if after := w.healthy("shop/web"); len(after) != 3 || kept(before, after) != 0 || kept(other, w.healthy("shop/other")) != 1 {
		t.Errorf("a restart left %d of 3 replicas, and has %d", kept(before, after), len(after))
	}

	must(t, shared.PushApp("moving", "APP_VERSION=first"))
	w.wait(w.push(stack("moving", "2", 1)), 0)
	must(t, shared.PushApp("moving", "APP_VERSION=second"))
	before = w.healthy("shop/web")
	w.wait(w.push(map[string]string{"shop/compose.yaml": stack("moving", "3", 1)["shop/compose.yaml"] + "# a comment\n"}), 0)
	if kept(before, w.healthy("shop/web")) != 1 {
		t.Error("a tag that moved replaced a replica without being asked")
	}
	w.run(0, "redeploy", "shop/web", "--pull", "--wait")
	expect(t, "after redeploy --pull", w.in("shop/web", "get", "http://127.0.0.1:8080/"), "hello from second")

	w.run(0, "suspend", "shop", "--reason", "stocktaking")
	held := w.push(stack("v3", "3", 1))
	expect(t, "a suspended stack", w.wait(held, 6), "stocktaking")
	expect(t, "it still runs", w.in("shop/web", "get", "http://127.0.0.1:8080/"), "hello from second")
	w.run(0, "resume", "shop")
	w.wait(held, 0)
	expect(t, "after resume", w.in("shop/web", "get", "http://127.0.0.1:8080/"), "hello from v3")

	w.run(0, "rollback", "shop", "--wait")
	expect(t, "after a rollback by hand", w.in("shop/web", "get", "http://127.0.0.1:8080/"), "hello from second")
	expect(t, "status", w.run(0, "status", "-a"), "retry")
	w.run(0, "retry", "shop", "--wait")
	expect(t, "after a retry", w.in("shop/web", "get", "http://127.0.0.1:8080/"), "hello from v3")
	expect(t, "history", w.run(0, "history", "shop"), "healthy", held[:7])
}

func TestANewerCommitFreesAStuckRolloutAndRemovalsComeLast(t *testing.T) {
	stack := func(tag, more, rest string) map[string]string {
		return map[string]string{"shop/compose.yaml": web(tag, 2, quick) + more + rest}
	}
	const rest = "  a: {image: \"REGISTRY/app:v1\", stop_grace_period: 1s, " + instant + "}\n  b: {image: \"REGISTRY/app:v1\", stop_grace_period: 1s, " + instant + "}\n" +
		"  c: {image: \"REGISTRY/app:v1\", stop_grace_period: 1s, " + instant + "}\n  d: {image: \"REGISTRY/app:v1\", stop_grace_period: 1s, " + instant + "}\n"
	const gone = "  gone: {image: \"REGISTRY/app:v1\", stop_grace_period: 1s, " + instant + "}\n"
	w := settled(t, stack("v1", "", rest+gone))

	before := w.healthy("shop/web")
	stuck := w.push(stack("never-healthy", "    healthcheck: {test: [\"CMD\", \"/app\", \"health\"], interval: 200ms, start_period: 10m, start_interval: 200ms}\n", rest+gone))
	w.until("the rollout is stuck", func() bool {
		return slices.ContainsFunc(w.tasks("shop"), func(task task) bool { return task.State == "starting" })
	})
	w.wait(w.push(stack("v2", "", rest+gone)), 0)
	expect(t, "the stuck revision", w.wait(stuck, 5), "superseded")
	if kept(before, w.healthy("shop/web")) != 0 || len(w.healthy("shop/web")) != 2 {
		t.Error("the fixing commit did not replace both replicas")
	}

	old := w.healthy("shop/gone")
	removing := w.push(stack("v3", "", rest))
	early := false
	w.until("the removed service is stopped", func() bool {
		there := kept(old, w.healthy("shop/gone")) == 1
		replaced := 0
		for _, image := range w.healthy("shop/web") {
			if strings.HasSuffix(image, ":v3") {
				replaced++
			}
		}
		early = early || !there && replaced < 2
		return !there
	})
	if early {
		t.Error("a service that the commit removed was stopped before the rest was healthy")
	}
	w.wait(removing, 0)
}

func TestARenamedStackAsksNobodyUnlessItOwnsVolumes(t *testing.T) {
	text := func(more, volumes string) string {
		return more + "services:\n  db: {image: \"REGISTRY/app:v1\", stop_grace_period: 1s, " + instant + "}\n" + volumes
	}
	const volumes = "  keeper: {image: \"REGISTRY/app:v1\", stop_grace_period: 1s, volumes: [\"files:/files\"], " + instant + "}\nvolumes: {files: {}}\n"
	w := settled(t, map[string]string{"old/compose.yaml": text("", ""), "data/compose.yaml": text("", volumes)})

	w.wait(w.push(map[string]string{"old/compose.yaml": "", "new/compose.yaml": text("x-gitswarm: {was: old}\n", "")}), 0)
	w.until("the stack has its new name alone", func() bool {
		return len(w.healthy("new/db")) == 1 && !strings.Contains(w.run(0, "status", "-a"), "old ")
	})

	before := w.healthy("data/keeper")
	refused := w.push(map[string]string{"data/compose.yaml": "", "moved/compose.yaml": text("x-gitswarm: {was: data}\n", volumes)})
	expect(t, "a rename of a stack with volumes", w.wait(refused, 4), "owns volumes", "keep the name")
	if kept(before, w.healthy("data/keeper")) != 1 {
		t.Error("a stack with volumes was touched by a rename that was refused")
	}
}
