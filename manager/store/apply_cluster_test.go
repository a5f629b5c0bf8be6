package store

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
)

func texts(v *View) []string {
	var said []string
	for _, e := range v.Events(0, 0) {
		said = append(said, e.Text)
	}
	return said
}

func TestTheClusterIsChangedOnlyByWhoKnowsItAsItIs(t *testing.T) {
	l := newLog(t)
	l.do(Command{Lead: &Lead{Node: "m1", Cluster: "c1"}})
	if err := l.try(Command{PutCluster: &swarm.Cluster{Version: 5}}); !errors.Is(err, ErrStale) {
		t.Errorf("the first one, made from nothing: %v", err)
	}
	first := swarm.Cluster{ID: "other", Tokens: swarm.JoinTokens{Worker: "secret-w1", Manager: "secret-m1"}}
	l.do(Command{PutCluster: &first})
	row, known := l.view().Cluster()
	if !known || row.ID != "c1" || row.Version != l.index || !l.last.Everything {
		t.Errorf("it is %+v at index %d, touched %+v", row, l.index, l.last)
	}

	next := row
	next.Tokens.Worker, next.UnlockKey, next.Settings.TaskHistory = "secret-w2", []byte("secret-key"), 7
	l.do(Command{By: "ana", PutCluster: &next})
	if err := l.try(Command{By: "ben", PutCluster: &row}); !errors.Is(err, ErrStale) {
		t.Errorf("made from an older row: %v", err)
	}
	said := texts(l.view())
	for _, want := range []string{"cluster settings were changed by ana", "the join token for workers was changed by ana", "autolock was turned on by ana"} {
		if !slices.Contains(said, want) {
			t.Errorf("%q was not told: %q", want, said)
		}
	}
	if all := strings.Join(said, " "); strings.Contains(all, "secret") || strings.Contains(all, "managers was changed") {
		t.Errorf("told too much: %s", all)
	}
}

func TestARemovedNodeLosesItsTasksAndNeverComesBack(t *testing.T) {
	l := withShop(t)
	l.do(
		Command{PutNode: &swarm.Node{ID: "n1", State: swarm.NodeReady, Description: swarm.NodeDescription{Hostname: "one"}}},
		Command{PutNode: &swarm.Node{ID: "n2", State: swarm.NodeReady}},
		l.decide(swarm.Decision{Create: []swarm.Task{
			{ID: "shop/web.2.b", Service: "shop/web", Node: "n2", Desired: swarm.DesiredRun},
			{ID: "shop/web.3.c", Service: "shop/web", Node: "n1", Desired: swarm.DesiredRun},
		}}),
	)
	l.do(l.report("shop/web.3.c", swarm.TaskStatus{State: swarm.TaskComplete}))
	gone := swarm.NodeID("n1")
	l.do(Command{By: "ana", RemoveNode: &gone})

	view := l.view()
	lost, _ := view.Task("shop/web.1.a")
	if lost.Status.State != swarm.TaskLost || lost.Excused != "node removed" || !lost.Status.Since.Equal(view.Now()) {
		t.Errorf("its task is %+v", lost)
	}
	if ended, _ := view.Task("shop/web.3.c"); ended.Status.State != swarm.TaskComplete || ended.Excused != "" {
		t.Errorf("a task that had ended is %+v", ended)
	}
	if other, _ := view.Task("shop/web.2.b"); !other.Status.State.Live() {
		t.Errorf("another node's task is %+v", other)
	}
	if !slices.Contains(l.last.Stacks, "shop") || !slices.Contains(l.last.Nodes, gone) || !slices.Contains(texts(view), "node one was removed by ana") {
		t.Errorf("touched %+v, told %q", l.last, texts(view))
	}
	if !view.Removed(gone) || view.Removed("n2") {
		t.Error("it is not remembered")
	}

	if err := l.try(Command{PutNode: &swarm.Node{ID: gone, State: swarm.NodeReady}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("it registers once more: %v", err)
	}
	if err := l.try(Command{RemoveNode: &gone}); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	l.do(Command{At: noon.AddDate(3, 0, 0), Lead: &Lead{}})
	other := swarm.NodeID("n2")
	l.do(Command{At: noon.AddDate(3, 0, 0), RemoveNode: &other})
	if l.view().Removed(gone) || !l.view().Removed(other) {
		t.Error("it is remembered for ever")
	}
}

func TestNobodyUndoesWhatAnotherWroteOfANode(t *testing.T) {
	l := newLog(t)
	l.do(Command{PutNode: &swarm.Node{ID: "w1", Role: swarm.RoleWorker, Issuer: "i1", Description: swarm.NodeDescription{Hostname: "one"}}})
	l.do(
		Command{PutNode: &swarm.Node{ID: "w1", State: swarm.NodeReady, Role: "x", Issuer: "x", Description: swarm.NodeDescription{Hostname: "one", Build: "2"}}},
		Command{PutNode: &swarm.Node{ID: "w1", Issuer: "i2"}},
		Command{By: "ana", PutNode: &swarm.Node{ID: "w1", Availability: swarm.NodeActive, Role: swarm.RoleManager, Issuer: "x"}},
		Command{By: "ana", PutNode: &swarm.Node{ID: "w1", Labels: map[string]string{"zone": "eu"}}},
		Command{PutNode: &swarm.Node{ID: "w1", State: swarm.NodeDown}},
	)
	node, _ := l.view().Node("w1")
	if node.Role != swarm.RoleManager || node.Issuer != "i2" || node.State != swarm.NodeDown || node.Description.Build != "2" || node.Labels["zone"] != "eu" {
		t.Errorf("it is %+v", node)
	}
	if said := texts(l.view()); !slices.Contains(said, "node one was made a manager by ana") {
		t.Errorf("told %q", said)
	}
}

// Two people who demote one of two managers each were both told that the other
// stays.
func TestTheLastManagerStaysOne(t *testing.T) {
	l := newLog(t)
	for _, id := range []swarm.NodeID{"m1", "m2"} {
		l.do(Command{PutNode: &swarm.Node{ID: id, Role: swarm.RoleManager}})
	}
	l.do(Command{By: "ana", PutNode: &swarm.Node{ID: "m1", Role: swarm.RoleWorker}})
	if err := l.try(Command{By: "eva", PutNode: &swarm.Node{ID: "m2", Role: swarm.RoleWorker}}); err == nil {
		t.Error("no manager is left")
	}
	if node, _ := l.view().Node("m2"); node.Role != swarm.RoleManager {
		t.Errorf("m2 is a %s", node.Role)
	}
}

func TestTokensAreWrittenOnceAndDroppedOnce(t *testing.T) {
	l := newLog(t)
	token := swarm.UserToken{ID: "t1", Name: "ci", Role: swarm.UserCI, Hash: []byte("hash of a secret")}
	l.do(Command{By: "ana", PutToken: &token}, Command{By: "ana", PutToken: &token})
	if kept, known := l.view().Token("t1"); !known || kept.Created.IsZero() || len(l.view().Tokens()) != 1 || len(texts(l.view())) != 1 {
		t.Errorf("%+v, told %q", l.view().Tokens(), texts(l.view()))
	}
	for why, bad := range map[string]swarm.UserToken{
		"another with that id": {ID: "t1", Role: swarm.UserCI, Hash: []byte("other")},
		"no hash":              {ID: "t2", Role: swarm.UserCI},
		"a role of its own":    {ID: "t2", Role: "root", Hash: []byte("h")},
	} {
		if err := l.try(Command{PutToken: &bad}); err == nil {
			t.Errorf("%s was taken", why)
		}
	}
	l.do(Command{DropToken: &token.ID})
	if err := l.try(Command{DropToken: &token.ID}); !errors.Is(err, ErrNotFound) || len(l.view().Tokens()) != 0 {
		t.Errorf("%v, %+v", err, l.view().Tokens())
	}
}

func TestATaskKeepsWhatItClaimsOfItsNode(t *testing.T) {
	l := withShop(t)
	claims := &swarm.Claims{Ports: []swarm.Port{{Target: 80, Published: 8080}}}
	l.do(l.decide(swarm.Decision{Create: []swarm.Task{{ID: "shop/web.2.b", Service: "shop/web", Desired: swarm.DesiredRun}}}))
	l.do(l.decide(swarm.Decision{Desire: []swarm.Desire{{Task: "shop/web.2.b", Node: "n1", Claims: claims}}}))
	if task, _ := l.view().Task("shop/web.2.b"); task.Node != "n1" || task.Claims == nil || len(task.Claims.Ports) != 1 {
		t.Errorf("it is %+v", task)
	}
}

func TestARebalanceLastsUntilTheReconcilerEndsIt(t *testing.T) {
	l := withShop(t)
	l.do(Command{By: "ana", Operate: &Operate{Stack: "shop", Rebalance: true}})
	if !l.stack("shop").Rebalance {
		t.Error("it did not begin")
	}
	l.do(l.decide(swarm.Decision{Rebalanced: true}))
	if l.stack("shop").Rebalance {
		t.Error("it did not end")
	}
}
