package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// web is a compose file with one service.
func web(tag string, replicas int, more ...string) string {
	return fmt.Sprintf("services:\n  web:\n    image: REGISTRY/app:%s\n    stop_grace_period: 2s\n    deploy:\n      replicas: %d\n%s", tag, replicas, strings.Join(more, ""))
}

const quick = "      update_config: {monitor: 200ms}\n"

func TestAnImageThatDiesAfterTwoSecondsCostsOneReplicaOfTen(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 10)})
	before := w.healthy("shop/web")

	commit := w.push(map[string]string{"shop/compose.yaml": web("dies-after-2s", 10)})
	said := w.wait(commit, 2)

	after := w.healthy("shop/web")
	if n := kept(before, after); n != 9 {
		t.Errorf("%d of 10 containers were left alone, want 9", n)
	}
	if len(after) != 10 {
		t.Errorf("%d replicas are healthy after the rollback, want 10", len(after))
	}
	if !strings.Contains(said, "exited 3") {
		t.Errorf("the reason does not name the exit code:\n%s", said)
	}
	touched := 0
	for _, task := range w.tasks("shop") {
		if strings.HasSuffix(task.Image, "dies-after-2s") {
			touched++
		}
	}
	if touched != 1 {
		t.Errorf("%d replicas ran the bad image, want 1", touched)
	}
}

func TestBadContentIsRolledBackAndQuarantined(t *testing.T) {
	for claim, change := range map[string]string{
		"an image that exits at once":     web("exits-at-once", 2, quick),
		"a command that is not found":     web("v2", 2, quick) + "    entrypoint: [\"/no/such/command\"]\n",
		"a service that is never healthy": web("never-healthy", 2, quick) + "    healthcheck: {test: [\"CMD\", \"/app\", \"health\"], interval: 300ms, timeout: 1s, retries: 2}\n",
	} {
		t.Run(claim, func(t *testing.T) {
			w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 2, quick)})
			before := w.healthy("shop/web")

			w.wait(w.push(map[string]string{"shop/compose.yaml": change}), 2)
			if n := kept(before, w.healthy("shop/web")); n < 1 {
				t.Errorf("%d of 2 containers were left alone, want 1 at least", n)
			}

			again := w.push(map[string]string{"shop/compose.yaml": change + "# the same content under another commit\n"})
			if said, _ := w.Run(t.Context(), "status", "--wait", "--revision", again, "--timeout", "20s"); !strings.Contains(said, "retry") {
				t.Errorf("content that failed before is not held back:\n%s", said)
			}
		})
	}
}

func TestWhatTheEnvironmentLacksIsWaitedForAndTouchesNothing(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 2, quick)})
	before := w.healthy("shop/web")

	w.push(map[string]string{"shop/compose.yaml": web("not-pushed-yet", 2, quick)})
	w.until("status names the image that is missing", func() bool {
		said := w.run(0, "status", "-a")
		return strings.Contains(said, "waiting") && strings.Contains(said, "not-pushed-yet")
	})
	if n := kept(before, w.healthy("shop/web")); n != 2 {
		t.Fatalf("%d of 2 containers were left alone, want all", n)
	}
	must(t, shared.PushApp("not-pushed-yet"))
	w.until("it went on by itself", func() bool {
		images := w.healthy("shop/web")
		n := 0
		for _, image := range images {
			if strings.HasSuffix(image, "not-pushed-yet") {
				n++
			}
		}
		return n == 2
	})

	before = w.healthy("shop/web")
	w.push(map[string]string{"shop/compose.yaml": web("v2", 2, quick, "      resources: {reservations: {memory: 900G}}\n")})
	w.until("status says what does not fit", func() bool { return strings.Contains(w.run(0, "status", "-a"), "not enough memory") })
	if n := kept(before, w.healthy("shop/web")); n != 2 {
		t.Errorf("%d of 2 containers were left alone, want all", n)
	}
	w.wait(w.push(map[string]string{"shop/compose.yaml": web("v2", 2, quick)}), 0)
}

func TestAStackGoesBackAsAWhole(t *testing.T) {
	two := func(web, api, greeting string, more string) map[string]string {
		return map[string]string{
			"shop/greeting.txt": greeting,
			"shop/compose.yaml": fmt.Sprintf(`services:
  web:
    image: REGISTRY/app:%s
    configs: [{source: greeting, target: /greeting}]
    deploy: {replicas: 2, update_config: {monitor: 200ms}}
  api:
    image: REGISTRY/app:%s
    depends_on: [web]
    deploy: {replicas: 2, update_config: {monitor: 3s}}
%sconfigs: {greeting: {file: ./greeting.txt}}
`, web, api, more),
		}
	}
	extra := "  extra: {image: REGISTRY/app:v1}\n  a: {image: REGISTRY/app:v1}\n  b: {image: REGISTRY/app:v1}\n  c: {image: REGISTRY/app:v1}\n"
	w := settled(t, two("v1", "v1", "first", extra))
	kept := w.healthy("shop/extra")

	without := strings.Replace(extra, "  extra: {image: REGISTRY/app:v1}\n", "", 1)
	w.wait(w.push(two("v2", "dies-after-2s", "second", without)), 2)

	for id, image := range w.healthy("shop/web") {
		if !strings.HasSuffix(image, "app:v1") {
			t.Errorf("%s is on %s, want v1: the first service must go back when the second fails", id, image)
		}
		if got := w.run(0, "exec", id, "/app", "cat", "/greeting"); !strings.Contains(got, "first") {
			t.Errorf("%s sees config %q, want the first", id, got)
		}
	}
	for id := range kept {
		if _, still := w.healthy("shop/extra")[id]; !still {
			t.Error("the service that the commit removed was stopped before the rest was healthy")
		}
	}
}

func TestWhatDoesNotChangeTheContainerRestartsNothing(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 2, quick)})
	before := w.healthy("shop/web")

	for claim, change := range map[string]string{
		"a comment":       web("v1", 2, quick) + "# a comment\n",
		"a deploy label":  web("v1", 2, quick, "      labels: {team: shop}\n"),
		"more replicas":   web("v1", 3, quick),
		"fewer replicas":  web("v1", 2, quick),
		"update settings": web("v1", 2, "      update_config: {monitor: 300ms, parallelism: 2}\n"),
	} {
		w.wait(w.push(map[string]string{"shop/compose.yaml": change}), 0)
		if n := kept(before, w.healthy("shop/web")); n != 2 {
			t.Errorf("%s: %d of 2 containers were left alone, want all", claim, n)
		}
	}
}
