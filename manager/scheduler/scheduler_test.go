package scheduler_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

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

func labelled(id swarm.NodeID, labels ...string) swarm.Node {
	return node(id, func(n *swarm.Node) {
		n.Labels = make(map[string]string)
		for _, label := range labels {
			name, value, _ := strings.Cut(label, "=")
			n.Labels[name] = value
		}
	})
}

func has(generic ...swarm.GenericResource) func(*swarm.Node) {
	return func(n *swarm.Node) { n.Description.Resources.Generic = generic }
}

// clusterOf is a fresh cluster.
func clusterOf(nodes []swarm.Node, occupants ...scheduler.Occupant) *scheduler.Cluster {
	c := new(scheduler.Cluster)
	for _, n := range nodes {
		c.PutNode(n)
	}
	for i, o := range occupants {
		if o.Task == "" {
			o.Task = swarm.TaskID(fmt.Sprintf("occupant.%d", i))
		}
		c.Put(o)
	}
	return c
}

// replicas is that many tasks of one service.
func replicas(n int, change ...func(*scheduler.Wanted)) []scheduler.Wanted {
	var wanted []scheduler.Wanted
	for i := range n {
		w := web(change...)
		w.Slot, w.Task = i+1, swarm.TaskID(fmt.Sprintf("shop/web.%d.a", i+1))
		wanted = append(wanted, w)
	}
	return wanted
}

// where counts the placements on each node; those that have none are on "".
func where(placements []scheduler.Placement) map[swarm.NodeID]int {
	counts := make(map[swarm.NodeID]int)
	for _, p := range placements {
		counts[p.Node]++
	}
	return counts
}

// shows is where, as text: "a:2 b:1".
func shows(placements []scheduler.Placement) string {
	counts := where(placements)
	var parts []string
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s:%d", id, counts[id]))
	}
	return strings.Join(parts, " ")
}

// Scenario 31 of Docker Swarm's behaviour.
func TestTCPAndUDPOnTheSameNumberShareANode(t *testing.T) {
	tcp := web(func(w *scheduler.Wanted) { w.HostPorts = []swarm.Port{{Published: 53, Protocol: swarm.TCP}} })
	udp := web(func(w *scheduler.Wanted) {
		w.Task, w.HostPorts = "shop/web.2.b", []swarm.Port{{Published: 53, Protocol: swarm.UDP}}
	})
	for _, p := range clusterOf([]swarm.Node{node("a")}).Place([]scheduler.Wanted{tcp, udp}, nil) {
		if p.Node != "a" {
			t.Errorf("%s is not placed: %s", p.Task, p.Why)
		}
	}
}

// Scenario 31.
func TestReplicasWithOneHostPortNeverShareANode(t *testing.T) {
	got := clusterOf([]swarm.Node{node("a")}).Place(replicas(2, func(w *scheduler.Wanted) { w.HostPorts = []swarm.Port{{Published: 80}} }), nil)
	if got[0].Node != "a" || got[1].Node != "" {
		t.Errorf("placements are %+v, want the first on a and the second on none", got)
	}
}

func TestAPortThatTwoTasksHoldIsFreeWhenBothHaveLeft(t *testing.T) {
	port := &swarm.Claims{Ports: []swarm.Port{{Published: 80}}}
	c := clusterOf([]swarm.Node{node("a")},
		scheduler.Occupant{Task: "old", Node: "a", Service: "shop/web", Claims: port},
		scheduler.Occupant{Task: "new", Node: "a", Service: "shop/web", Claims: port})
	wanted := replicas(1, func(w *scheduler.Wanted) { w.HostPorts = []swarm.Port{{Published: 80}} })
	if got := c.Place(wanted, []swarm.TaskID{"old"}); got[0].Node != "" {
		t.Error("the port was given while one task held it")
	}
	if got := c.Place(wanted, []swarm.TaskID{"old", "new"}); got[0].Node != "a" {
		t.Errorf("the port is not free: %s", got[0].Why)
	}
	c.Drop("old")
	c.Drop("new")
	if got := c.Place(wanted, nil); got[0].Node != "a" {
		t.Errorf("the port is not free: %s", got[0].Why)
	}
}

func TestSpreadsByServiceThenByTotal(t *testing.T) {
	c := clusterOf([]swarm.Node{node("a"), node("b"), node("c")},
		scheduler.Occupant{Node: "a", Service: "shop/web"}, scheduler.Occupant{Node: "b", Service: "blog/db"})
	want := []swarm.NodeID{"c", "b", "a"} // the third finds one web everywhere; a and c have the fewest tasks, a the lower id
	for i, p := range c.Place(replicas(3), nil) {
		if p.Node != want[i] {
			t.Errorf("task %d is on %s, want %s", i, p.Node, want[i])
		}
	}
}

func TestATaskGoesToAnyNodeThatHasItsVolume(t *testing.T) {
	wanted := web(func(w *scheduler.Wanted) {
		w.Volumes = []swarm.KeptVolume{{ID: "shop/db", Node: "a"}, {ID: "shop/db", Node: "b"}}
	})
	placed := clusterOf([]swarm.Node{node("b"), node("c")}).Place([]scheduler.Wanted{wanted}, nil)
	if placed[0].Node != "b" {
		t.Errorf("placed on %q (%s), want b", placed[0].Node, placed[0].Why)
	}
}

// Scenario 26, first half.
func TestFourReplicasOverThreeNodesInTwoRacksAreTwoAndOneAndOne(t *testing.T) {
	c := clusterOf([]swarm.Node{labelled("n1", "rack=a"), labelled("n2", "rack=b"), labelled("n3", "rack=b")})
	if got := shows(c.Place(replicas(4, spread("node.labels.rack")), nil)); got != "n1:2 n2:1 n3:1" {
		t.Errorf("placed %s, want n1:2 n2:1 n3:1", got)
	}
}

func spread(keys ...string) func(*scheduler.Wanted) {
	return func(w *scheduler.Wanted) { w.Spread = keys }
}

// Scenario 26, second half: two levels, and a node that is full.
func TestABranchThatIsFullLeavesTheRestToTheOther(t *testing.T) {
	small := func(n swarm.Node) swarm.Node { n.Description.Resources.Memory = 5 << 20; return n }
	c := clusterOf([]swarm.Node{
		small(labelled("n1", "az=1", "rack=1")),
		labelled("n2", "az=2", "rack=1"), labelled("n3", "az=2", "rack=1"), labelled("n4", "az=2", "rack=2"),
	})
	wanted := replicas(12, spread("node.labels.az", "node.labels.rack"), func(w *scheduler.Wanted) { w.Reservations.Memory = 1 << 20 })
	// Of the seven in az 2, rack 1 has four on two nodes and rack 2 three.
	if got := shows(c.Place(wanted, nil)); got != "n1:5 n2:2 n3:2 n4:3" {
		t.Errorf("placed %s, want n1:5 n2:2 n3:2 n4:3", got)
	}
}

func TestNodesWithoutTheLabelAreABranchOfTheirOwn(t *testing.T) {
	c := clusterOf([]swarm.Node{node("a"), node("b"), labelled("c", "zone=eu")})
	if got := shows(c.Place(replicas(4, spread("node.labels.zone")), nil)); got != "a:1 b:1 c:2" {
		t.Errorf("placed %s, want a:1 b:1 c:2", got)
	}
}

func TestWhatRunsOnALostNodeDoesNotCountForItsBranch(t *testing.T) {
	lost := labelled("a1", "zone=a")
	lost.State = swarm.NodeDown
	c := clusterOf([]swarm.Node{lost, labelled("a2", "zone=a"), labelled("b1", "zone=b")},
		scheduler.Occupant{Node: "a1", Service: "shop/web"}, scheduler.Occupant{Node: "a1", Service: "shop/web"}, scheduler.Occupant{Node: "b1", Service: "shop/web"})
	if got := c.Place(replicas(1, spread("node.labels.zone")), nil); got[0].Node != "a2" {
		t.Errorf("placed on %s, want a2: zone a has nothing that runs", got[0].Node)
	}
}

// Scenario 27.
func TestAConstraintOnTheRoleHolds(t *testing.T) {
	nodes := []swarm.Node{node("m", func(n *swarm.Node) { n.Role = swarm.RoleManager }), node("w1"), node("w2")}
	for constraint, want := range map[string]string{
		"node.role==worker": "w1:2 w2:2", "node.role!=worker": "m:4", "node.role==nosuchrole": ":4",
	} {
		got := clusterOf(nodes).Place(replicas(4, func(w *scheduler.Wanted) { w.Constraints = []string{constraint} }), nil)
		if shows(got) != want {
			t.Errorf("%s places %s, want %s", constraint, shows(got), want)
		}
	}
}

// Scenario 28, the scheduler's part.
func TestTasksWaitForALabelAndGoWhereItIsPut(t *testing.T) {
	c := clusterOf([]swarm.Node{node("a"), node("b")})
	wanted := replicas(2, func(w *scheduler.Wanted) { w.Constraints = []string{"node.labels.security==high"} })
	if got := c.Place(wanted, nil); got[0].Why != "no node fits shop/web.1: constraint node.labels.security==high is not met on 2 nodes" {
		t.Errorf("without the label: %+v", got[0])
	}
	c.PutNode(labelled("b", "security=high"))
	if got := shows(c.Place(wanted, nil)); got != "b:2" {
		t.Errorf("with the label on b: %s, want b:2", got)
	}
}

// Scenario 29, the scheduler's part.
func TestANodeWhereTheServiceKeepsFailingComesLast(t *testing.T) {
	c := clusterOf([]swarm.Node{node("a"), node("b")}, scheduler.Occupant{Node: "b", Service: "shop/web"})
	failing := func(nodes ...swarm.NodeID) func(*scheduler.Wanted) {
		return func(w *scheduler.Wanted) { w.Failing = nodes }
	}
	for _, test := range []struct {
		failing []swarm.NodeID
		want    string
	}{{nil, "a:2 b:1"}, {[]swarm.NodeID{"a"}, "b:3"}, {[]swarm.NodeID{"a", "b"}, "a:2 b:1"}} {
		if got := shows(c.Place(replicas(3, failing(test.failing...)), nil)); got != test.want {
			t.Errorf("failing on %s: placed %s, want %s", test.failing, got, test.want)
		}
	}
	c.PutNode(node("b", func(n *swarm.Node) { n.Availability = swarm.NodeDrained }))
	if got := shows(c.Place(replicas(3, failing("a")), nil)); got != "a:3" {
		t.Errorf("with nothing but a failing node left: placed %s, want a:3", got)
	}
}

// Scenario 30.
func TestAReservationWaitsUntilRoomIsFreed(t *testing.T) {
	half := &swarm.Claims{Resources: swarm.Resources{Memory: 2 << 30}}
	c := clusterOf([]swarm.Node{node("a")}, scheduler.Occupant{Task: "blog/db.1.a", Node: "a", Claims: half})
	wanted := replicas(1, func(w *scheduler.Wanted) { w.Reservations.Memory = 3 << 30 })
	if got := c.Place(wanted, nil)[0]; got.Why != "no node fits shop/web.1: not enough memory (3.0 GiB reserved, 2.0 GiB free) on 1 node" {
		t.Errorf("while db holds 2 GiB: %+v", got)
	}
	c.Drop("blog/db.1.a")
	if got := c.Place(wanted, nil)[0]; got.Node != "a" {
		t.Errorf("once db has ended: %+v", got)
	}
}

// Scenario 32.
func TestAThirdReplicaWaitsWhereEachOfTwoNodesMayHaveOne(t *testing.T) {
	c := clusterOf([]swarm.Node{node("a"), node("b")})
	got := c.Place(replicas(3, func(w *scheduler.Wanted) { w.MaxPerNode = 1 }), nil)
	if shows(got) != ":1 a:1 b:1" || got[2].Why != "no node fits shop/web.3: max_replicas_per_node 1 is reached on 2 nodes" {
		t.Errorf("placed %s; the third: %q", shows(got), got[2].Why)
	}
}

func TestNamedPiecesAreGivenOnceEach(t *testing.T) {
	gpus := swarm.GenericResource{Kind: "gpu", Names: []string{"GPU-1", "GPU-2", "GPU-3"}}
	c := clusterOf([]swarm.Node{node("a", has(gpus))},
		scheduler.Occupant{Node: "a", Claims: &swarm.Claims{Resources: swarm.Resources{Generic: []swarm.GenericResource{{Kind: "gpu", Count: 1, Names: []string{"GPU-2"}}}}}})
	got := c.Place(replicas(3, func(w *scheduler.Wanted) { w.Reservations.Generic = []swarm.GenericResource{{Kind: "gpu", Count: 1}} }), nil)
	if fmt.Sprint(got[0].Generic, got[1].Generic) != "[{gpu 1 [GPU-1]}] [{gpu 1 [GPU-3]}]" || got[2].Node != "" {
		t.Errorf("placed %+v", got)
	}
	if got[2].Why != "no node fits shop/web.3: not enough gpu (1 reserved, 0 free) on 1 node" {
		t.Errorf("the third: %q", got[2].Why)
	}
}

func TestCountedPiecesHaveNoNames(t *testing.T) {
	c := clusterOf([]swarm.Node{node("a", has(swarm.GenericResource{Kind: "ssd", Count: 3}))})
	got := c.Place(replicas(2, func(w *scheduler.Wanted) { w.Reservations.Generic = []swarm.GenericResource{{Kind: "ssd", Count: 2}} }), nil)
	if fmt.Sprint(got[0].Generic) != "[{ssd 2 []}]" || got[1].Node != "" {
		t.Errorf("placed %+v", got)
	}
}

func TestASpreadFollowsALabelThatChanges(t *testing.T) {
	c := clusterOf([]swarm.Node{labelled("a", "zone=eu"), labelled("b", "zone=eu"), labelled("c", "zone=us")})
	if got := shows(c.Place(replicas(4, spread("node.labels.zone")), nil)); got != "a:1 b:1 c:2" {
		t.Errorf("placed %s, want a:1 b:1 c:2", got)
	}
	c.PutNode(labelled("b", "zone=us"))
	if got := shows(c.Place(replicas(4, spread("node.labels.zone")), nil)); got != "a:2 b:1 c:1" {
		t.Errorf("with b in zone us: placed %s, want a:2 b:1 c:1", got)
	}
}

func TestServicesThatShareANewVolumeShareItsNode(t *testing.T) {
	shares := func(service swarm.ServiceID) func(*scheduler.Wanted) {
		return func(w *scheduler.Wanted) { w.Service, w.NewVolumes = service, []swarm.VolumeID{"shop/data"} }
	}
	c := clusterOf([]swarm.Node{node("a"), node("b"), node("c")}, scheduler.Occupant{Node: "a", Service: "blog/web"})
	wanted := append(replicas(2, shares("shop/db")), replicas(3, shares("shop/backup"))...)
	// Replicas of one service make a volume each; the other service uses these.
	want := []swarm.NodeID{"b", "c", "b", "c", "b"}
	for i, p := range c.Place(wanted, nil) {
		if p.Node != want[i] {
			t.Errorf("%s.%d is on %s, want %s", wanted[i].Service, wanted[i].Slot, p.Node, want[i])
		}
	}
}
