package dispatcher

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestAnAgentAtAFollowerGetsItsAssignmentAndReportsThroughIt(t *testing.T) {
	c := newTrio(t)
	leader, follower := c.leader(), c.followers()[0]
	p := follower.join("n1", wire.Held{})
	leader.shop(leader.task(web1, "n1"))
	p.sees("task shop/web.1.a run\nnetwork shop/default\nservice shop/web www@shop/default")

	p.report(web1, swarm.TaskHealthy, "")
	within(t, 5*time.Second, "the leader knows that the task is healthy", func() bool { return leader.status(web1).State == swarm.TaskHealthy })
	p.sees("task shop/web.1.a run\nnetwork shop/default\nservice shop/web shop/web.1.a www@shop/default")
	if want := []string{"m1", "m2", "m3"}; !slices.Equal(p.welcome.Managers, want) {
		t.Errorf("the agent was told of managers %v", p.welcome.Managers)
	}
	if data, err := p.client.Blob(t.Context(), p.welcome.Session, leader.spec); err != nil || len(data) == 0 {
		t.Errorf("the follower did not give the spec: %v", err)
	}
}

func TestOnlyTheLeaderCallsASilentNodeDownWhoeverHasItsSession(t *testing.T) {
	c := newTrio(t)
	leader := c.leader()
	var all []*puppet
	for i, m := range append(c.followers(), leader) {
		all = append(all, m.join(swarm.NodeID([]string{"n1", "n2", "n3"}[i]), wire.Held{}))
	}
	time.Sleep(3 * patience(beat))
	if downs := leader.downs(); len(downs) > 0 {
		t.Fatalf("nodes that speak were called down: %v", downs)
	}
	all[0].mute()
	within(t, 5*patience(beat), "the silent node is down", func() bool { return len(leader.downs()) > 0 })
	if downs := leader.downs(); !slices.Equal(downs, []swarm.NodeID{"n1"}) {
		t.Errorf("down are %v", downs)
	}
	within(t, 5*patience(beat), "its session has ended", func() bool { return all[0].ended() != nil })

	again := c.followers()[1].join("n1", all[0].now())
	defer again.mute()
	within(t, 5*time.Second, "the node is ready", func() bool {
		node, _ := leader.store.View().Node("n1")
		return node.State == swarm.NodeReady
	})
}

func TestADrainWaitsForNodesAtEveryManager(t *testing.T) {
	c := newTrio(t)
	leader, followers := c.leader(), c.followers()
	leader.shop(leader.task(web1, "n1"), leader.task(web2, "n2"), leader.task("shop/web.3.c", "n3"))
	all := []*puppet{leader.join("n1", wire.Held{}), followers[0].join("n2", wire.Held{}), followers[1].join("n3", wire.Held{})}
	other := followers[1].join("n4", wire.Held{}) // nothing of the stack concerns it
	within(t, 5*time.Second, "it is told so", func() bool { return len(other.got()) > 0 })
	other.applies()
	all[0].report(web1, swarm.TaskHealthy, "")
	for i, id := range []string{"1.a", "2.b", "3.c"} {
		all[i].sees("task shop/web." + id + " run\nnetwork shop/default\nservice shop/web shop/web.1.a www@shop/default")
		all[i].applies()
	}

	leader.desire(web1, swarm.DesiredDrain)
	all[0].sees("task shop/web.1.a drain\nnetwork shop/default\nservice shop/web www@shop/default")
	all[1].sees("task shop/web.2.b run\nnetwork shop/default\nservice shop/web www@shop/default")
	all[2].sees("task shop/web.3.c run\nnetwork shop/default\nservice shop/web www@shop/default")
	for _, p := range all {
		time.Sleep(2 * beat) // the managers exchange what they know
		if leader.status(web1).Drained {
			t.Fatal("the task is called drained while a node still sends to it")
		}
		p.applies()
	}
	within(t, 2*time.Second, "the task is drained", func() bool { return leader.status(web1).Drained })
}

func TestAFollowerOutOfContactSendsItsAgentsAway(t *testing.T) {
	c := newTrio(t)
	leader, followers := c.leader(), c.followers()
	p := followers[0].join("n1", wire.Held{})
	c.board.cut(followers[0].name())
	within(t, 10*outOfContact, "the session has ended", func() bool { return p.ended() != nil })
	if err := p.ended(); err == nil || !contains(err, "no line", "out of contact", "closed", "EOF", "reset", "Unavailable") {
		t.Errorf("it ended with %v", err)
	}
	p.mute()
	followers[1].join("n1", p.now())
	time.Sleep(3 * patience(beat))
	if downs := leader.downs(); len(downs) > 0 {
		t.Errorf("a node that found another manager was called down: %v", downs)
	}
}

func TestAFollowerOutOfContactTakesNoNewAgents(t *testing.T) {
	c := newTrio(t)
	follower := c.followers()[0]
	c.board.cut(follower.name())
	c.board.mu.Lock()
	c.board.alone[follower.name()] = false // agents reach it again, but its own lines stay dead
	c.board.lines["m1/raft"], c.board.lines["m2/raft"], c.board.lines["m3/raft"] = nil, nil, nil
	c.board.mu.Unlock()
	within(t, 10*outOfContact, "the follower knows", func() bool {
		follower.dispatcher.mu.Lock()
		defer follower.dispatcher.mu.Unlock()
		return follower.dispatcher.contact.lost
	})
	if _, err := follower.tryJoin("n1", wire.Held{}); err == nil || !contains(err, errCutOff.Error()) {
		t.Errorf("it answered %v", err)
	}
}

func TestANewLeaderHoldsNobodysSilenceDuringTheElectionAgainstThem(t *testing.T) {
	c := newTrio(t)
	old, followers := c.leader(), c.followers()
	one, two := followers[0].join("n1", wire.Held{}), old.join("n2", wire.Held{})
	c.kill(old)
	two.mute()
	leader := c.leader()
	within(t, 10*time.Second, "an agent of the dead manager is let in again", func() bool {
		_, err := leader.tryJoin("n2", two.now())
		return err == nil
	})
	if one.ended() != nil { // the election took more than a second
		one.mute()
		within(t, 10*time.Second, "the other agent is let in again", func() bool {
			_, err := followers[1].tryJoin("n1", one.now())
			return err == nil
		})
	}
	time.Sleep(3 * patience(beat))
	if downs := leader.downs(); len(downs) > 0 {
		t.Errorf("nodes were called down: %v", downs)
	}
}

func TestAgentsOfAManagerThatDiesHaveTimeToFindAnother(t *testing.T) {
	c := newTrio(t)
	leader, followers := c.leader(), c.followers()
	p := followers[0].join("n1", wire.Held{})
	c.kill(followers[0])
	p.mute()
	time.Sleep(patience(beat))
	followers[1].join("n1", p.now())
	time.Sleep(2 * patience(beat))
	if downs := leader.downs(); len(downs) > 0 {
		t.Errorf("nodes were called down: %v", downs)
	}
}

func TestAnyManagerReachesThroughToAnyNode(t *testing.T) {
	c := newTrio(t)
	leader, followers := c.leader(), c.followers()
	leader.shop(leader.task(web1, "n1"), leader.task(web2, "n2"))
	puppets := []*puppet{followers[0].join("n1", wire.Held{}), leader.join("n2", wire.Held{})}
	for _, m := range c.managers {
		for i, p := range puppets {
			go func() {
				open, up := p.attach()
				_ = up.Send(&wire.UpFrame{Lines: []swarm.LogLine{line(open.Logs.Tasks[0], int64(i), string(open.Logs.Tasks[0])+" ")}})
				_ = up.CloseSend()
			}()
		}
		within(t, 5*time.Second, "the manager knows the tasks", func() bool { _, known := m.store.View().Task(web2); return known })
		var text string
		err := m.dispatcher.Logs(t.Context(), swarm.LogQuery{Tasks: []swarm.TaskID{web1, web2}}, func(line swarm.LogLine) error {
			text += string(line.Text)
			return nil
		})
		if err != nil || text != string(web1+" "+web2+" ") {
			t.Errorf("%s read %q, %v", m.name(), text, err)
		}
	}
	a, err := followers[1].dispatcher.open(t.Context(), "nowhere", wire.Open{Stats: []swarm.TaskID{web1}}, 0)
	if err == nil {
		_, err = a.recv()
		a.close()
	}
	if !contains(err, `node "nowhere" is not connected`) {
		t.Errorf("a node that nobody knows: %v", err)
	}
}

func TestAProcessIsReachedThroughTwoManagersAndEndsWithItsOwner(t *testing.T) {
	c := newTrio(t)
	leader, followers := c.leader(), c.followers()
	leader.shop(leader.task(web1, "n1"))
	p := followers[0].join("n1", wire.Held{})
	p.report(web1, swarm.TaskHealthy, "")
	far := followers[1]
	within(t, 5*time.Second, "every manager knows that it runs", func() bool { return far.status(web1).State == swarm.TaskHealthy })

	hung := make(chan error, 1)
	go func() {
		_, up := p.attach()
		for {
			down, err := up.Recv()
			if err != nil {
				hung <- err
				return
			}
			_ = up.Send(&wire.UpFrame{Exec: &swarm.ExecFrame{Stdout: down.Exec.Stdin}})
		}
	}()
	exec, err := far.dispatcher.Exec(t.Context(), swarm.ExecRequest{Task: web1, Args: []string{"cat"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		if err := exec.Send(swarm.ExecFrame{Stdin: []byte(text)}); err != nil {
			t.Fatal(err)
		}
		if frame, err := exec.Recv(); err != nil || string(frame.Stdout) != text {
			t.Fatalf("the process answered %q, %v", frame.Stdout, err)
		}
	}
	_ = exec.Close()
	select {
	case err := <-hung:
		if err == nil {
			t.Error("the agent heard no end")
		}
	case <-time.After(5 * time.Second):
		t.Error("the agent's stream outlives its owner")
	}
}

func TestARemovedNodesSessionEnds(t *testing.T) {
	c := newTrio(t)
	leader, follower := c.leader(), c.followers()[0]
	p := follower.join("n1", wire.Held{})
	node := swarm.NodeID("n1")
	leader.propose(store.Command{RemoveNode: &node})
	within(t, 5*time.Second, "the session has ended", func() bool { return p.ended() != nil })
	p.mute()
	if err := p.ended(); !contains(err, "removed from the cluster") {
		t.Errorf("it ended with %v", err)
	}
	if _, known := leader.store.View().Node("n1"); known {
		t.Error("the node is known again")
	}
}

func contains(err error, some ...string) bool {
	for _, want := range some {
		if err != nil && strings.Contains(err.Error(), want) {
			return true
		}
	}
	return false
}
