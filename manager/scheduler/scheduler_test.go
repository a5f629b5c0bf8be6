package scheduler_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/manager/scheduler"
	"github.com/gitswarm/gitswarm/swarm"
)

func node(id swarm.NodeID, change ...func(*swarm.Node)) swarm.Node {
	n := swarm.Node{
		ID: id, State: swarm.NodeReady, Availability: swarm.NodeActive, Role: "worker",
		Description: swarm.NodeDescription{OS: "linux", Arch: "amd64", Resources: swarm.Resources{NanoCPUs: 2e9, Memory: 4 << 30}},
	}
	for _, c := range change {
		c(&n)
	}
	return n
}

func web(change ...func(*scheduler.Wanted)) scheduler.Wanted {
	w := scheduler.Wanted{Task: "shop/web.1.a", Service: "shop/web", Slot: 1}
	for _, c := range change {
		c(&w)
	}
	return w
}

func TestExplainsWhyNoNodeFits(t *testing.T) {
	for _, c := range []struct {
		claim   string
		wanted  scheduler.Wanted
		cluster scheduler.Cluster
		why     string
	}{
		{"no nodes", web(), scheduler.Cluster{}, "no node fits shop/web.1: the cluster has no nodes"},
		{"a reservation larger than the node",
			web(func(w *scheduler.Wanted) { w.Reservations.Memory = 64 << 30 }), scheduler.Cluster{Nodes: []swarm.Node{node("a")}},
			"no node fits shop/web.1: not enough memory (64.0 GiB reserved, 4.0 GiB free) on 1 node"},
		{"what others reserved is not free",
			web(func(w *scheduler.Wanted) { w.Reservations.NanoCPUs = 1.5e9 }),
			scheduler.Cluster{Nodes: []swarm.Node{node("a")}, Occupants: []scheduler.Occupant{{Node: "a", Reservations: swarm.Resources{NanoCPUs: 1e9}}}},
			"no node fits shop/web.1: not enough cpu (1.5 reserved, 1 free) on 1 node"},
		{"several reasons, most frequent first",
			web(func(w *scheduler.Wanted) { w.Constraints = []string{"node.labels.zone == eu"} }),
			scheduler.Cluster{Nodes: []swarm.Node{node("a"), node("b"), node("c", func(n *swarm.Node) { n.Availability = swarm.NodeDrained })}},
			"no node fits shop/web.1: constraint node.labels.zone==eu is not met on 2 nodes, drained on 1 node"},
		{"a volume that is on every node but this",
			web(func(w *scheduler.Wanted) {
				w.Volumes = []swarm.KeptVolume{{ID: "shop/db", Node: "a"}, {ID: "shop/db", Node: "b"}}
			}), scheduler.Cluster{Nodes: []swarm.Node{node("c")}},
			"no node fits shop/web.1: its volume shop/db is on node a, not on 1 node"},
		{"a volume that was given up and has not gone yet",
			web(func(w *scheduler.Wanted) { w.Dropped = []swarm.KeptVolume{{ID: "shop/db", Node: "a"}} }), scheduler.Cluster{Nodes: []swarm.Node{node("a")}},
			"no node fits shop/web.1: its volume shop/db is still to be removed on 1 node"},
		{"a host port that a service holds",
			web(func(w *scheduler.Wanted) { w.HostPorts = []swarm.Port{{Published: 80, Target: 8080}} }),
			scheduler.Cluster{Nodes: []swarm.Node{node("a")}, Occupants: []scheduler.Occupant{{Node: "a", Service: "blog/web", HostPorts: []swarm.Port{{Published: 80, Protocol: swarm.TCP}}}}},
			"no node fits shop/web.1: port 80/tcp is held by blog/web on 1 node"},
		{"a host port that another program holds",
			web(func(w *scheduler.Wanted) { w.HostPorts = []swarm.Port{{Published: 53, Protocol: swarm.UDP}} }),
			scheduler.Cluster{Nodes: []swarm.Node{node("a", func(n *swarm.Node) {
				n.Description.BusyPorts = []swarm.Port{{Published: 53, Protocol: swarm.UDP}}
			})}},
			"no node fits shop/web.1: port 53/udp is held by another program on 1 node"},
		{"an image for another platform",
			web(func(w *scheduler.Wanted) { w.Platforms = []string{"linux/arm64"} }), scheduler.Cluster{Nodes: []swarm.Node{node("a")}},
			"no node fits shop/web.1: the image does not exist for linux/amd64 on 1 node"},
		{"a volume that is elsewhere",
			web(func(w *scheduler.Wanted) { w.Volumes = []swarm.KeptVolume{{ID: "shop/data", Node: "b"}} }), scheduler.Cluster{Nodes: []swarm.Node{node("a")}},
			"no node fits shop/web.1: its volume shop/data is on node b, not on 1 node"},
	} {
		got := scheduler.Place([]scheduler.Wanted{c.wanted}, c.cluster)[0]
		if got.Node != "" || got.Why != c.why {
			t.Errorf("%s:\n got %q on node %q\nwant %q", c.claim, got.Why, got.Node, c.why)
		}
	}
}

func TestTCPAndUDPOnTheSameNumberShareANode(t *testing.T) {
	tcp := web(func(w *scheduler.Wanted) { w.HostPorts = []swarm.Port{{Published: 53, Protocol: swarm.TCP}} })
	udp := web(func(w *scheduler.Wanted) {
		w.Task, w.HostPorts = "shop/web.2.b", []swarm.Port{{Published: 53, Protocol: swarm.UDP}}
	})
	for _, p := range scheduler.Place([]scheduler.Wanted{tcp, udp}, scheduler.Cluster{Nodes: []swarm.Node{node("a")}}) {
		if p.Node != "a" {
			t.Errorf("%s is not placed: %s", p.Task, p.Why)
		}
	}
}

func TestReplicasWithOneHostPortNeverShareANode(t *testing.T) {
	first := web(func(w *scheduler.Wanted) { w.HostPorts = []swarm.Port{{Published: 80}} })
	second := first
	second.Task, second.Slot = "shop/web.2.b", 2
	got := scheduler.Place([]scheduler.Wanted{first, second}, scheduler.Cluster{Nodes: []swarm.Node{node("a")}})
	if got[0].Node != "a" || got[1].Node != "" {
		t.Errorf("placements are %+v, want the first on a and the second on none", got)
	}
}

func TestNeverReservesMoreThanANodeHas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cluster := scheduler.Cluster{Nodes: []swarm.Node{node("a"), node("b"), node("c")}}
		var wanted []scheduler.Wanted
		for i := range rapid.IntRange(1, 30).Draw(t, "tasks") {
			wanted = append(wanted, web(func(w *scheduler.Wanted) {
				w.Slot = i + 1
				w.Reservations = swarm.Resources{
					NanoCPUs: rapid.Int64Range(0, 2e9).Draw(t, "cpu"),
					Memory:   rapid.Int64Range(0, 5<<30).Draw(t, "memory"),
				}
			}))
		}
		used := map[swarm.NodeID]swarm.Resources{}
		for i, p := range scheduler.Place(wanted, cluster) {
			sum := used[p.Node]
			sum.NanoCPUs += wanted[i].Reservations.NanoCPUs
			sum.Memory += wanted[i].Reservations.Memory
			used[p.Node] = sum
		}
		for _, n := range cluster.Nodes {
			if sum := used[n.ID]; sum.NanoCPUs > 2e9 || sum.Memory > 4<<30 {
				t.Fatalf("node %s is promised %+v", n.ID, sum)
			}
		}
	})
}

func TestSpreadsByServiceThenByTotal(t *testing.T) {
	cluster := scheduler.Cluster{
		Nodes:     []swarm.Node{node("a"), node("b"), node("c")},
		Occupants: []scheduler.Occupant{{Node: "a", Service: "shop/web"}, {Node: "b", Service: "blog/db"}},
	}
	wanted := []scheduler.Wanted{web(), web(), web()}
	want := []swarm.NodeID{"c", "b", "a"} // the third finds one web everywhere; a and c have the fewest tasks, a the lower id
	for i, p := range scheduler.Place(wanted, cluster) {
		if p.Node != want[i] {
			t.Errorf("task %d is on %s, want %s", i, p.Node, want[i])
		}
	}
}

func TestATaskGoesToAnyNodeThatHasItsVolume(t *testing.T) {
	wanted := web(func(w *scheduler.Wanted) {
		w.Volumes = []swarm.KeptVolume{{ID: "shop/db", Node: "a"}, {ID: "shop/db", Node: "b"}}
	})
	placed := scheduler.Place([]scheduler.Wanted{wanted}, scheduler.Cluster{Nodes: []swarm.Node{node("b"), node("c")}})
	if placed[0].Node != "b" {
		t.Errorf("placed on %q (%s), want b", placed[0].Node, placed[0].Why)
	}
}
