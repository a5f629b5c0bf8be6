package store

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-memdb"
	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/swarm"
)

var (
	stackNames = []swarm.StackName{"blog", "shop", "shop2"}
	taskIDs    = []swarm.TaskID{"blog/web.1.a", "shop/web.1.a", "shop/web.1.b", "shop/web.2.c", "shop2/web.1.d"}
	nodeIDs    = []swarm.NodeID{"", "n1", "n2"}
	contents   = []string{"", "v1", "v2", "v3"}
	states     = []swarm.TaskState{
		swarm.TaskNew, swarm.TaskAssigned, swarm.TaskPreparing, swarm.TaskPrepared, swarm.TaskStarting, swarm.TaskHealthy,
		swarm.TaskComplete, swarm.TaskStopped, swarm.TaskFailed, swarm.TaskRejected, swarm.TaskLost,
	}
	desires = []swarm.Desired{0, swarm.DesiredPrepare, swarm.DesiredRun, swarm.DesiredDrain, swarm.DesiredStop, swarm.DesiredRemove}
)

func pick[T any](t *rapid.T, from []T, label string) T { return rapid.SampledFrom(from).Draw(t, label) }

// anyCommand draws a command; the view lets decisions be taken on the newest
// record now and then.
func anyCommand(t *rapid.T, v *View) Command {
	c := Command{At: noon.Add(time.Duration(rapid.IntRange(-60, 3600).Draw(t, "at")) * time.Second), By: pick(t, []string{"", "ana"}, "by")}
	stack := pick(t, stackNames, "stack")
	switch rapid.IntRange(0, 13).Draw(t, "kind") {
	case 0:
		c.PutSource = &swarm.Source{ID: "main", Approved: rapid.Bool().Draw(t, "approved")}
	case 1:
		c.RemoveSource = new(swarm.SourceID("main"))
	case 2:
		c.SawSource = &SawSource{Source: "main", Status: swarm.SourceStatus{Problem: pick(t, []string{"", "down"}, "problem")}}
	case 3, 4:
		c.AcceptStacks = &AcceptStacks{Source: pick(t, []swarm.SourceID{"", "main"}, "source"), Stacks: []AcceptStack{anyStack(t, stack)}}
	case 5, 6, 7:
		record, _ := v.Stack(stack)
		d := anyDecision(t, stack, known(v))
		d.Decision.Version = record.Version - uint64(rapid.IntRange(0, 1).Draw(t, "late"))*record.Version/2
		c.Decide = &d
	case 8, 12, 13:
		c.ReportStatus = &ReportStatus{Tasks: []TaskReport{anyReport(t, known(v)), anyReport(t, known(v))}}
	case 9:
		c.PutNode = &swarm.Node{ID: pick(t, nodeIDs[1:], "node"), State: pick(t, []swarm.NodeState{"", swarm.NodeReady, swarm.NodeDown}, "state")}
	case 10:
		o := anyOperate(t, stack)
		c.Operate = &o
	case 11:
		pick(t, []func(){
			func() { c.Lead = &Lead{Cluster: "c"} },
			func() { c.PutGrants = &PutGrants{Grants: []swarm.Grant{{Stack: stack}}} },
			func() { c.DropVolumes = []swarm.KeptVolume{{ID: swarm.NewVolumeID(stack, "data"), Node: "n1"}} },
			func() { c.RemoveNode = new(pick(t, nodeIDs[1:], "removed")) },
			func() {
				row, _ := v.Cluster()
				row.Settings.TaskHistory = rapid.IntRange(0, 9).Draw(t, "history")
				c.PutCluster = &row
			},
			func() { c.PutToken = &swarm.UserToken{ID: "t", Role: swarm.UserCI, Hash: []byte("h")} },
			func() { c.DropToken = new("t") },
		}, "rare")()
	}
	return c
}

// known are the tasks that there are, or else some that could be.
func known(v *View) []swarm.TaskID {
	var ids []swarm.TaskID
	for _, task := range v.AllTasks() {
		ids = append(ids, task.ID)
	}
	if len(ids) == 0 {
		return taskIDs
	}
	return ids
}

func anyStack(t *rapid.T, name swarm.StackName) AcceptStack {
	s := AcceptStack{Name: name, Head: rendered(pick(t, contents, "content"))}
	switch rapid.IntRange(0, 4).Draw(t, "what") {
	case 0:
		s.Problem = &swarm.Problem{Kind: swarm.ProblemApproval, Plan: "p"}
	case 1:
		s.Removed = true
	case 2:
		s.Was = pick(t, stackNames, "was")
	}
	if s.Head.Content == "sha256:" {
		s.Head.Content = ""
	}
	return s
}

func anyDecision(t *rapid.T, stack swarm.StackName, tasks []swarm.TaskID) Decide {
	d := Decide{Decision: swarm.Decision{
		Stack: stack,
		Gone:  rapid.IntRange(0, 19).Draw(t, "gone") == 0,
		Desire: []swarm.Desire{{
			Task: pick(t, tasks, "desired"), Desired: pick(t, desires, "desire"), Node: pick(t, nodeIDs, "to"),
		}},
		Events: []swarm.Event{{Kind: "rollout", Stack: stack, Text: "something happened"}},
	}}
	if rapid.Bool().Draw(t, "create") {
		d.Decision.Create = []swarm.Task{{
			ID: pick(t, taskIDs, "created"), Service: swarm.NewServiceID(stack, "web"), Slot: 1,
			Node: pick(t, nodeIDs, "on"), Desired: pick(t, desires, "first desire"),
		}}
		d.Endpoints = []swarm.Endpoint{{Service: swarm.NewServiceID(stack, "web")}}
		d.Networks = []swarm.AllocatedNetwork{{ID: swarm.NewNetworkID(stack, "default")}}
		d.Volumes = []swarm.KeptVolume{{ID: swarm.NewVolumeID(stack, "data"), Node: pick(t, nodeIDs, "volume on")}}
	}
	if rapid.IntRange(0, 3).Draw(t, "forget") == 0 {
		d.Decision.Forget = []swarm.TaskID{pick(t, tasks, "forgotten")}
	}
	if rapid.Bool().Draw(t, "rollout") {
		d.Decision.Rollout = &swarm.Rollout{ID: 1, Phase: pick(t, []swarm.Phase{swarm.PhaseProgressing, swarm.PhaseHealthy}, "phase")}
		d.Decision.Quarantine = &swarm.Quarantined{Content: rendered(pick(t, contents, "bad")).Content}
	}
	return d
}

func anyReport(t *rapid.T, tasks []swarm.TaskID) TaskReport {
	status := swarm.TaskStatus{State: pick(t, states, "state"), Message: pick(t, []string{"", "pulling"}, "message")}
	if rapid.Bool().Draw(t, "exited") {
		status.Exit = new(rapid.IntRange(0, 2).Draw(t, "exit"))
	}
	return TaskReport{Task: pick(t, tasks, "task"), Status: status}
}

func anyOperate(t *rapid.T, stack swarm.StackName) Operate {
	return pick(t, []Operate{
		{Stack: stack, Suspend: new("audit")}, {Stack: stack, Suspend: new("")},
		{Stack: stack, Scale: map[string]int{"web": 3, "db": 1}}, {Stack: stack, Restart: []string{"web"}},
		{Stack: stack, Retry: true}, {Stack: stack, Rollback: new(rendered("v1"))},
		{Stack: stack, Accept: new(rendered("v2"))}, {Approve: "p"}, {Stack: stack},
	}, "operate")
}

func written(t *rapid.T, db *memdb.MemDB) []byte {
	var b bytes.Buffer
	if err := writeState(&b, db.Txn(false)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestTheLogAloneMakesTheState: whatever happens, replaying the log, also from
// a snapshot in its middle, gives the same bytes; tasks never go back.
func TestTheLogAloneMakesTheState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		live := newDB()
		var entries [][]byte
		for index := range uint64(rapid.IntRange(1, 60).Draw(t, "commands")) {
			before := newView(live)
			c := anyCommand(t, before)
			entry, err := encodeEntry(c)
			if err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			entries = append(entries, entry)
			step(t, live, index+1, entry)
			neverBack(t, before, newView(live))
		}

		want := written(t, live)
		cut := rapid.IntRange(0, len(entries)).Draw(t, "cut")
		replayed := newDB()
		for i, entry := range entries {
			if i == cut {
				restored, err := readState(bytes.NewReader(written(t, replayed)))
				if err != nil {
					t.Fatal(err)
				}
				replayed = restored
			}
			step(t, replayed, uint64(i)+1, entry)
		}
		if got := written(t, replayed); !bytes.Equal(got, want) {
			t.Fatalf("replayed to another state:\n%x\n%x", got, want)
		}
		restored, err := readState(bytes.NewReader(want))
		if err != nil || !bytes.Equal(written(t, restored), want) {
			t.Fatalf("restored to another state: %v", err)
		}
	})
}

func step(t *rapid.T, db *memdb.MemDB, index uint64, entry []byte) {
	c, err := decodeEntry(entry)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := apply(db, index, c); errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
}

func neverBack(t *rapid.T, before, after *View) {
	if after.Now().Before(before.Now()) {
		t.Fatalf("time went back from %v to %v", before.Now(), after.Now())
	}
	for _, old := range before.AllTasks() {
		task, ok := after.Task(old.ID)
		if !ok {
			continue
		}
		if task.Status.State < old.Status.State || task.Desired < old.Desired {
			t.Fatalf("%s went back from %v, %v to %v, %v", old.ID, old.Status.State, old.Desired, task.Status.State, task.Desired)
		}
		if !old.Status.State.Live() && task.Status.State != old.Status.State {
			t.Fatalf("%s ended twice: %v, %v", old.ID, old.Status.State, task.Status.State)
		}
		if old.Node != "" && task.Node != old.Node {
			t.Fatalf("%s moved from %s to %s", old.ID, old.Node, task.Node)
		}
	}
	for _, node := range before.Nodes() {
		if _, there := after.Node(node.ID); there == after.Removed(node.ID) {
			t.Fatalf("%s is there %v, and was removed %v", node.ID, there, !there)
		}
	}
	for _, record := range after.Stacks() {
		if len(record.History) > swarm.HistoryLimit || len(record.Quarantine) > swarm.HistoryLimit {
			t.Fatalf("%s remembers too much", record.Name)
		}
	}
}
