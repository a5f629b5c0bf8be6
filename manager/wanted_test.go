package manager

import (
	"fmt"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/reconciler"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestASlotStaysWithItsVolume(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ran := func(slot int, node swarm.NodeID, state swarm.TaskState, minute int) swarm.Task {
		return swarm.Task{Service: "shop/db", Slot: slot, Node: node, Created: at.Add(time.Duration(minute) * time.Minute), Status: swarm.TaskStatus{State: state}}
	}
	service := func(name string) swarm.Service {
		return swarm.Service{Name: name, Mode: swarm.Replicated, Task: swarm.TaskSpec{Mounts: []swarm.Mount{{Kind: swarm.MountVolume, Source: "data"}}}}
	}
	on := func(nodes ...swarm.NodeID) (kept []swarm.KeptVolume) {
		for _, node := range nodes {
			kept = append(kept, swarm.KeptVolume{ID: "shop/data", Node: node})
		}
		return kept
	}
	for _, c := range []struct {
		claim string
		slot  int
		tasks []swarm.Task
		kept  []swarm.KeptVolume
		other bool // another service mounts it as well
		want  string
	}{
		{"one that never ran, and no volume, makes one", 1, nil, nil, false, "[]"},
		{"one that ran goes back", 1, []swarm.Task{ran(1, "a", swarm.TaskFailed, 0)}, on("a", "b"), false, "[a]"},
		{"to where it ran last", 1, []swarm.Task{ran(1, "b", swarm.TaskFailed, 5), ran(1, "a", swarm.TaskFailed, 0)}, on("a", "b"), false, "[b]"},
		{"unless that volume was released", 1, []swarm.Task{ran(1, "a", swarm.TaskFailed, 0)}, on("b"), false, "[b]"},
		{"a new one leaves other slots theirs", 3, []swarm.Task{ran(1, "a", swarm.TaskHealthy, 0), ran(2, "b", swarm.TaskHealthy, 0)}, on("a", "b"), false, "[]"},
		{"a new one takes what an earlier slot left", 3, []swarm.Task{ran(1, "a", swarm.TaskHealthy, 0)}, on("a", "b"), false, "[b]"},
		{"what another service mounts too is shared", 3, []swarm.Task{ran(1, "a", swarm.TaskHealthy, 0)}, on("a"), true, "[a]"},
	} {
		stack := &swarm.Stack{Services: []swarm.Service{service("db")}}
		if c.other {
			stack.Services = append(stack.Services, service("backup"))
		}
		sight := reconciler.View{Record: swarm.StackRecord{Name: "shop"}, Accepted: stack, Tasks: c.tasks}
		var nodes []swarm.NodeID
		for _, volume := range homes(sight, stack.Services[0], swarm.Task{Service: "shop/db", Slot: c.slot}, "shop/data", c.kept) {
			nodes = append(nodes, volume.Node)
		}
		if got := fmt.Sprint(nodes); got != c.want {
			t.Errorf("%s: slot %d may go to %s, want %s", c.claim, c.slot, got, c.want)
		}
	}
}
