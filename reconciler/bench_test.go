package reconciler

import (
	"fmt"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// BenchmarkAdvanceWithNothingToDo is what each status of a large stack costs.
func BenchmarkAdvanceWithNothingToDo(b *testing.B) {
	stack := &swarm.Stack{Name: "shop"}
	for i := range 100 {
		service := newService(fmt.Sprintf("s%03d", i))
		service.Task.Image, service.Replicas = "image:1", 10
		if i > 0 {
			service.DependsOn = []swarm.Dependency{{Service: fmt.Sprintf("s%03d", i-1), Condition: swarm.ServiceStarted}}
		}
		service.Spec = swarm.Digest(fmt.Sprintf("%+v", service.Task))
		stack.Services = append(stack.Services, service)
	}
	c := newCluster("n1", "n2", "n3")
	c.accept("v1", stack)
	c.run(time.Hour, c.over)
	view := c.view()
	b.ResetTimer()
	for b.Loop() {
		Advance(view, c.now)
	}
}

// BenchmarkAdvanceAmongManyNodes is what each status of a small stack costs in
// a cluster of 10,000 nodes.
func BenchmarkAdvanceAmongManyNodes(b *testing.B) {
	c := newCluster("n1", "n2", "n3")
	c.accept("v1", &swarm.Stack{Name: "shop", Services: oneService(newService("web")).Services})
	c.run(time.Hour, c.over)
	view := c.view()
	for i := range 10_000 {
		view.Nodes = append(view.Nodes, swarm.Node{
			ID: swarm.NodeID(fmt.Sprintf("node-%05d", i)), State: swarm.NodeReady, Availability: swarm.NodeActive,
		})
	}
	b.ResetTimer()
	for b.Loop() {
		Advance(view, c.now)
	}
}
