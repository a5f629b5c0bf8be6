package scheduler_test

import (
	"fmt"
	"testing"

	"github.com/gitswarm/gitswarm/manager/scheduler"
	"github.com/gitswarm/gitswarm/swarm"
)

// large is a cluster of nodes in 250 racks of 4 zones, each with room for 200
// tasks, that runs so many services of 100 replicas each.
func large(b *testing.B, nodes, services int) *scheduler.Cluster {
	b.Helper()
	c := new(scheduler.Cluster)
	for i := range nodes {
		n := labelled(swarm.NodeID(fmt.Sprintf("n%05d", i*7919%nodes)), fmt.Sprintf("zone=%d", i%4), fmt.Sprintf("rack=%d", i%250))
		n.Description.Resources = swarm.Resources{NanoCPUs: 200e9, Memory: 200 << 30}
		c.PutNode(n)
	}
	for i := range services {
		fill(b, c, service(i, 100))
	}
	return c
}

// service is that many replicas which reserve something.
func service(number, replicas int) []scheduler.Wanted {
	wanted := make([]scheduler.Wanted, 0, replicas)
	id := swarm.ServiceID(fmt.Sprintf("stack%d/web", number))
	for i := range replicas {
		wanted = append(wanted, scheduler.Wanted{
			Task: swarm.TaskID(fmt.Sprintf("stack%d/web.%d.k3x9q2", number, i+1)), Service: id, Slot: i + 1,
			Reservations: swarm.Resources{NanoCPUs: 1e9, Memory: 1 << 30}, Platforms: []string{"linux/amd64"},
		})
	}
	return wanted
}

// fill places tasks and leaves them there.
func fill(b *testing.B, c *scheduler.Cluster, wanted []scheduler.Wanted) {
	for i, p := range c.Place(wanted, nil) {
		if p.Node == "" {
			b.Fatal(p.Why)
		}
		c.Put(occupantOf(wanted[i], p))
	}
}

func perSecond(b *testing.B, placements int) {
	b.ReportMetric(float64(placements)*float64(b.N)/b.Elapsed().Seconds(), "placements/s")
}

// BenchmarkPlaceAMillion fills 10,000 empty nodes with 10,000 services of 100
// replicas: each service is one call, and its placements stay.
func BenchmarkPlaceAMillion(b *testing.B) {
	const services, replicas = 10_000, 100
	for b.Loop() {
		c := large(b, 10_000, 0)
		for i := range services {
			fill(b, c, service(i, replicas))
		}
	}
	perSecond(b, services*replicas)
}

// BenchmarkPlaceOneAmongAMillion places one replica at a time, as a rollout
// does, where 10,000 nodes run 1,000,000 tasks.
func BenchmarkPlaceOneAmongAMillion(b *testing.B) {
	c := large(b, 10_000, 10_000)
	for _, kind := range []struct {
		name   string
		change func(*scheduler.Wanted)
	}{
		{"plain", func(*scheduler.Wanted) {}},
		{"constraint", func(w *scheduler.Wanted) { w.Constraints = []string{"node.labels.zone==3", "node.labels.rack==3"} }},
		{"zones", func(w *scheduler.Wanted) { w.Spread = []string{"node.labels.zone"} }},
		{"zones and racks", func(w *scheduler.Wanted) { w.Spread = []string{"node.labels.zone", "node.labels.rack"} }},
	} {
		b.Run(kind.name, func(b *testing.B) {
			wanted := service(0, 1)
			kind.change(&wanted[0])
			c.Place(wanted, nil) // what it asks for is known from now on
			for b.Loop() {
				if p := c.Place(wanted, nil)[0]; p.Node == "" {
					b.Fatal(p.Why)
				}
			}
			perSecond(b, 1)
		})
	}
}

// BenchmarkPlaceAllReplicasOfOne places 100,000 replicas of one service on
// 10,000 nodes in one call.
func BenchmarkPlaceAllReplicasOfOne(b *testing.B) {
	c := large(b, 10_000, 0)
	wanted := service(0, 100_000)
	for b.Loop() {
		c.Place(wanted, nil)
	}
	perSecond(b, len(wanted))
}

// BenchmarkPlaceNowhere explains why none of 10,000 nodes fits.
func BenchmarkPlaceNowhere(b *testing.B) {
	c := large(b, 10_000, 1000)
	wanted := service(0, 10)
	for i := range wanted {
		wanted[i].Reservations.Memory = 1 << 50
	}
	for b.Loop() {
		c.Place(wanted, nil)
	}
	perSecond(b, len(wanted))
}
