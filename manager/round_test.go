package manager

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// rounds is a round over a real store, and the clock of its leader.
type rounds struct {
	*testing.T
	store   *store.Store
	touched *store.Subscription
	round   *round
	now     time.Time
}

// newRounds makes a cluster of nodes with one stack on each, named after it.
func newRounds(t *testing.T, nodes ...swarm.NodeID) *rounds {
	keyring, err := seal.Create(filepath.Join(t.TempDir(), "keys"))
	must(t, err)
	state, err := store.Open(store.Config{Dir: filepath.Join(t.TempDir(), "raft"), Node: "m", Keyring: keyring})
	must(t, err)
	t.Cleanup(func() { state.Close() })
	r := &rounds{T: t, store: state, round: newRound(), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for !<-state.Leading() {
	}
	for _, id := range nodes {
		r.node(id, swarm.NodeReady)
		r.task(swarm.StackName("on-"+id), id, swarm.TaskHealthy)
	}
	r.touched = state.Subscribe()
	t.Cleanup(r.touched.Close)
	r.take()
	return r
}

func (r *rounds) propose(c store.Command) {
	r.Helper()
	c.At = r.now
	_, err := r.store.Propose(r.Context(), c)
	must(r.T, err)
}

func (r *rounds) node(id swarm.NodeID, state swarm.NodeState) {
	r.Helper()
	r.propose(store.Command{PutNode: &swarm.Node{ID: id, State: state, Availability: swarm.NodeActive}})
}

// task gives a stack a task.
func (r *rounds) task(stack swarm.StackName, node swarm.NodeID, state swarm.TaskState) {
	r.Helper()
	if _, there := r.store.View().Stack(stack); !there {
		r.propose(store.Command{AcceptStacks: &store.AcceptStacks{Stacks: []store.AcceptStack{{Name: stack}}}})
	}
	record, _ := r.store.View().Stack(stack)
	service := swarm.NewServiceID(stack, "web")
	id := swarm.TaskID(fmt.Sprintf("%s.%d", service, len(r.store.View().Tasks(stack))))
	r.propose(store.Command{Decide: &store.Decide{Decision: swarm.Decision{Stack: stack, Version: record.Version, Create: []swarm.Task{{
		ID: id, Service: service, Slot: 1, Node: node, Desired: swarm.DesiredRun, Status: swarm.TaskStatus{State: state},
	}}}}})
}

// take returns the stacks of the next round, and has them looked at.
func (r *rounds) take() []swarm.StackName {
	news, _ := r.touched.Take()
	names := r.round.stacks(r.store.View(), news, r.now)
	for _, name := range names {
		r.round.looked(r.store.View(), name, time.Time{}, name == "everywhere")
	}
	return names
}

// want compares the stacks of the next round.
func (r *rounds) want(why string, want ...swarm.StackName) {
	r.Helper()
	if got := r.take(); !slices.Equal(got, want) {
		r.Errorf("%s: looked at %v, want %v", why, got, want)
	}
}

func TestANodeThatChangesConcernsOnlyWhatRunsThere(t *testing.T) {
	r := newRounds(t, "n1", "n2", "n3")
	r.task("everywhere", "n1", swarm.TaskHealthy)
	r.want("a task was made", "everywhere")
	r.node("n2", swarm.NodeDown)
	r.want("a node went down", "everywhere", "on-n2")
	r.node("n2", swarm.NodeDown)
	r.want("a node is as it was")
	r.node("n4", swarm.NodeReady)
	r.want("a node joined", "everywhere")
	r.node("n2", swarm.NodeReady)
	r.want("a node returned", "everywhere", "on-n2")
}

func TestTheLastNodeThatTakesTasksConcernsEveryStack(t *testing.T) {
	r := newRounds(t, "n1", "n2")
	r.node("n1", swarm.NodeDown)
	r.want("one of two went down", "on-n1")
	r.node("n2", swarm.NodeDown)
	r.want("none is left", "on-n1", "on-n2")
	r.node("n2", swarm.NodeReady)
	r.want("one is back", "on-n1", "on-n2")
}

func TestStacksThatWaitForRoomAreLookedAtWhenThereMayBeSome(t *testing.T) {
	r := newRounds(t, "n1", "n2")
	r.task("homeless", "", swarm.TaskNew)
	r.want("its task was made", "homeless")
	r.node("n3", swarm.NodeReady)
	r.want("a node joined", "homeless")

	ends := func(stack swarm.StackName) {
		task := r.store.View().Tasks(stack)[0].ID
		r.propose(store.Command{ReportStatus: &store.ReportStatus{Tasks: []store.TaskReport{{Task: task, Status: swarm.TaskStatus{State: swarm.TaskComplete}}}}})
	}
	ends("on-n1")
	r.want("a task ended, too soon after", "on-n1")
	r.now = r.now.Add(roomEvery)
	r.want("the rest of the pause is over", "homeless")
	r.now = r.now.Add(roomEvery)
	ends("on-n2")
	r.want("a task ended long after", "homeless", "on-n2")
}

// TestAChangeAmongManyStacksCostsWhatItConcerns counts what a round looks at,
// not how long it takes.
func TestAChangeAmongManyStacksCostsWhatItConcerns(t *testing.T) {
	nodes := make([]swarm.NodeID, 40)
	for i := range nodes {
		nodes[i] = swarm.NodeID(fmt.Sprintf("n%02d", i))
	}
	r := newRounds(t, nodes...)
	for _, id := range nodes {
		r.node(id, swarm.NodeDown)
		r.want("a node went down", r.expected(id, nodes)...)
	}
}

// expected is every stack once the last node is down.
func (r *rounds) expected(id swarm.NodeID, nodes []swarm.NodeID) (names []swarm.StackName) {
	for _, node := range nodes {
		if node == id || id == nodes[len(nodes)-1] {
			names = append(names, swarm.StackName("on-"+node))
		}
	}
	return names
}
