package scheduler_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/manager/scheduler"
	"github.com/gitswarm/gitswarm/swarm"
)

// world is a cluster and, beside it, what was put into it.
type world struct {
	cluster scheduler.Cluster
	nodes   map[swarm.NodeID]swarm.Node
	tasks   map[swarm.TaskID]scheduler.Occupant
	made    int
}

func newWorld() *world {
	return &world{nodes: make(map[swarm.NodeID]swarm.Node), tasks: make(map[swarm.TaskID]scheduler.Occupant)}
}

var (
	ids      = rapid.SampledFrom([]swarm.NodeID{"a", "b", "c", "d", "e", "f"})
	services = rapid.SampledFrom([]swarm.ServiceID{"shop/web", "shop/db", "blog/web"})
	zones    = rapid.SampledFrom([]string{"", "eu", "us"})
)

// drawNode is a node of any kind, mostly one that takes tasks.
func drawNode(t *rapid.T) swarm.Node {
	n := labelled(ids.Draw(t, "node"), "zone="+zones.Draw(t, "zone"), "rack="+rapid.SampledFrom([]string{"1", "2"}).Draw(t, "rack"))
	n.State = rapid.SampledFrom([]swarm.NodeState{swarm.NodeReady, swarm.NodeReady, swarm.NodeReady, swarm.NodeDown, swarm.NodeUnknown}).Draw(t, "state")
	n.Availability = rapid.SampledFrom([]swarm.Availability{swarm.NodeActive, swarm.NodeActive, swarm.NodeActive, swarm.NodePaused, swarm.NodeDrained}).Draw(t, "availability")
	n.Description.Resources = swarm.Resources{NanoCPUs: 4, Memory: rapid.Int64Range(0, 8).Draw(t, "memory")}
	n.Description.Resources.Generic = rapid.SampledFrom([][]swarm.GenericResource{
		nil, {{Kind: "gpu", Count: 3}}, {{Kind: "gpu", Names: []string{"g1", "g2", "g3"}}},
	}).Draw(t, "generic")
	return n
}

// drawWanted is up to six tasks of one service.
func (w *world) drawWanted(t *rapid.T) []scheduler.Wanted {
	one := scheduler.Wanted{
		Service:      services.Draw(t, "service"),
		Reservations: swarm.Resources{NanoCPUs: rapid.Int64Range(0, 2).Draw(t, "cpus"), Memory: rapid.Int64Range(0, 3).Draw(t, "bytes")},
		MaxPerNode:   rapid.IntRange(0, 2).Draw(t, "max"),
		Constraints:  rapid.SampledFrom([][]string{nil, nil, {"node.labels.zone==eu"}, {"node.id!=a"}}).Draw(t, "constraints"),
		Spread:       rapid.SampledFrom([][]string{nil, {"node.labels.zone"}, {"node.labels.zone", "node.labels.rack"}}).Draw(t, "spread"),
		HostPorts:    rapid.SampledFrom([][]swarm.Port{nil, nil, {{Published: 80}}, {{Published: 80, Protocol: swarm.UDP}}}).Draw(t, "ports"),
		Failing:      rapid.SampledFrom([][]swarm.NodeID{nil, nil, {"b"}, {"a", "c"}}).Draw(t, "failing"),
		Volumes:      rapid.SampledFrom([][]swarm.KeptVolume{nil, nil, nil, {{ID: "shop/data", Node: "b"}, {ID: "shop/data", Node: "c"}}}).Draw(t, "volumes"),
	}
	if rapid.IntRange(0, 3).Draw(t, "generic") == 0 {
		one.Reservations.Generic = []swarm.GenericResource{{Kind: "gpu", Count: rapid.Int64Range(1, 2).Draw(t, "gpus")}}
	}
	var wanted []scheduler.Wanted
	for i := range rapid.IntRange(1, 6).Draw(t, "replicas") {
		w.made++
		one.Task, one.Slot = swarm.TaskID(fmt.Sprintf("task.%d", w.made)), i+1
		wanted = append(wanted, one)
	}
	return wanted
}

// change does one thing to the cluster.
func (w *world) change(t *rapid.T) {
	switch rapid.IntRange(0, 5).Draw(t, "change") {
	case 0, 1:
		n := drawNode(t)
		w.nodes[n.ID] = n
		w.cluster.PutNode(n)
	case 2:
		id := ids.Draw(t, "lost")
		delete(w.nodes, id)
		w.cluster.DropNode(id)
	case 3:
		if id := w.anyTask(t); id != "" {
			delete(w.tasks, id)
			w.cluster.Drop(id)
		}
	default:
		wanted := w.drawWanted(t)
		for i, p := range w.cluster.Place(wanted, nil) {
			if p.Node != "" {
				o := occupantOf(wanted[i], p)
				w.tasks[o.Task] = o
				w.cluster.Put(o)
			}
		}
	}
}

func (w *world) anyTask(t *rapid.T) swarm.TaskID {
	if len(w.tasks) == 0 {
		return ""
	}
	return rapid.SampledFrom(w.sorted()).Draw(t, "task")
}

func (w *world) sorted() []swarm.TaskID {
	var sorted []swarm.TaskID
	for id := range w.tasks {
		sorted = append(sorted, id)
	}
	slices.Sort(sorted)
	return sorted
}

func occupantOf(w scheduler.Wanted, p scheduler.Placement) scheduler.Occupant {
	claims := &swarm.Claims{Resources: w.Reservations, Ports: w.HostPorts}
	claims.Resources.Generic = p.Generic
	return scheduler.Occupant{Task: w.Task, Service: w.Service, Node: p.Node, Claims: claims}
}

// fresh is a cluster made anew, in no particular order.
func (w *world) fresh() *scheduler.Cluster {
	c := new(scheduler.Cluster)
	for _, o := range w.tasks {
		c.Put(o)
	}
	for _, n := range w.nodes {
		c.PutNode(n)
	}
	return c
}

func TestAClusterKeptUpToDatePlacesAsOneMadeAnew(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for range rapid.IntRange(1, 25).Draw(t, "changes") {
			w.change(t)
		}
		var leaving []swarm.TaskID
		if id := w.anyTask(t); id != "" {
			leaving = append(leaving, id)
		}
		wanted := append(w.drawWanted(t), w.drawWanted(t)...)

		kept := fmt.Sprint(w.cluster.Place(wanted, leaving))
		if again := fmt.Sprint(w.cluster.Place(wanted, leaving)); again != kept {
			t.Fatalf("placing changed the cluster:\nfirst  %s\nsecond %s", kept, again)
		}
		if fresh := fmt.Sprint(w.fresh().Place(wanted, leaving)); fresh != kept {
			t.Fatalf("kept up to date: %s\nmade anew:       %s", kept, fresh)
		}
		if plain := w.plainly(wanted, leaving); plain != kept {
			t.Fatalf("placed: %s\nby looking at every node: %s", kept, plain)
		}
	})
}

// plainly places by the rules of Place's comment and nothing else: each task
// looks at every node and compares.
func (w *world) plainly(wanted []scheduler.Wanted, leaving []swarm.TaskID) string {
	there := make(map[swarm.TaskID]scheduler.Occupant)
	for id, o := range w.tasks {
		if !slices.Contains(leaving, id) {
			there[id] = o
		}
	}
	var placements []scheduler.Placement
	for _, one := range wanted {
		p := w.best(one, there)
		if p.Node != "" {
			there[one.Task] = occupantOf(one, p)
		}
		placements = append(placements, p)
	}
	return fmt.Sprint(placements)
}

func (w *world) best(one scheduler.Wanted, there map[swarm.TaskID]scheduler.Occupant) scheduler.Placement {
	c := &world{nodes: w.nodes, tasks: there}
	var fits []swarm.NodeID
	found := make(map[swarm.NodeID]scheduler.Placement)
	for id := range w.nodes {
		alone := one // may the task have this node, if it may have no other?
		alone.Constraints = append([]string{"node.id==" + string(id)}, one.Constraints...)
		if p := c.fresh().Place([]scheduler.Wanted{alone}, nil)[0]; p.Node != "" {
			fits, found[id] = append(fits, id), p
		}
	}
	if len(fits) == 0 {
		return c.fresh().Place([]scheduler.Wanted{one}, nil)[0]
	}
	slices.SortFunc(fits, func(a, b swarm.NodeID) int {
		return cmp.Or(
			compareBool(slices.Contains(one.Failing, a), slices.Contains(one.Failing, b)),
			c.compareBranches(one, a, b),
			cmp.Compare(c.count(func(o scheduler.Occupant) bool { return o.Node == a && o.Service == one.Service }),
				c.count(func(o scheduler.Occupant) bool { return o.Node == b && o.Service == one.Service })),
			cmp.Compare(c.count(func(o scheduler.Occupant) bool { return o.Node == a }), c.count(func(o scheduler.Occupant) bool { return o.Node == b })),
			cmp.Compare(a, b))
	})
	return found[fits[0]]
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// compareBranches compares where the branches of two nodes part.
func (w *world) compareBranches(one scheduler.Wanted, a, b swarm.NodeID) int {
	for level := range one.Spread {
		of := func(id swarm.NodeID) string {
			var path []string
			for _, key := range one.Spread[:level+1] {
				value, _ := swarm.NodeValue(w.nodes[id], key)
				path = append(path, value)
			}
			return fmt.Sprint(path)
		}
		tasks := func(id swarm.NodeID) int {
			return w.count(func(o scheduler.Occupant) bool {
				n, known := w.nodes[o.Node]
				return known && n.State != swarm.NodeDown && n.Availability != swarm.NodeDrained && o.Service == one.Service && of(o.Node) == of(id)
			})
		}
		if of(a) != of(b) {
			return cmp.Or(cmp.Compare(tasks(a), tasks(b)), cmp.Compare(of(a), of(b)))
		}
	}
	return 0
}

func (w *world) count(ok func(scheduler.Occupant) bool) int {
	n := 0
	for _, o := range w.tasks {
		if ok(o) {
			n++
		}
	}
	return n
}

func TestNoNodeEverHasMoreThanItHas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for _, id := range []swarm.NodeID{"a", "b", "c"} {
			w.nodes[id] = node(id, func(n *swarm.Node) {
				n.Description.Resources = swarm.Resources{NanoCPUs: 4, Memory: 8, Generic: []swarm.GenericResource{{Kind: "gpu", Names: []string{"g1", "g2"}}}}
			})
			w.cluster.PutNode(w.nodes[id])
		}
		for range rapid.IntRange(1, 8).Draw(t, "services") {
			wanted := w.drawWanted(t)
			for i, p := range w.cluster.Place(wanted, nil) {
				if p.Node != "" {
					o := occupantOf(wanted[i], p)
					w.tasks[o.Task] = o
					w.cluster.Put(o)
				}
			}
		}
		for id := range w.nodes {
			w.checkNode(t, id)
		}
	})
}

func (w *world) checkNode(t *rapid.T, id swarm.NodeID) {
	var sum swarm.Resources
	ports, names := make(map[swarm.Port]int), make(map[string]int)
	for _, o := range w.tasks {
		if o.Node != id {
			continue
		}
		sum.NanoCPUs += o.Claims.Resources.NanoCPUs
		sum.Memory += o.Claims.Resources.Memory
		for _, port := range o.Claims.Ports {
			ports[port]++
		}
		for _, generic := range o.Claims.Resources.Generic {
			if int64(len(generic.Names)) != generic.Count {
				t.Fatalf("%s got %v", o.Task, generic)
			}
			for _, name := range generic.Names {
				names[name]++
			}
		}
	}
	if sum.NanoCPUs > 4 || sum.Memory > 8 {
		t.Fatalf("node %s promised %+v", id, sum)
	}
	for port, n := range ports {
		if n > 1 {
			t.Fatalf("%d tasks have port %v of node %s", n, port, id)
		}
	}
	for name, n := range names {
		if n > 1 {
			t.Fatalf("%d tasks have %s of node %s", n, name, id)
		}
	}
}

func TestWhereNothingElseDecidesNodesDifferByOneAtMost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := new(scheduler.Cluster)
		nodes := rapid.IntRange(1, 150).Draw(t, "nodes")
		for i := range nodes {
			c.PutNode(node(swarm.NodeID(fmt.Sprintf("n%d", i))))
		}
		for _, batch := range rapid.SliceOfN(rapid.IntRange(1, 200), 1, 4).Draw(t, "batches") {
			wanted := replicas(batch)
			for i := range wanted {
				wanted[i].Task = swarm.TaskID(fmt.Sprintf("%d of %d", i, batch))
			}
			placed := c.Place(wanted, nil)
			for i, p := range placed {
				c.Put(scheduler.Occupant{Task: wanted[i].Task, Service: "shop/web", Node: p.Node})
			}
			counts := where(placed)
			least, most := batch, 0
			for i := range nodes {
				n := counts[swarm.NodeID(fmt.Sprintf("n%d", i))]
				least, most = min(least, n), max(most, n)
			}
			if most-least > 1 {
				t.Fatalf("%d replicas over %d nodes: between %d and %d on each", batch, nodes, least, most)
			}
			for i := range wanted {
				c.Drop(wanted[i].Task)
			}
		}
	})
}
