package reconciler

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// parseStack reads a stack: one service a line, its name and then key=value.
func parseStack(t *testing.T, text string) *swarm.Stack {
	stack := &swarm.Stack{Name: "shop"}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		service := newService(words[0])
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			if err := set(t, &service, key, value); err != nil {
				t.Fatal(err)
			}
		}
		service.Spec = swarm.Digest(fmt.Sprintf("%+v", service.Task))
		stack.Services = append(stack.Services, service)
	}
	slices.SortFunc(stack.Services, func(a, b swarm.Service) int { return strings.Compare(a.Name, b.Name) })
	return stack
}

// newService is a service with the defaults that rendering writes.
func newService(name string) swarm.Service {
	return swarm.Service{
		Name: name, Mode: swarm.Replicated, Replicas: 1,
		Task:     swarm.TaskSpec{StopGrace: 10 * time.Second},
		Restart:  swarm.RestartPolicy{Condition: swarm.RestartAny, Delay: 5 * time.Second},
		Update:   swarm.RolloutPolicy{Parallelism: 1, OnFailure: swarm.FailureRollback, Monitor: 5 * time.Second, Order: swarm.StopFirst},
		Rollback: swarm.RolloutPolicy{Parallelism: 1, OnFailure: swarm.FailurePause, Monitor: 5 * time.Second, Order: swarm.StopFirst},
	}
}

func set(t *testing.T, service *swarm.Service, key, value string) error {
	policy := &service.Update
	if rest, ok := strings.CutPrefix(key, "rollback."); ok {
		key, policy = rest, &service.Rollback
	}
	switch key {
	case "image":
		service.Task.Image = value
	case "env":
		service.Task.Env = map[string]string{"V": value}
	case "grace":
		service.Task.StopGrace = duration(t, value)
	case "mode":
		service.Mode = swarm.Mode(value)
	case "replicas":
		service.Replicas = atoi(t, value)
	case "label":
		service.Labels = map[string]string{"l": value}
	case "parallelism":
		policy.Parallelism = atoi(t, value)
	case "delay":
		policy.Delay = duration(t, value)
	case "on_failure":
		policy.OnFailure = swarm.FailureAction(value)
	case "monitor":
		policy.Monitor = duration(t, value)
	case "ratio":
		policy.MaxFailureRatio, _ = strconv.ParseFloat(value, 64)
	case "order":
		policy.Order = swarm.Order(value)
	case "restart":
		service.Restart.Condition = swarm.RestartCondition(value)
	case "restart_delay":
		service.Restart.Delay = duration(t, value)
	case "attempts":
		service.Restart.MaxAttempts = atoi(t, value)
	case "window":
		service.Restart.Window = duration(t, value)
	case "deadline":
		service.Deadline = duration(t, value)
	case "group":
		service.RollbackGroup = value
	case "reversible":
		service.Reversible = value == "true"
	case "spread":
		service.Spread = append(service.Spread, value)
	case "max_per_node":
		service.MaxPerNode = atoi(t, value)
	case "host_port":
		service.Task.HostPorts = []swarm.Port{{Published: uint16(atoi(t, value)), Host: true}}
	case "volume":
		service.Task.Mounts = []swarm.Mount{{Kind: swarm.MountVolume, Source: value, Target: "/data"}}
	case "rebalance":
		service.Rebalance = value == "auto"
	case "constraint":
		service.Constraints = append(service.Constraints, value)
	case "depends":
		name, condition, _ := strings.Cut(value, ":")
		long := map[string]swarm.Condition{"started": swarm.ServiceStarted, "healthy": swarm.ServiceHealthy, "completed": swarm.ServiceCompleted}
		service.DependsOn = append(service.DependsOn, swarm.Dependency{Service: name, Condition: long[condition]})
	default:
		return fmt.Errorf("unknown key %q of service %s", key, service.Name)
	}
	return nil
}

// parseAct reads "IMAGE [on SEAT]: LIFE [then LIFE]…", a life being words with
// commas between them: "healthy after 1s", "dies after 2s exit 3".
func parseAct(t *testing.T, line string) act {
	who, what, _ := strings.Cut(line, ": ")
	image, seat, _ := strings.Cut(who, " on ")
	a := act{image: image, seat: seat}
	for text := range strings.SplitSeq(what, " then ") {
		l := life{dies: -1}
		for part := range strings.SplitSeq(text, ", ") {
			parseLife(t, &l, strings.Fields(part))
		}
		a.lives = append(a.lives, l)
	}
	return a
}

func parseLife(t *testing.T, l *life, words []string) {
	rest := func(n int) string { return strings.Join(words[n:], " ") }
	switch strings.Join(words[:min(2, len(words))], " ") {
	case "healthy after":
		l.healthy = duration(t, words[2])
	case "never healthy":
		l.healthy = -1
	case "prepares after":
		l.prepare = duration(t, words[2])
	case "dies after", "exits after":
		l.dies = duration(t, words[2])
		if len(words) > 3 {
			l.exit = atoi(t, words[4])
		}
	case "unhealthy after":
		l.dies, l.message = duration(t, words[2]), "unhealthy: "+rest(3)
	case "stops after":
		l.stops = duration(t, words[2])
	case "never stops":
		l.stops = -1
	case "never drains":
		l.undrain = true
	case "content refused":
		l.refused, l.message = swarm.CauseContent, rest(2)
	case "environment refused":
		l.refused, l.message = swarm.CauseEnvironment, rest(2)
	default:
		t.Fatalf("unknown life %q", strings.Join(words, " "))
	}
}
