package manager

import (
	"context"
	"testing"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// join adds nodes that are ready.
func (s *site) join(ids ...swarm.NodeID) {
	s.Helper()
	for _, id := range ids {
		s.propose(store.Command{PutNode: &swarm.Node{ID: id, State: swarm.NodeReady, Role: swarm.RoleWorker, Description: swarm.NodeDescription{
			Hostname: string(id), OS: "linux", Arch: "amd64", Resources: swarm.Resources{NanoCPUs: 4e9, Memory: 8 << 30},
		}}})
	}
}

// set changes what operators, or the dispatcher, say of a node.
func (s *site) set(id swarm.NodeID, by string, change func(*swarm.Node)) {
	s.Helper()
	node, _ := s.config.Store.View().Node(id)
	change(&node)
	s.propose(store.Command{By: by, PutNode: &node})
}

// replicas is how many tasks of a stack serve and stay, by node.
func replicas(v *store.View, stack swarm.StackName) map[swarm.NodeID]int {
	count := make(map[swarm.NodeID]int)
	for _, task := range v.Tasks(stack) {
		if task.Status.State == swarm.TaskHealthy && task.Desired <= swarm.DesiredRun {
			count[task.Node]++
		}
	}
	return count
}

func total(count map[swarm.NodeID]int) (sum int) {
	for _, n := range count {
		sum += n
	}
	return sum
}

// fewest watches a stack until stopped, and tells the fewest replicas that any
// change left it with.
func (s *site) fewest(stack swarm.StackName) (stop func() int) {
	ctx, cancel := context.WithCancel(s.Context())
	least := make(chan int)
	touched := s.config.Store.Subscribe()
	go func() {
		defer touched.Close()
		fewest := total(replicas(s.config.Store.View(), stack))
		for {
			_, changed := touched.Take()
			fewest = min(fewest, total(replicas(s.config.Store.View(), stack)))
			select {
			case <-changed:
			case <-ctx.Done():
				least <- fewest
				return
			}
		}
	}()
	return func() int { cancel(); return <-least }
}

// served is a service that web's image is of, deployed as given.
func served(deploy string) string {
	return "services:\n  web:\n    image: REGISTRY/web:1\n    deploy: {" + deploy + ", update_config: {monitor: 0s}}\n"
}

func TestADrainTakesNoReplicaAway(t *testing.T) {
	s := newSite(t)
	s.join("n2", "n3")
	s.image("1")
	s.push(map[string]string{"shop/compose.yaml": served("replicas: 4")})
	s.healthy("shop")

	fewest := s.fewest("shop")
	s.set("n2", "ana", func(n *swarm.Node) { n.Availability = swarm.NodeDrained })
	s.until("the drained node has nothing left", func(v *store.View) bool {
		for _, task := range v.TasksOn("n2") {
			if task.Status.State.Live() {
				return false
			}
		}
		return total(replicas(v, "shop")) == 4
	})
	if least := fewest(); least < 4 {
		t.Errorf("meanwhile only %d of 4 replicas served", least)
	}
}

func TestWhatANodeRanThatFailedRunsElsewhereAtOnce(t *testing.T) {
	s := newSite(t)
	s.join("n2", "n3")
	s.image("1")
	s.push(map[string]string{"shop/compose.yaml": served("replicas: 4")})
	before := s.healthy("shop")

	s.set("n3", "", func(n *swarm.Node) { n.State = swarm.NodeDown })
	s.until("its tasks run elsewhere", func(v *store.View) bool {
		count := replicas(v, "shop")
		return count["n3"] == 0 && total(count) == 4
	})
	for _, task := range s.config.Store.View().Tasks("shop") {
		if !task.NotBefore.IsZero() {
			t.Errorf("%s was held back by the restart delay until %s", task.ID, task.NotBefore)
		}
	}
	s.set("n3", "", func(n *swarm.Node) { n.State = swarm.NodeReady })
	s.until("nothing is left on it, or begins there", func(v *store.View) bool {
		for _, task := range v.TasksOn("n3") {
			if task.Status.State.Live() {
				return false
			}
		}
		return true
	})
	if after := s.record("shop"); after.Rollout.ID != before.Rollout.ID || len(after.Quarantine) > 0 {
		t.Errorf("the loss of a node began a rollout, or quarantined something: %+v", after)
	}
}

func TestARebalanceFillsTheNodeThatJoinedAndEnds(t *testing.T) {
	s := newSite(t)
	s.image("1")
	s.push(map[string]string{
		"shop/compose.yaml": served("replicas: 4"), "blog/compose.yaml": web("1", ""), "wiki/compose.yaml": web("1", ""),
	})
	for _, name := range []swarm.StackName{"shop", "blog", "wiki"} {
		s.healthy(name)
	}
	s.join("n2")
	fewest := s.fewest("shop")
	services, err := s.manager.Rebalance(t.Context(), "", "ana")
	must(t, err)
	if len(services) != 3 {
		t.Errorf("it concerns %v", services)
	}
	s.until("every stack's request has ended", func(v *store.View) bool {
		for _, record := range v.Stacks() {
			if record.Rebalance {
				return false
			}
		}
		return true
	})

	view := s.config.Store.View()
	if count := replicas(view, "shop"); count["n1"] != 2 || count["n2"] != 2 {
		t.Errorf("shop runs as %v", count)
	}
	all := map[swarm.NodeID]int{}
	for _, record := range view.Stacks() {
		for node, n := range replicas(view, record.Name) {
			all[node] += n
		}
	}
	if all["n1"] != 3 || all["n2"] != 3 {
		t.Errorf("all stacks together run as %v", all)
	}
	if least := fewest(); least < 4 {
		t.Errorf("meanwhile only %d of 4 replicas served", least)
	}
}

func TestTasksFollowALabelThatMoves(t *testing.T) {
	s := newSite(t)
	s.join("n2")
	s.image("1")
	s.push(map[string]string{"shop/compose.yaml": served(`replicas: 2, placement: {constraints: ["node.labels.zone == eu"]}`)})
	s.until("the stack waits and says why", func(v *store.View) bool {
		record, _ := v.Stack("shop")
		return record.Rollout.Phase == swarm.PhaseWaiting
	})
	label := func(id swarm.NodeID, zone string) {
		s.set(id, "ana", func(n *swarm.Node) { n.Labels = map[string]string{"zone": zone} })
	}
	label("n1", "eu")
	before := s.healthy("shop")
	label("n2", "eu")
	fewest := s.fewest("shop")
	label("n1", "us")
	s.until("both run where the label is", func(v *store.View) bool { return replicas(v, "shop")["n2"] == 2 })
	if least := fewest(); least < 2 {
		t.Errorf("meanwhile only %d of 2 replicas served", least)
	}
	if after := s.record("shop"); after.Rollout.ID != before.Rollout.ID {
		t.Errorf("a label began rollout %d", after.Rollout.ID)
	}
}
