package manager

import (
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

func managerNode(id swarm.NodeID) swarm.Node {
	return swarm.Node{ID: id, Role: swarm.RoleManager, State: swarm.NodeReady, Description: swarm.NodeDescription{Address: string(id) + ":2377"}}
}

func workerNode(id swarm.NodeID) swarm.Node {
	node := managerNode(id)
	node.Role = swarm.RoleWorker
	return node
}

func voter(id swarm.NodeID) store.Member {
	return store.Member{Node: id, Address: string(id) + ":2377", Voter: true, Reachable: true}
}

func TestMembersBecomeTheNodesThatHaveTheRole(t *testing.T) {
	silent := voter("b")
	silent.Reachable = false
	moved := voter("b")
	moved.Address = "elsewhere:2377"
	down := managerNode("b")
	down.State = swarm.NodeDown
	mute := managerNode("b")
	mute.Description.Address = ""
	for _, c := range []struct {
		claim   string
		nodes   []swarm.Node
		members []store.Member
		want    membership
		tried   swarm.NodeID // just now
	}{
		{"nothing to do", []swarm.Node{managerNode("a"), managerNode("b")}, []store.Member{voter("a"), voter("b")}, membership{}, ""},
		{"a promoted node is added", []swarm.Node{managerNode("a"), managerNode("b")}, []store.Member{voter("a")}, membership{add: voter("b")}, ""},
		{"one that is down is not waited for", []swarm.Node{managerNode("a"), down}, []store.Member{voter("a")}, membership{}, ""},
		{"nor one without an address", []swarm.Node{managerNode("a"), mute}, []store.Member{voter("a")}, membership{}, ""},
		{"one that moved gets its new address", []swarm.Node{managerNode("a"), managerNode("b")}, []store.Member{voter("a"), moved}, membership{add: voter("b")}, ""},
		{"one that is up and does not answer may have lost its disk", []swarm.Node{managerNode("a"), managerNode("b")}, []store.Member{voter("a"), silent}, membership{add: voter("b")}, ""},
		{"a demoted node is removed", []swarm.Node{managerNode("a"), workerNode("b")}, []store.Member{voter("a"), voter("b")}, membership{remove: "b"}, ""},
		{"so is one that no node is behind", []swarm.Node{managerNode("a")}, []store.Member{voter("a"), voter("b")}, membership{remove: "b"}, ""},
		{"a new manager comes before an old one goes", []swarm.Node{managerNode("a"), workerNode("b"), managerNode("c")}, []store.Member{voter("a"), voter("b")}, membership{add: voter("c")}, ""},
		{"a leader that is demoted hands over first", []swarm.Node{workerNode("a"), managerNode("b")}, []store.Member{voter("a"), voter("b")}, membership{remove: "a", heir: "b"}, ""},
		{"to one that answers", []swarm.Node{workerNode("a"), down, managerNode("c")}, []store.Member{voter("a"), silent, voter("c")}, membership{remove: "a", heir: "c"}, ""},
		{"and stays while none does", []swarm.Node{workerNode("a"), down}, []store.Member{voter("a"), silent}, membership{}, ""},
		{"a new one that nobody reaches does not keep an old one", []swarm.Node{managerNode("a"), workerNode("b"), managerNode("c")}, []store.Member{voter("a"), voter("b")}, membership{remove: "b"}, "c"},
		{"what was tried has to wait", []swarm.Node{managerNode("a"), managerNode("c")}, []store.Member{voter("a")}, membership{}, "c"},
		{"and stays where nobody could lead", []swarm.Node{workerNode("a")}, []store.Member{voter("a")}, membership{}, ""},
	} {
		got := memberChange(c.nodes, c.members, "a", map[swarm.NodeID]bool{c.tried: true})
		if c.want.add.Node != "" {
			c.want.add.Reachable = false // it is not for the caller to say
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.claim, got, c.want)
		}
	}
}

func TestRefusesToDemoteWhomTheQuorumNeeds(t *testing.T) {
	three := []swarm.Node{managerNode("a"), managerNode("b"), managerNode("c")}
	silent := voter("c")
	silent.Reachable = false
	for _, c := range []struct {
		claim   string
		demote  swarm.NodeID
		nodes   []swarm.Node
		members []store.Member
		why     string // empty: allowed
	}{
		{"one of three", "b", three, []store.Member{voter("a"), voter("b"), voter("c")}, ""},
		{"the last", "a", three[:1], []store.Member{voter("a")}, "the last manager"},
		{"one of two that answer, of three", "b", three, []store.Member{voter("a"), voter("b"), silent}, "1 answer, and 2 are needed"},
		{"the silent one of three", "c", three, []store.Member{voter("a"), voter("b"), silent}, ""},
		{"the last that is not on its way out", "a", []swarm.Node{managerNode("a"), workerNode("b")}, []store.Member{voter("a"), voter("b")}, "the last manager"},
	} {
		err := demotable(c.demote, c.nodes, c.members)
		if (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", c.claim, err, c.why)
		}
	}
}
