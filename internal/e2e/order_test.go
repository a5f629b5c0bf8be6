package e2e

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// all lists a service's tasks, ended ones included, as "state: message".
func (w *world) all(service string) (said []string) {
	w.t.Helper()
	for _, task := range w.tasks(strings.Split(service, "/")[0]) {
		if task.Service == service {
			said = append(said, task.State+": "+task.Message)
		}
	}
	return said
}

func TestServicesStartInTheOrderOfTheirDependencies(t *testing.T) {
	stack := func(migration, round string) map[string]string {
		return map[string]string{"shop/compose.yaml": `services:
  web:
    image: REGISTRY/app:v1
    stop_grace_period: 1s
    environment: {APP_NEEDS: "/state/migrated,http://cache:8080/health", ROUND: "` + round + `"}
    volumes: ["state:/state:ro"]
    depends_on:
      migrate: {condition: service_completed_successfully}
      cache: {condition: service_healthy}
      early: {condition: service_started}
    ` + instant + `
  cache:
    image: REGISTRY/app:v1
    stop_grace_period: 1s
    environment: {APP_SLOW_START: 1s}
    healthcheck: {test: ["CMD", "/app", "health"], interval: 200ms, start_period: 10s, start_interval: 200ms}
    ` + instant + `
  early:
    image: REGISTRY/app:v1
    stop_grace_period: 1s
    environment: {APP_SLOW_START: 4s}
    healthcheck: {test: ["CMD", "/app", "health"], interval: 200ms, start_period: 10s, start_interval: 200ms}
    ` + instant + `
  migrate:
    image: REGISTRY/app:v1
    command: ` + migration + `
    volumes: ["state:/state"]
    deploy: {mode: replicated-job, restart_policy: {max_attempts: 1, delay: 0s}}
  many: {image: "REGISTRY/app:v1", command: [sleep, 100ms], deploy: {mode: replicated-job, replicas: 3}}
  everywhere: {image: "REGISTRY/app:v1", stop_grace_period: 1s, deploy: {mode: global, update_config: {monitor: 0s}}}
  once-everywhere: {image: "REGISTRY/app:v1", command: [sleep, 100ms], deploy: {mode: global-job}}
  one-shot: {image: "REGISTRY/app:v1", command: [sleep, 100ms], restart: "no"}
  debug: {image: "REGISTRY/app:no-such-image", profiles: [debug]}
volumes: {state: {}}
`}
	}
	w := begin(t, stack("[write, /state/migrated, first]", "1"))
	w.until("web runs before early is healthy", func() bool { return len(w.healthy("shop/web")) == 1 && len(w.healthy("shop/early")) == 0 })
	w.wait(w.first, 0)

	for service, want := range map[string]int{"shop/migrate": 1, "shop/many": 3, "shop/once-everywhere": 1, "shop/one-shot": 1, "shop/debug": 0} {
		if got := w.all(service); len(got) != want || strings.Count(strings.Join(got, "\n"), "complete: ") != want {
			t.Errorf("%s has the tasks %q, want %d that completed", service, got, want)
		}
	}
	if len(w.healthy("shop/everywhere")) != 1 {
		t.Error("a global service has no task on the node")
	}

	w.wait(w.push(stack("[write, /state/migrated, first]", "2")), 0)
	if got := w.all("shop/migrate"); len(got) != 1 {
		t.Errorf("a job whose spec did not change ran again: %q", got)
	}
	if got := w.all("shop/one-shot"); len(got) != 1 {
		t.Errorf("a one-shot whose spec did not change ran again: %q", got)
	}
	w.wait(w.push(stack("[write, /state/migrated, second]", "3")), 0)
	expect(t, "the second migration", w.in("shop/web", "cat", "/state/migrated"), "second")

	web := w.healthy("shop/web")
	said := w.wait(w.push(stack("[exit, \"4\"]", "4")), 2)
	expect(t, "the failed migration's reason", said, "migrate", "exited 4")
	if kept(web, w.healthy("shop/web")) != 1 {
		t.Error("web was touched though the migration before it failed")
	}
}

func TestExitsAreFollowedByWhatTheRestartPolicySays(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": `services:
  any: {image: "REGISTRY/app:v1", stop_grace_period: 1s, deploy: {restart_policy: {delay: 1s}, update_config: {monitor: 0s}}}
  failure: {image: "REGISTRY/app:v1", stop_grace_period: 1s, deploy: {restart_policy: {condition: on-failure, delay: 0s, max_attempts: 2}, update_config: {monitor: 0s}}}
  success: {image: "REGISTRY/app:v1", stop_grace_period: 1s, deploy: {restart_policy: {condition: on-failure, delay: 0s}, update_config: {monitor: 0s}}}
  never: {image: "REGISTRY/app:v1", restart: "no", stop_grace_period: 1s, deploy: {update_config: {monitor: 0s}}}
`})
	end := func(service, code string) {
		t.Helper()
		old := w.healthy(service)
		w.Run(t.Context(), "exec", service, "--", "/app", "get", "http://127.0.0.1:8080/exit?code="+code)
		w.until(service+"'s end is known", func() bool { return kept(old, w.healthy(service)) == 0 })
	}
	alive := func(service string) bool { return len(w.healthy(service)) == 1 }

	began := time.Now()
	end("shop/any", "0")
	w.until("any starts again after exit 0", func() bool { return alive("shop/any") })
	if took := time.Since(began); took < time.Second {
		t.Errorf("it started again after %s, want the delay of 1s at least", took)
	}
	for range 2 {
		end("shop/failure", "5")
		w.until("on-failure starts again", func() bool { return alive("shop/failure") })
	}
	end("shop/failure", "5")
	end("shop/success", "0")
	end("shop/never", "6")
	w.until("status tells of services that stay down", func() bool { return strings.Contains(w.run(0, "status", "-a"), "DOWN") })
	for service, want := range map[string][]string{
		"shop/failure": {"failed: exited 5 after", "failed: exited 5 after", "failed: exited 5 after"},
		"shop/success": {"complete: exited 0 after"},
		"shop/never":   {"failed: exited 6 after"},
	} {
		got := w.all(service)
		for i, text := range want {
			if len(got) != len(want) || !strings.HasPrefix(got[i], text) {
				t.Errorf("%s has the tasks %q, want %q and no more", service, got, want)
				break
			}
		}
	}
}

func TestTheImagesOwnHealthCheckCountsUnlessDisabled(t *testing.T) {
	must(t, shared.Push("app:checked", v1.Config{
		Entrypoint: []string{"/app"}, Env: []string{"PATH=/", "APP_VERSION=checked"},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/app", "health"}, Interval: 300 * time.Millisecond, Timeout: time.Second, Retries: 2},
	}))
	stack := func(unhealthy, more string) map[string]string {
		return map[string]string{"shop/compose.yaml": `services:
  web: {image: "REGISTRY/app:checked", stop_grace_period: 1s, environment: {APP_UNHEALTHY: "` + unhealthy + `"}` + more + `, deploy: {restart_policy: {delay: 0s}, update_config: {monitor: 0s}}}
`}
	}
	w := settled(t, stack("never", ""))
	expect(t, "the reason", w.wait(w.push(stack("0s", "")), 2), "unhealthy", "503")
	w.wait(w.push(stack("0s", ", healthcheck: {disable: true}")), 0)

	w.wait(w.push(stack("2s", ", healthcheck: {interval: 100ms}")), 0)
	old := w.healthy("shop/web")
	w.until("what turns unhealthy is replaced", func() bool { return kept(old, w.healthy("shop/web")) == 0 && len(w.healthy("shop/web")) == 1 })
	expect(t, "its end", strings.Join(w.all("shop/web"), "\n"), "failed: unhealthy")
}
