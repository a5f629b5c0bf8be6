package dispatcher

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	web1 = swarm.TaskID("shop/web.1.a")
	web2 = swarm.TaskID("shop/web.2.b")
)

func TestRegistersANodeThatIsNew(t *testing.T) {
	m := newManager(t)
	p := m.join("n1", wire.Held{})
	node, known := m.store.View().Node("n1")
	if !known || node.State != swarm.NodeReady || node.Availability != swarm.NodeActive || node.Description.Hostname != "n1" {
		t.Errorf("node is %+v", node)
	}
	if p.welcome.Heartbeat != calm/4 {
		t.Errorf("heartbeat is %s", p.welcome.Heartbeat)
	}

	p.send(wire.FromAgent{Describe: &swarm.NodeDescription{Hostname: "n1", BusyPorts: []swarm.Port{{Published: 80}}}})
	within(t, time.Second, "the node tells its busy port", func() bool {
		node, _ := m.store.View().Node("n1")
		return len(node.Description.BusyPorts) == 1
	})
}

func TestStreamsTheAssignmentAndItsChanges(t *testing.T) {
	m := newManager(t)
	m.join("n2", wire.Held{})
	m.shop(m.task(web1, "n1"), m.task(web2, "n2"))

	p := m.join("n1", wire.Held{})
	p.sees("task shop/web.1.a run\nnetwork shop/default\nservice shop/web www@shop/default")
	p.report(web1, swarm.TaskHealthy, "")
	p.sees("task shop/web.1.a run\nnetwork shop/default\nservice shop/web shop/web.1.a www@shop/default")

	m.desire(web1, swarm.DesiredDrain)
	p.sees("task shop/web.1.a drain\nnetwork shop/default\nservice shop/web www@shop/default")
	last := p.got()[len(p.got())-1]
	if last.Full || len(last.Changes.Tasks) != 1 || len(last.Changes.Networks) != 0 {
		t.Errorf("the delta carries more than the change: %+v", last)
	}

	p.report(web1, swarm.TaskStopped, "")
	m.decide(store.Decide{Decision: swarm.Decision{Forget: []swarm.TaskID{web1}}})
	p.sees("")
}

func TestANodeWithoutTasksGetsPublishedPortsOnly(t *testing.T) {
	m := newManager(t)
	p := m.join("n1", wire.Held{})
	m.shop(m.task(web2, "n2"))
	m.decide(store.Decide{Endpoints: []swarm.Endpoint{{Service: "shop/api", Ports: []swarm.Port{{Target: 80, Published: 8080}}}}})
	p.sees("service shop/api")
}

func TestAReturningAgentThatHoldsTheRightAssignmentGetsNone(t *testing.T) {
	m := newManager(t)
	m.shop(m.task(web1, "n1"))
	first := m.join("n1", wire.Held{})
	first.sees("task shop/web.1.a run\nnetwork shop/default\nservice shop/web www@shop/default")

	again := m.join("n1", first.now())
	within(t, time.Second, "the agent hears its index", func() bool { return len(again.got()) > 0 })
	if d := again.got()[0]; d.Full || !d.Changes.Empty() {
		t.Errorf("delta is %+v", d)
	}
	m.desire(web1, swarm.DesiredStop)
	again.sees("task shop/web.1.a stop\nnetwork shop/default\nservice shop/web www@shop/default")

	wrong := m.join("n1", wire.Held{Index: 1, Hash: 99})
	wrong.sees("task shop/web.1.a stop\nnetwork shop/default\nservice shop/web www@shop/default")
	if !wrong.got()[0].Full {
		t.Error("an agent with another hash did not get all")
	}
}

func TestANewerSessionReplacesTheOlder(t *testing.T) {
	m := newManager(t)
	m.shop(m.task(web1, "n1"))
	old := m.join("n1", wire.Held{})
	m.join("n1", wire.Held{})
	within(t, time.Second, "the older session has ended", func() bool { return old.ended() != nil })
	if got := old.ended().Error(); !strings.Contains(got, errReplaced.Error()) {
		t.Errorf("it ended with %q", got)
	}
	old.report(web1, swarm.TaskFailed, "from the grave")
	time.Sleep(20 * time.Millisecond)
	if state := m.status(web1).State; state == swarm.TaskFailed {
		t.Error("the older session was listened to")
	}
}

func TestSendsAllWhenAsked(t *testing.T) {
	m := newManager(t)
	m.shop(m.task(web1, "n1"))
	p := m.join("n1", wire.Held{})
	p.sees("task shop/web.1.a run\nnetwork shop/default\nservice shop/web www@shop/default")
	p.send(wire.FromAgent{Resend: true})
	within(t, time.Second, "a second full delta came", func() bool {
		return len(p.got()) == 2 && p.got()[1].Full
	})
}

func TestRefusesAnAgentThatHasSeenMore(t *testing.T) {
	m := newManager(t)
	_, err := m.tryJoin("n1", wire.Held{Index: 1 << 40})
	if err == nil || !strings.Contains(err.Error(), "this manager knows") {
		t.Errorf("error is %v", err)
	}
}

func TestWritesStatusesIntoTheLog(t *testing.T) {
	m := newManager(t)
	m.shop(m.task(web1, "n1"), m.task(web2, "n2"))
	p := m.join("n1", wire.Held{})

	began := time.Now()
	p.report(web1, swarm.TaskPreparing, "pulling 20%")
	within(t, time.Second, "the status is in the log", func() bool { return m.status(web1).Message == "pulling 20%" })
	t.Logf("status to log: %s", time.Since(began))

	p.report(web1, swarm.TaskHealthy, "")
	within(t, time.Second, "the task is healthy", func() bool { return m.status(web1).State == swarm.TaskHealthy })

	index := m.store.View().Index()
	p.report(web1, swarm.TaskHealthy, "")       // known
	p.report(web1, swarm.TaskPreparing, "late") // older
	p.report(web2, swarm.TaskFailed, "foreign") // of another node
	p.report("shop/web.9.z", swarm.TaskFailed, "unknown")
	time.Sleep(50 * time.Millisecond)
	if now := m.store.View().Index(); now != index {
		t.Errorf("reports that say nothing wrote %d log entries", now-index)
	}
}

func TestManyStatusesShareLogEntries(t *testing.T) {
	m := newManager(t)
	var tasks []swarm.Task
	for i := range 300 {
		tasks = append(tasks, m.task(swarm.TaskID(fmt.Sprintf("shop/web.%03d.a", i)), "n1"))
	}
	m.shop(tasks...)
	p := m.join("n1", wire.Held{})
	before := m.store.View().Index()
	for _, task := range tasks {
		p.report(task.ID, swarm.TaskHealthy, "")
	}
	within(t, 5*time.Second, "all are healthy", func() bool {
		return !slices.ContainsFunc(m.store.View().Tasks("shop"), func(t swarm.Task) bool { return t.Status.State != swarm.TaskHealthy })
	})
	if entries := m.store.View().Index() - before; entries > 150 {
		t.Errorf("300 statuses took %d log entries", entries)
	}
}

func TestASilentNodeIsDownAndComesBack(t *testing.T) {
	m := newManagerThatHears(t, beat)
	other := m.join("n2", wire.Held{})
	m.shop(m.task(web1, "n1"), m.task(web2, "n2"))
	p := m.join("n1", wire.Held{})
	p.report(web1, swarm.TaskHealthy, "")
	other.sees("task shop/web.2.b run\nnetwork shop/default\nservice shop/web shop/web.1.a www@shop/default")

	p.mute()
	state := func() swarm.NodeState {
		node, _ := m.store.View().Node("n1")
		return node.State
	}
	within(t, 10*beat, "the node is down", func() bool { return state() == swarm.NodeDown })
	if p.ended() == nil {
		within(t, time.Second, "its session has ended", func() bool { return p.ended() != nil })
	}
	other.sees("task shop/web.2.b run\nnetwork shop/default\nservice shop/web www@shop/default")

	m.join("n1", p.now())
	within(t, time.Second, "the node is ready", func() bool { return state() == swarm.NodeReady })
	other.sees("task shop/web.2.b run\nnetwork shop/default\nservice shop/web shop/web.1.a www@shop/default")
}

func TestANodeThatNeverComesBackAfterTheManagersStartIsDown(t *testing.T) {
	m := newManagerThatHears(t, beat)
	m.propose(store.Command{PutNode: &swarm.Node{ID: "gone", State: swarm.NodeReady}})
	began := time.Now()
	within(t, 20*beat, "the node is down", func() bool {
		node, _ := m.store.View().Node("gone")
		return node.State == swarm.NodeDown
	})
	if waited := time.Since(began); waited < 2*patience(beat)-beat {
		t.Errorf("it had only %s to find the new manager", waited)
	}
}

func TestAPauseOfTheManagerIsNotHeldAgainstItsNodes(t *testing.T) {
	m := newManagerThatHears(t, beat)
	m.join("n1", wire.Held{}).mute()
	for range 20 { // the process stands still again and again
		m.dispatcher.forgive(beat, time.Now())
		time.Sleep(beat / 2)
	}
	if node, _ := m.store.View().Node("n1"); node.State != swarm.NodeReady {
		t.Errorf("node is %s", node.State)
	}
}

func TestADrainingTaskIsOutOnceEveryNodeHasAppliedIt(t *testing.T) {
	m := newManager(t)
	m.shop(m.task(web1, "n1"), m.task(web2, "n2"))
	one, two := m.join("n1", wire.Held{}), m.join("n2", wire.Held{})
	one.report(web1, swarm.TaskHealthy, "")
	two.sees("task shop/web.2.b run\nnetwork shop/default\nservice shop/web shop/web.1.a www@shop/default")
	one.applies()
	two.applies()

	m.desire(web1, swarm.DesiredDrain)
	two.sees("task shop/web.2.b run\nnetwork shop/default\nservice shop/web www@shop/default")
	one.sees("task shop/web.1.a drain\nnetwork shop/default\nservice shop/web www@shop/default")
	one.applies()
	time.Sleep(50 * time.Millisecond)
	if m.status(web1).Drained {
		t.Fatal("the task is called drained while a node still sends to it")
	}
	two.applies()
	within(t, time.Second, "the task is drained", func() bool { return m.status(web1).Drained })
	if state := m.status(web1).State; state != swarm.TaskHealthy {
		t.Errorf("it is %s", state)
	}
}

func TestANodeThatIsDownHoldsUpNoDrain(t *testing.T) {
	m := newManagerThatHears(t, beat)
	m.shop(m.task(web1, "n1"), m.task(web2, "n2"))
	one, two := m.join("n1", wire.Held{}), m.join("n2", wire.Held{})
	one.report(web1, swarm.TaskHealthy, "")
	two.sees("task shop/web.2.b run\nnetwork shop/default\nservice shop/web shop/web.1.a www@shop/default")
	m.desire(web1, swarm.DesiredDrain)
	one.sees("task shop/web.1.a drain\nnetwork shop/default\nservice shop/web www@shop/default")
	one.applies()
	two.mute()
	within(t, 20*beat, "the task is drained", func() bool { return m.status(web1).Drained })
}

func TestBlobsGoOnlyToTheNodesWhoseTasksNameThem(t *testing.T) {
	m := newManager(t)
	secret, err := m.blobs.PutSecret(t.Context(), []byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	m.spec = m.put(swarm.TaskSpec{Files: []swarm.File{{Kind: swarm.FileSecret, Target: "/s", Content: secret}}})
	m.shop(m.task(web1, "n1"))
	one, two := m.join("n1", wire.Held{}), m.join("n2", wire.Held{})

	if data, err := one.client.Blob(t.Context(), one.welcome.Session, secret); err != nil || string(data) != "hunter2" {
		t.Errorf("n1 got %q, %v", data, err)
	}
	if _, err := one.client.Blob(t.Context(), one.welcome.Session, m.spec); err != nil {
		t.Errorf("n1 did not get its spec: %v", err)
	}
	if _, err := two.client.Blob(t.Context(), two.welcome.Session, secret); err == nil || !strings.Contains(err.Error(), "no task of node n2 names it") {
		t.Errorf("n2: %v", err)
	}
	for _, session := range []string{"", "made up"} {
		if _, err := two.client.Blob(t.Context(), session, secret); err == nil || !strings.Contains(err.Error(), "session is over") {
			t.Errorf("session %q: %v", session, err)
		}
	}
	m.decide(store.Decide{Decision: swarm.Decision{Forget: []swarm.TaskID{web1}}})
	if _, err := one.client.Blob(t.Context(), one.welcome.Session, secret); err == nil {
		t.Error("n1 still got the secret of a task that it has no more")
	}
}

func TestVolumesThatWereGivenUpGoOnceTheirNodeHasRemovedThem(t *testing.T) {
	m := newManager(t)
	volume := swarm.KeptVolume{ID: "shop/data", Node: "n1"}
	m.decide(store.Decide{Volumes: []swarm.KeptVolume{volume}})
	p := m.join("n1", wire.Held{})
	p.send(wire.FromAgent{Removed: []swarm.VolumeID{"shop/data"}}) // nobody asked for that
	p.send(wire.FromAgent{Describe: &swarm.NodeDescription{Hostname: "n1", Build: "told after it"}})
	within(t, 5*time.Second, "the message after it was heard", func() bool {
		node, _ := m.store.View().Node("n1")
		return node.Description.Build == "told after it"
	})
	m.propose(store.Command{DropVolumes: []swarm.KeptVolume{volume}})
	p.sees("volume shop/data")
	p.send(wire.FromAgent{Removed: []swarm.VolumeID{"shop/data"}})
	p.sees("")
	if left := m.store.View().Volumes(); len(left) != 0 {
		t.Errorf("volumes left: %v", left)
	}
}
