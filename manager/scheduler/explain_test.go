package scheduler_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/manager/scheduler"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestExplainsWhyNoNodeFits(t *testing.T) {
	type nodes = []swarm.Node
	memory := func(bytes int64) func(*scheduler.Wanted) {
		return func(w *scheduler.Wanted) { w.Reservations.Memory = bytes }
	}
	holds := func(on swarm.NodeID, of swarm.ServiceID, claims swarm.Claims) scheduler.Occupant {
		return scheduler.Occupant{Node: on, Service: of, Claims: &claims}
	}
	for _, c := range []struct {
		claim   string
		wanted  scheduler.Wanted
		cluster *scheduler.Cluster
		why     string
	}{
		{"no nodes", web(), clusterOf(nil), "no node fits shop/web.1: the cluster has no nodes"},
		{"a reservation larger than the node",
			web(memory(64 << 30)), clusterOf(nodes{node("a")}),
			"no node fits shop/web.1: not enough memory (64.0 GiB reserved, 4.0 GiB free) on 1 node"},
		{"of many nodes, what the largest has left",
			web(memory(64 << 30)), clusterOf(nodes{node("a"), node("b")}, holds("a", "blog/db", swarm.Claims{Resources: swarm.Resources{Memory: 1 << 30}})),
			"no node fits shop/web.1: not enough memory (64.0 GiB reserved, at most 4.0 GiB free) on 2 nodes"},
		{"what others reserved is not free",
			web(func(w *scheduler.Wanted) { w.Reservations.NanoCPUs = 1.5e9 }),
			clusterOf(nodes{node("a")}, holds("a", "blog/db", swarm.Claims{Resources: swarm.Resources{NanoCPUs: 1e9}})),
			"no node fits shop/web.1: not enough cpu (1.5 reserved, 1 free) on 1 node"},
		{"a kind that no node has",
			web(func(w *scheduler.Wanted) {
				w.Reservations.Generic = []swarm.GenericResource{{Kind: "gpu", Count: 2}}
			}), clusterOf(nodes{node("a"), node("b", has(swarm.GenericResource{Kind: "gpu", Count: 1}))}),
			"no node fits shop/web.1: not enough gpu (2 reserved, at most 1 free) on 2 nodes"},
		{"several reasons, most frequent first",
			web(func(w *scheduler.Wanted) { w.Constraints = []string{"node.labels.zone == eu"} }),
			clusterOf(nodes{node("a"), node("b"), node("c", func(n *swarm.Node) { n.Availability = swarm.NodeDrained })}),
			"no node fits shop/web.1: constraint node.labels.zone==eu is not met on 2 nodes, drained on 1 node"},
		{"nodes that are not there, or not known to be",
			web(), clusterOf(nodes{
				node("a", func(n *swarm.Node) { n.State = swarm.NodeDown }),
				node("b", func(n *swarm.Node) { n.State = swarm.NodeUnknown }),
				node("c", func(n *swarm.Node) { n.Availability = swarm.NodePaused }),
			}),
			"no node fits shop/web.1: down on 1 node, not heard of yet on 1 node, paused on 1 node"},
		{"a constraint that can't be read",
			web(func(w *scheduler.Wanted) { w.Constraints = []string{"node.colour==red"} }), clusterOf(nodes{node("a")}),
			`no node fits shop/web.1: constraint "node.colour==red": key "node.colour" is unknown; use node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, node.labels.NAME or engine.labels.NAME, so it holds on 1 node`},
		{"a volume that is on every node but this",
			web(func(w *scheduler.Wanted) {
				w.Volumes = []swarm.KeptVolume{{ID: "shop/db", Node: "a"}, {ID: "shop/db", Node: "b"}}
			}), clusterOf(nodes{node("c")}),
			"no node fits shop/web.1: its volume shop/db is on node a, not on 1 node"},
		{"a volume that was given up and has not gone yet",
			web(func(w *scheduler.Wanted) { w.Dropped = []swarm.KeptVolume{{ID: "shop/db", Node: "a"}} }), clusterOf(nodes{node("a")}),
			"no node fits shop/web.1: its volume shop/db is still to be removed on 1 node"},
		{"a host port that a service holds",
			web(func(w *scheduler.Wanted) { w.HostPorts = []swarm.Port{{Published: 80, Target: 8080}} }),
			clusterOf(nodes{node("a")}, holds("a", "blog/web", swarm.Claims{Ports: []swarm.Port{{Published: 80, Protocol: swarm.TCP}}})),
			"no node fits shop/web.1: port 80/tcp is held by blog/web on 1 node"},
		{"a host port that another program holds",
			web(func(w *scheduler.Wanted) { w.HostPorts = []swarm.Port{{Published: 53, Protocol: swarm.UDP}} }),
			clusterOf(nodes{node("a", func(n *swarm.Node) {
				n.Description.BusyPorts = []swarm.Port{{Published: 53, Protocol: swarm.UDP}}
			})}),
			"no node fits shop/web.1: port 53/udp is held by another program on 1 node"},
		{"an image for another platform",
			web(func(w *scheduler.Wanted) { w.Platforms = []string{"linux/arm64"} }), clusterOf(nodes{node("a")}),
			"no node fits shop/web.1: the image does not exist for linux/amd64 on 1 node"},
		{"a node that is the seat",
			web(func(w *scheduler.Wanted) { w.Slot, w.Node = 0, "b" }),
			clusterOf(nodes{node("a"), node("b", func(n *swarm.Node) { n.Availability = swarm.NodePaused })}),
			"no node fits shop/web: paused on 1 node, where it belongs"},
	} {
		got := c.cluster.Place([]scheduler.Wanted{c.wanted}, nil)[0]
		if got.Node != "" || got.Why != c.why {
			t.Errorf("%s:\n got %q on node %q\nwant %q", c.claim, got.Why, got.Node, c.why)
		}
	}
}

func TestALargeClusterIsExplainedInOneLine(t *testing.T) {
	c := new(scheduler.Cluster)
	for i := range 300 {
		c.PutNode(node(swarm.NodeID(fmt.Sprintf("n%03d", i))))
		c.Put(scheduler.Occupant{
			Task: swarm.TaskID(fmt.Sprint(i)), Node: swarm.NodeID(fmt.Sprintf("n%03d", i)), Service: swarm.ServiceID(fmt.Sprintf("s%d/web", i)),
			Claims: &swarm.Claims{Ports: []swarm.Port{{Published: 80}}, Resources: swarm.Resources{Memory: int64(i)}},
		})
	}
	got := c.Place([]scheduler.Wanted{web(func(w *scheduler.Wanted) { w.HostPorts = []swarm.Port{{Published: 80}} })}, nil)[0]
	if want := "other reasons on 295 nodes"; !strings.HasSuffix(got.Why, want) || len(got.Why) > 400 {
		t.Errorf("the reason is %q, want it to end with %q", got.Why, want)
	}
}
