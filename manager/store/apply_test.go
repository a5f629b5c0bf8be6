package store

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/gitswarm/gitswarm/swarm"
)

// log is a state and the index of its last command.
type log struct {
	t     testing.TB
	db    *memdb.MemDB
	index uint64
	last  Touched
}

func newLog(t testing.TB) *log { return &log{t: t, db: newDB()} }

// try applies a command a minute after the last.
func (l *log) try(c Command) error {
	l.t.Helper()
	l.index++
	if c.At.IsZero() {
		c.At = noon.Add(time.Duration(l.index) * time.Minute)
	}
	entry, err := encodeEntry(c)
	if err != nil {
		l.t.Fatal(err)
	}
	if c, err = decodeEntry(entry); err != nil {
		l.t.Fatal(err)
	}
	touched, err := apply(l.db, l.index, c)
	l.last = touched.touched()
	return err
}

func (l *log) do(commands ...Command) {
	l.t.Helper()
	for _, c := range commands {
		if err := l.try(c); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *log) view() *View { return newView(l.db) }

func (l *log) stack(name swarm.StackName) swarm.StackRecord {
	l.t.Helper()
	record, ok := l.view().Stack(name)
	if !ok {
		l.t.Fatalf("there is no stack %s", name)
	}
	return record
}

func (l *log) task(id swarm.TaskID) swarm.Task {
	l.t.Helper()
	task, ok := l.view().Task(id)
	if !ok {
		l.t.Fatalf("there is no task %s", id)
	}
	return task
}

// decide is a decision on the record as it is.
func (l *log) decide(d swarm.Decision) Command {
	d.Stack, d.Version = "shop", l.stack("shop").Version
	return Command{Decide: &Decide{Decision: d}}
}

func (l *log) report(id swarm.TaskID, status swarm.TaskStatus) Command {
	return Command{ReportStatus: &ReportStatus{Tasks: []TaskReport{{Task: id, Status: status}}}}
}

func operate(o Operate) Command { return Command{By: "ana", Operate: &o} }

// withShop is a log with source main, stack shop at v1 and one task of it.
func withShop(t testing.TB) *log {
	l := newLog(t)
	l.do(putSource("main"), accept("shop", "v1"))
	l.do(l.decide(swarm.Decision{Create: []swarm.Task{{
		ID: "shop/web.1.a", Service: "shop/web", Slot: 1, Node: "n1", Desired: swarm.DesiredPrepare,
		Addresses: []swarm.Address{{Network: "shop/default", IP: "10.0.0.2"}},
	}}}))
	return l
}

func wantTouched(t testing.TB, got, want Touched) {
	t.Helper()
	if got.Everything != want.Everything || !slices.Equal(got.Stacks, want.Stacks) ||
		!slices.Equal(got.Nodes, want.Nodes) || !slices.Equal(got.Sources, want.Sources) {
		t.Errorf("touched %+v, want %+v", got, want)
	}
}

func TestClusterTimeNeverGoesBack(t *testing.T) {
	l := newLog(t)
	l.do(Command{At: noon.Add(time.Hour), Lead: &Lead{Node: "m1"}}, Command{At: noon, Lead: &Lead{Node: "m2"}})
	if now := l.view().Now(); !now.Equal(noon.Add(time.Hour)) {
		t.Errorf("now %v", now)
	}
}

func TestAnOperatorDoesNotOverwriteWhatGitsyncSaw(t *testing.T) {
	l := newLog(t)
	saw := Command{SawSource: &SawSource{Source: "main", Status: swarm.SourceStatus{Head: "main@sha1:1", Problem: "host is down"}}}
	approved := putSource("main")
	approved.PutSource.Approved = true
	l.do(approved, saw, putSource("main"))

	source, _ := l.view().Source("main")
	if source.Status.Problem != "host is down" || !source.Approved || source.Created.IsZero() {
		t.Errorf("%+v", source)
	}
	if err := l.try(Command{SawSource: &SawSource{Source: "other"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown source: %v", err)
	}
	l.do(Command{RemoveSource: new(swarm.SourceID("main"))})
	if _, ok := l.view().Source("main"); ok {
		t.Error("still there")
	}
	wantTouched(t, l.last, Touched{Sources: []swarm.SourceID{"main"}})
}

func TestAProblemKeepsHeadAndTheAcceptedContent(t *testing.T) {
	l := withShop(t)
	bad := accept("shop", "v2")
	bad.AcceptStacks.Stacks[0].Problem = &swarm.Problem{Kind: swarm.ProblemPolicy, Text: "privileged"}
	l.do(bad)

	record := l.stack("shop")
	if record.Head.Content != "sha256:v2" || record.Accepted.Content != "sha256:v1" || record.Version != l.index {
		t.Errorf("%+v", record)
	}
	since := record.Problem.Since
	bad.At = time.Time{}
	l.do(bad)
	if got := l.stack("shop").Problem.Since; since.IsZero() || !got.Equal(since) {
		t.Errorf("the problem began at %v, not %v", got, since)
	}
	l.do(accept("shop", "v3"))
	if record := l.stack("shop"); record.Problem != nil || record.Accepted.Content != "sha256:v3" {
		t.Errorf("%+v", record)
	}
}

func TestARemovedStackGoesWithItsNetworksAndLeavesItsVolumes(t *testing.T) {
	l := withShop(t)
	allocate := l.decide(swarm.Decision{})
	allocate.Decide.Networks = []swarm.AllocatedNetwork{{ID: "shop/default", Subnet: "10.0.0.0/24"}, {ID: "shopping/default"}}
	allocate.Decide.Endpoints = []swarm.Endpoint{{Service: "shop/web"}}
	allocate.Decide.Volumes = []swarm.KeptVolume{{ID: "shop/data", Node: "n1"}, {ID: "shop/data", Node: "n2"}}
	removed := accept("shop", "")
	removed.AcceptStacks.Stacks[0].Removed = true
	l.do(allocate, removed)
	if !l.stack("shop").Removing {
		t.Fatal("not removing")
	}

	l.do(l.decide(swarm.Decision{Gone: true, Forget: []swarm.TaskID{"shop/web.1.a"}}))
	wantTouched(t, l.last, Touched{Stacks: []swarm.StackName{"shop"}, Nodes: []swarm.NodeID{"n1", "n2"}})
	v := l.view()
	if len(v.Stacks())+len(v.AllTasks())+len(v.Endpoints()) != 0 || len(v.Networks()) != 1 {
		t.Errorf("left: %v %v %v %v", v.Stacks(), v.AllTasks(), v.Endpoints(), v.Networks())
	}
	for _, volume := range v.VolumesOf("shop") {
		if volume.Orphan.IsZero() || volume.Created.IsZero() {
			t.Errorf("%+v", volume)
		}
	}

	l.do(accept("shop", "v1"))
	if volume := l.view().VolumesOf("shop")[0]; !volume.Orphan.IsZero() {
		t.Errorf("the stack is back, and its volume is %+v", volume)
	}
}

func TestARenamedStackTakesAllItHasAlong(t *testing.T) {
	l := withShop(t)
	allocate := l.decide(swarm.Decision{})
	allocate.Decide.Networks = []swarm.AllocatedNetwork{{ID: "shop/default", Subnet: "10.0.0.0/24"}}
	allocate.Decide.Endpoints = []swarm.Endpoint{{Service: "shop/web", VIPs: []swarm.Address{{Network: "shop/default", IP: "10.0.0.3"}, {Network: "shared", IP: "10.9.0.1"}}}}
	allocate.Decide.Volumes = []swarm.KeptVolume{{ID: "shop/data", Node: "n1"}}
	renamed := accept("store", "v2")
	renamed.AcceptStacks.Stacks[0].Was = "shop"
	l.do(allocate, renamed)

	wantTouched(t, l.last, Touched{Stacks: []swarm.StackName{"shop", "store"}, Nodes: []swarm.NodeID{"n1"}, Sources: []swarm.SourceID{"main"}})
	v := l.view()
	if _, ok := v.Stack("shop"); ok {
		t.Error("the old record is still there")
	}
	if record := l.stack("store"); record.Accepted.Content != "sha256:v2" {
		t.Errorf("%+v", record)
	}
	task := l.task("shop/web.1.a")
	if task.Service != "store/web" || task.Addresses[0].Network != "store/default" || len(v.Tasks("store")) != 1 || len(v.Tasks("shop")) != 0 {
		t.Errorf("%+v", task)
	}
	endpoint, _ := v.Endpoint("store/web")
	if len(endpoint.VIPs) != 2 || endpoint.VIPs[0].Network != "store/default" || endpoint.VIPs[1].Network != "shared" {
		t.Errorf("%+v", endpoint)
	}
	if len(v.NetworksOf("store")) != 1 || len(v.VolumesOf("store")) != 1 || len(v.Networks()) != 1 {
		t.Errorf("%v %v", v.Networks(), v.Volumes())
	}
	l.do(renamed) // the line stays in the file
	if len(l.view().Stacks()) != 1 {
		t.Error("renamed again")
	}
}

func TestADecisionOnAnOlderRecordIsVoid(t *testing.T) {
	l := withShop(t)
	old := l.decide(swarm.Decision{Create: []swarm.Task{{ID: "shop/web.2.b", Service: "shop/web"}}})
	l.do(accept("shop", "v2"))
	if err := l.try(old); !errors.Is(err, ErrStale) {
		t.Errorf("got %v", err)
	}
	if _, ok := l.view().Task("shop/web.2.b"); ok {
		t.Error("half of it happened")
	}
	again := l.decide(swarm.Decision{
		Desire: []swarm.Desire{{Task: "shop/web.1.a", Desired: swarm.DesiredStop}},
		Create: []swarm.Task{{ID: "shop/web.2.b", Service: "shop/web"}, {ID: "shop/web.1.a", Service: "shop/web"}},
	})
	if err := l.try(again); !errors.Is(err, ErrStale) || l.task("shop/web.1.a").Desired != swarm.DesiredPrepare {
		t.Errorf("a task that is there: %v", err)
	}
	if _, ok := l.view().Task("shop/web.2.b"); ok || l.view().Index() != l.index {
		t.Error("half of it happened")
	}
	version := l.stack("shop").Version
	l.do(l.decide(swarm.Decision{Rollout: &swarm.Rollout{ID: 1, Phase: swarm.PhaseProgressing}}))
	if l.stack("shop").Version != version {
		t.Error("the reconciler's own change voids its next one")
	}
}

func TestWhatIsAskedOfATaskOnlyGrows(t *testing.T) {
	l := withShop(t)
	task := l.task("shop/web.1.a")
	if task.Status.State != swarm.TaskAssigned || !task.Touched.IsZero() || task.Created.IsZero() {
		t.Errorf("new: %+v", task)
	}
	at := noon.Add(time.Hour)
	l.do(l.decide(swarm.Decision{Desire: []swarm.Desire{{Task: task.ID, Desired: swarm.DesiredRun, At: at}}}))
	task = l.task(task.ID)
	if task.Desired != swarm.DesiredRun || !task.Touched.Equal(at) || !task.DesiredAt.Equal(at) {
		t.Errorf("run: %+v", task)
	}
	l.do(l.decide(swarm.Decision{Desire: []swarm.Desire{
		{Task: task.ID, Desired: swarm.DesiredStop, Excused: "stopped by operator"},
		{Task: task.ID, Desired: swarm.DesiredRun, Node: "n2"},
		{Task: "forgotten", Desired: swarm.DesiredRun},
	}}))
	task = l.task(task.ID)
	if task.Desired != swarm.DesiredStop || task.Excused == "" || task.Node != "n1" || !task.Touched.Equal(at) {
		t.Errorf("stop: %+v", task)
	}
	wantTouched(t, l.last, Touched{Stacks: []swarm.StackName{"shop"}, Nodes: []swarm.NodeID{"n1"}})
}

func TestATaskWithoutANodeSaysWhyAndThenGetsOne(t *testing.T) {
	l := withShop(t)
	const id = "shop/web.2.b"
	l.do(l.decide(swarm.Decision{Create: []swarm.Task{{ID: id, Service: "shop/web", Slot: 2}}}))
	l.do(l.decide(swarm.Decision{Desire: []swarm.Desire{{Task: id, Message: "no node fits"}}}))
	if task := l.task(id); task.Status.Message != "no node fits" || task.Status.State != swarm.TaskNew {
		t.Errorf("%+v", task)
	}
	l.do(l.decide(swarm.Decision{Desire: []swarm.Desire{{Task: id, Node: "n2", Addresses: []swarm.Address{{IP: "10.0.0.9"}}}}}))
	if task := l.task(id); task.Node != "n2" || task.Status.State != swarm.TaskAssigned || task.Status.Message != "" || len(task.Addresses) != 1 {
		t.Errorf("%+v", task)
	}
	if on := l.view().TasksOn("n2"); len(on) != 1 {
		t.Errorf("%v", on)
	}
	l.do(l.decide(swarm.Decision{Create: []swarm.Task{{ID: "shop/web.3.c", Service: "shop/web", Slot: 3}}}))
	l.do(l.decide(swarm.Decision{Desire: []swarm.Desire{{Task: "shop/web.3.c", Desired: swarm.DesiredRemove}}}))
	if task := l.task("shop/web.3.c"); task.Status.State != swarm.TaskStopped {
		t.Errorf("no node will ever end it: %+v", task)
	}
}

func TestTimesOfATaskAreTheClusters(t *testing.T) {
	l := withShop(t)
	const id = "shop/web.1.a"
	agents := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	step := func(status swarm.TaskStatus) swarm.TaskStatus {
		status.Since, status.Started, status.Healthy = agents, agents, agents
		l.do(l.report(id, status))
		return l.task(id).Status
	}

	preparing := step(swarm.TaskStatus{State: swarm.TaskPreparing, Pulled: 10})
	pulled := step(swarm.TaskStatus{State: swarm.TaskPreparing, Pulled: 60})
	if !pulled.Since.Equal(preparing.Since) || pulled.Pulled != 60 || !pulled.Started.IsZero() {
		t.Errorf("%+v", pulled)
	}
	healthy := step(swarm.TaskStatus{State: swarm.TaskHealthy})
	if healthy.Started != healthy.Since || healthy.Healthy != healthy.Since || !healthy.Since.After(preparing.Since) {
		t.Errorf("%+v", healthy)
	}
	drained := step(swarm.TaskStatus{State: swarm.TaskHealthy, Drained: true})
	if late := step(swarm.TaskStatus{State: swarm.TaskStarting}); late != drained {
		t.Errorf("went back: %+v", late)
	}
	if kept := step(swarm.TaskStatus{State: swarm.TaskHealthy}); !kept.Drained || !kept.Since.Equal(healthy.Since) {
		t.Errorf("%+v", kept)
	}
	if !l.last.Empty() {
		t.Errorf("nothing new touched %+v", l.last)
	}
	failed := step(swarm.TaskStatus{State: swarm.TaskFailed, Exit: new(3), OOM: true})
	if *failed.Exit != 3 || failed.Healthy != healthy.Healthy || !failed.OOM {
		t.Errorf("%+v", failed)
	}
	if lost := step(swarm.TaskStatus{State: swarm.TaskLost}); lost.State != swarm.TaskFailed {
		t.Errorf("it ended twice: %+v", lost)
	}
}

func TestHistoryAndQuarantineAreBoundedAndWithoutDuplicates(t *testing.T) {
	l := withShop(t)
	for i := range 15 {
		l.do(l.decide(swarm.Decision{
			Ended:      &swarm.Ended{ID: uint64(i)},
			Quarantine: &swarm.Quarantined{Content: swarm.Digest(fmt.Sprint("sha256:", i%12)), At: noon},
		}))
	}
	record := l.stack("shop")
	if len(record.History) != swarm.HistoryLimit || record.History[0].ID != 14 {
		t.Errorf("%d in the history, first %d", len(record.History), record.History[0].ID)
	}
	seen := map[swarm.Digest]bool{}
	for _, q := range record.Quarantine {
		if seen[q.Content] {
			t.Errorf("%s twice", q.Content)
		}
		seen[q.Content] = true
	}
	if len(seen) != swarm.HistoryLimit || record.Quarantine[0].Content != "sha256:2" {
		t.Errorf("%v", record.Quarantine)
	}
}

func TestRollbackQuarantinesWhatWasAcceptedAndRetryReleasesIt(t *testing.T) {
	l := withShop(t)
	l.do(accept("shop", "v2"), operate(Operate{Stack: "shop", Rollback: new(rendered("v1"))}))
	record := l.stack("shop")
	if record.Accepted.Content != "sha256:v1" || len(record.Quarantine) != 1 || record.Quarantine[0].Content != "sha256:v2" ||
		record.Head.Content != "sha256:v2" || record.Problem == nil || record.Problem.Kind != swarm.ProblemQuarantine {
		t.Errorf("%+v", record)
	}
	l.do(operate(Operate{Stack: "shop", Retry: true}))
	record = l.stack("shop")
	if record.Accepted.Content != "sha256:v2" || len(record.Quarantine) != 0 || record.Problem != nil {
		t.Errorf("%+v", record)
	}

	held := accept("shop", "v3")
	held.AcceptStacks.Stacks[0].Problem = &swarm.Problem{Kind: swarm.ProblemApproval, Plan: "p1", Text: "approve p1"}
	l.do(held)
	if err := l.try(operate(Operate{Stack: "shop", Retry: true})); err == nil || l.stack("shop").Accepted.Content != "sha256:v2" {
		t.Errorf("retry went past an approval: %v", err)
	}
}

func TestApprovalAcceptsHeadsAndBeginsRemovals(t *testing.T) {
	l := withShop(t)
	l.do(accept("blog", "v1"), accept("wiki", "v1"))
	waits := func(name, content, plan string) AcceptStack {
		s := accept(name, content).AcceptStacks.Stacks[0]
		s.Problem = &swarm.Problem{Kind: swarm.ProblemApproval, Plan: plan, Text: "approve " + plan}
		return s
	}
	gone := waits("blog", "", "p1")
	gone.Head.Content, gone.Removed = "", true
	l.do(Command{AcceptStacks: &AcceptStacks{Source: "main", Stacks: []AcceptStack{gone, waits("shop", "v2", "p1"), waits("wiki", "v2", "p2")}}})
	if l.stack("blog").Removing {
		t.Fatal("removed before it was approved")
	}
	l.do(operate(Operate{Approve: "p1"}))

	if shop := l.stack("shop"); shop.Accepted.Content != "sha256:v2" || shop.Problem != nil {
		t.Errorf("%+v", shop)
	}
	if blog := l.stack("blog"); !blog.Removing || blog.Problem != nil {
		t.Errorf("%+v", blog)
	}
	if wiki := l.stack("wiki"); wiki.Problem == nil || wiki.Accepted.Content != "sha256:v1" {
		t.Errorf("%+v", wiki)
	}
	if source, _ := l.view().Source("main"); !source.Approved {
		t.Error("its source is not approved")
	}
	if err := l.try(operate(Operate{Approve: "p1"})); !errors.Is(err, ErrNotFound) {
		t.Errorf("approved twice: %v", err)
	}
}

func TestOperatorsScaleRestartSuspendAndRedeploy(t *testing.T) {
	l := withShop(t)
	l.do(operate(Operate{Stack: "shop", Scale: map[string]int{"web": 5, "db": 0}}),
		operate(Operate{Stack: "shop", Restart: []string{"web"}}),
		operate(Operate{Stack: "shop", Restart: []string{"web", "db"}}),
		operate(Operate{Stack: "shop", Suspend: new("audit")}),
		operate(Operate{Stack: "shop", Accept: &swarm.Rendered{Revision: rendered("v1").Revision, Content: "sha256:pulled"}}))
	record := l.stack("shop")
	if !reflect.DeepEqual(record.Scale, map[string]int{"web": 5, "db": 0}) ||
		!reflect.DeepEqual(record.Generation, map[string]uint64{"web": 2, "db": 1}) ||
		record.Suspended != "audit" || record.Accepted.Content != "sha256:pulled" || record.Head.Content != "sha256:pulled" ||
		record.Version != l.index {
		t.Errorf("%+v", record)
	}
	if err := l.try(operate(Operate{Stack: "shop", Scale: map[string]int{"web": -1}})); err == nil {
		t.Error("scaled below nothing")
	}

	changed := accept("shop", "v2")
	changed.AcceptStacks.Stacks[0].Rescale = []string{"web"}
	l.do(changed, operate(Operate{Stack: "shop", Suspend: new("")}))
	record = l.stack("shop")
	if !reflect.DeepEqual(record.Scale, map[string]int{"db": 0}) || record.Suspended != "" {
		t.Errorf("%+v", record)
	}
	events := l.view().Events(0, 1)
	if len(events) != 1 || events[0].Text != "resumed by ana" || events[0].Index != l.index || events[0].At.IsZero() {
		t.Errorf("%+v", events)
	}
}

func TestOperatorAndDispatcherDoNotUndoEachOthersWordOnANode(t *testing.T) {
	l := newLog(t)
	l.do(Command{PutNode: &swarm.Node{ID: "n1", State: swarm.NodeReady, Role: "worker", Description: swarm.NodeDescription{Hostname: "w1"}}})
	first, _ := l.view().Node("n1")
	if first.Availability != swarm.NodeActive || first.Since.IsZero() || first.Joined.IsZero() {
		t.Errorf("%+v", first)
	}
	stale := first
	l.do(
		Command{By: "ana", PutNode: &swarm.Node{ID: "n1", Availability: swarm.NodeDrained, State: swarm.NodeDown}},
		Command{By: "eva", PutNode: &swarm.Node{ID: "n1", Labels: map[string]string{"zone": "eu"}}}, // of whatever she has seen
	)
	stale.State = swarm.NodeDown
	l.do(Command{PutNode: &stale})

	node, _ := l.view().Node("n1")
	if node.Availability != swarm.NodeDrained || node.Labels["zone"] != "eu" || node.State != swarm.NodeDown || !node.Since.After(first.Since) {
		t.Errorf("%+v", node)
	}
	wantTouched(t, l.last, Touched{Nodes: []swarm.NodeID{"n1"}})
	if err := l.try(Command{By: "ana", PutNode: &swarm.Node{ID: "n9"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("an operator made a node: %v", err)
	}
}

func TestADroppedVolumeIsKnownUntilItsNodeHasRemovedIt(t *testing.T) {
	l := withShop(t)
	volume := swarm.KeptVolume{ID: "shop/data", Node: "n1"}
	keep := l.decide(swarm.Decision{})
	keep.Decide.Volumes = []swarm.KeptVolume{volume}
	drop := Command{DropVolumes: []swarm.KeptVolume{volume}}
	l.do(keep, drop)
	if kept := l.view().Volumes(); len(kept) != 1 || kept[0].Dropped.IsZero() {
		t.Errorf("%+v", kept)
	}
	wantTouched(t, l.last, Touched{Nodes: []swarm.NodeID{"n1"}})
	l.do(drop) // said twice
	gone := Command{DropVolumes: l.view().Volumes()}
	l.do(gone)
	if kept := l.view().Volumes(); len(kept) != 0 {
		t.Errorf("%+v", kept)
	}

	anew := l.decide(swarm.Decision{})
	anew.Decide.Volumes = []swarm.KeptVolume{volume}
	l.do(gone, anew, gone) // a report of the removal came late
	if kept := l.view().Volumes(); len(kept) != 1 || !kept[0].Dropped.IsZero() {
		t.Errorf("the new volume is %+v", kept)
	}
}

func TestANewLeaderOpensMonitorWindowsAnewAndVoidsOldDecisions(t *testing.T) {
	l := withShop(t)
	l.do(accept("done", "v1"))
	l.do(l.decide(swarm.Decision{Rollout: &swarm.Rollout{ID: 1, Phase: swarm.PhaseProgressing, Opened: noon}}))
	late := l.decide(swarm.Decision{Rollout: &swarm.Rollout{ID: 1, Phase: swarm.PhaseHealthy}})
	done := l.stack("done")
	l.do(Command{Lead: &Lead{Node: "m2"}})

	if record := l.stack("shop"); !record.Rollout.Opened.Equal(l.view().Now()) {
		t.Errorf("%+v", record.Rollout)
	}
	if !reflect.DeepEqual(l.stack("done"), done) {
		t.Error("a stack without a rollout changed")
	}
	wantTouched(t, l.last, Touched{Everything: true, Stacks: []swarm.StackName{"shop"}})
	if err := l.try(late); !errors.Is(err, ErrStale) {
		t.Errorf("an old leader's decision: %v", err)
	}
}

func TestEventsAreARing(t *testing.T) {
	l := withShop(t)
	for i := range 600 {
		l.do(l.decide(swarm.Decision{Events: []swarm.Event{{Kind: "rollout", Text: fmt.Sprint(i, "a")}, {Kind: "rollout", Text: fmt.Sprint(i, "b")}}}))
	}
	all := l.view().Events(0, 0)
	if len(all) != eventLimit || all[len(all)-1].Text != "599b" || all[0].Text != "100a" {
		t.Errorf("%d events, from %q to %q", len(all), all[0].Text, all[len(all)-1].Text)
	}
	since := l.view().Events(l.index-1, 0)
	if len(since) != 2 || since[0].Text != "599a" {
		t.Errorf("%v", since)
	}
	if last := l.view().Events(0, 3); len(last) != 3 || last[2].Text != "599b" {
		t.Errorf("%v", last)
	}
}

func TestGrantsAreReplacedWhole(t *testing.T) {
	l := newLog(t)
	want := []swarm.Grant{{Stack: "shop", Rule: "privileged"}, {Stack: "blog", Rule: "cap-add", Value: "NET_ADMIN"}}
	l.do(Command{PutGrants: &PutGrants{Grants: []swarm.Grant{{Stack: "old"}}}}, Command{PutGrants: &PutGrants{Grants: want}})
	if got := l.view().Grants(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	wantTouched(t, l.last, Touched{Everything: true})
}

func TestCommandsWithoutAnIdAreRefused(t *testing.T) {
	l := withShop(t)
	task, network, endpoint := l.decide(swarm.Decision{Create: []swarm.Task{{}}}), l.decide(swarm.Decision{}), l.decide(swarm.Decision{})
	network.Decide.Networks = []swarm.AllocatedNetwork{{}}
	endpoint.Decide.Endpoints = []swarm.Endpoint{{}}
	for _, c := range []Command{
		{PutSource: &swarm.Source{}}, {PutNode: &swarm.Node{}}, accept("", "v1"), task, network, endpoint,
		operate(Operate{Stack: "shop"}), {Decide: &Decide{}},
	} {
		if err := l.try(c); err == nil {
			t.Errorf("%+v was applied", c)
		}
	}
}
