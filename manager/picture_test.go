package manager

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/manager/scheduler"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// A history does things at random to a depot, as a cluster would.
type history struct {
	*depot
	random *rand.Rand
	names  []swarm.StackName
	made   int
	lives  [5]int // how often each machine joined as a new node
}

// step does one thing and names it.
func (h *history) step() string {
	stack := h.names[h.random.IntN(len(h.names))]
	switch h.random.IntN(9) {
	case 0, 1, 2:
		return h.create(stack)
	case 3, 4:
		return h.end(stack)
	case 5:
		machine := h.random.IntN(len(h.lives))
		id := swarm.NodeID(fmt.Sprintf("node%d.%d", machine, h.lives[machine]))
		h.propose(store.Command{PutNode: &swarm.Node{
			ID: id, State: []swarm.NodeState{swarm.NodeReady, swarm.NodeReady, swarm.NodeDown}[h.random.IntN(3)], Role: swarm.RoleWorker,
			Description: swarm.NodeDescription{Labels: map[string]string{"rack": fmt.Sprint(h.random.IntN(2))}, Resources: swarm.Resources{Memory: 12}},
		}})
		return "node " + string(id)
	case 6:
		return h.removeNode()
	case 7:
		return h.rename(stack)
	default:
		h.propose(store.Command{Lead: &store.Lead{Node: "n1"}})
		return "a new term"
	}
}

func (h *history) create(stack swarm.StackName) string {
	h.accept(stack)
	record, _ := h.store.View().Stack(stack)
	decision := swarm.Decision{Stack: stack, Version: record.Version, Rollout: &swarm.Rollout{Phase: swarm.PhaseProgressing}}
	if h.random.IntN(2) == 0 {
		decision.Rollout.Phase = swarm.PhaseHealthy
	}
	for _, p := range h.picture.place(h.wanted(stack, h.random.IntN(4)), nil) {
		if p.Node != "" {
			decision.Create = append(decision.Create, swarm.Task{
				ID: p.Task, Service: swarm.NewServiceID(stack, "web"), Node: p.Node, Slot: 1, Desired: swarm.DesiredRun,
				Addresses: []swarm.Address{{Network: "shop/default", IP: "10.0.0.9"}}, Claims: &swarm.Claims{Resources: swarm.Resources{Memory: 1}},
			})
		}
	}
	h.propose(store.Command{Decide: &store.Decide{Decision: decision}})
	return "create in " + string(stack)
}

// wanted is new tasks of a stack.
func (h *history) wanted(stack swarm.StackName, n int) []scheduler.Wanted {
	var wanted []scheduler.Wanted
	for range n {
		h.made++
		wanted = append(wanted, scheduler.Wanted{
			Task: swarm.TaskID(fmt.Sprintf("%s/web.1.%d", stack, h.made)), Service: swarm.NewServiceID(stack, "web"), Slot: 1,
			Reservations: swarm.Resources{Memory: 1}, Spread: []string{"engine.labels.rack"},
		})
	}
	return wanted
}

// end ends a task, or forgets an ended one.
func (h *history) end(stack swarm.StackName) string {
	tasks := h.store.View().Tasks(stack)
	if len(tasks) == 0 {
		return "nothing"
	}
	task := tasks[h.random.IntN(len(tasks))]
	if task.Status.State.Live() {
		h.propose(store.Command{ReportStatus: &store.ReportStatus{Tasks: []store.TaskReport{{Task: task.ID, Status: swarm.TaskStatus{State: swarm.TaskFailed}}}}})
		return "end of " + string(task.ID)
	}
	record, _ := h.store.View().Stack(stack)
	h.propose(store.Command{Decide: &store.Decide{Decision: swarm.Decision{Stack: stack, Version: record.Version, Forget: []swarm.TaskID{task.ID}}}})
	return "forgets " + string(task.ID)
}

func (h *history) removeNode() string {
	nodes := h.store.View().Nodes()
	if len(nodes) == 0 {
		return "nothing"
	}
	id := nodes[h.random.IntN(len(nodes))].ID
	var machine, life int
	_, _ = fmt.Sscanf(string(id), "node%d.%d", &machine, &life)
	h.lives[machine] = life + 1
	h.propose(store.Command{RemoveNode: &id})
	return "removal of " + string(id)
}

// rename moves a stack's tasks to a new name.
func (h *history) rename(stack swarm.StackName) string {
	if _, there := h.store.View().Stack(stack); !there {
		return "nothing"
	}
	h.made++
	to := swarm.StackName(fmt.Sprintf("%c%d", 'a'+rune(h.random.IntN(26)), h.made)) // before or behind the old name
	h.propose(store.Command{AcceptStacks: &store.AcceptStacks{Source: "main", Stacks: []store.AcceptStack{{
		Name: to, Was: stack, Head: swarm.Rendered{Revision: "main@sha1:2", Content: "sha256:2"},
	}}}})
	h.names[slices.Index(h.names, stack)] = to
	return fmt.Sprintf("%s becomes %s", stack, to)
}

// tells writes all that a picture tells.
func (h *history) tells(p *picture) string {
	var wanted []scheduler.Wanted
	made := h.made
	for _, stack := range h.names {
		wanted = append(wanted, h.wanted(stack, 3)...)
	}
	h.made = made
	text := fmt.Sprintln("places", p.place(wanted, nil)) + fmt.Sprintln("on shop/default", p.stacksOn([]swarm.NetworkID{"shop/default"}))
	load := p.load()
	for _, node := range slices.Sorted(maps.Keys(load)) {
		text += fmt.Sprintln("load of", node, load[node])
	}
	return text + fmt.Sprintln("rolling beside", p.rollingBeside(h.names[0]))
}

func TestThePictureFollowsTheLog(t *testing.T) {
	for seed := range uint64(4) {
		h := &history{depot: newDepot(t), random: rand.New(rand.NewPCG(seed, 1)), names: []swarm.StackName{"shop", "blog"}}
		var done []string
		for range 80 {
			done = append(done, h.step())
			kept, anew := h.tells(h.picture), h.tells(newPicture(h.store, h.picture.claims))
			if kept != anew {
				t.Fatalf("seed %d: after %q\nkept up to date:\n%s\nmade anew:\n%s", seed, done, kept, anew)
			}
		}
	}
}

func TestATaskOfAnOlderBuildHoldsWhatItsContentSays(t *testing.T) {
	d := newDepot(t)
	d.picture.claims = func(*store.View, swarm.Task) *swarm.Claims {
		return &swarm.Claims{Resources: swarm.Resources{Memory: 3}}
	}
	d.accept("shop")
	d.propose(store.Command{PutNode: &swarm.Node{ID: "a", State: swarm.NodeReady, Description: swarm.NodeDescription{Resources: swarm.Resources{Memory: 4}}}})
	record, _ := d.store.View().Stack("shop")
	d.propose(store.Command{Decide: &store.Decide{Decision: swarm.Decision{Stack: "shop", Version: record.Version, Create: []swarm.Task{
		{ID: "shop/web.1.a", Service: "shop/web", Slot: 1, Node: "a", Desired: swarm.DesiredRun},
	}}}})
	got := d.picture.place([]scheduler.Wanted{{Task: "b", Service: "shop/db", Slot: 1, Reservations: swarm.Resources{Memory: 2}}}, nil)[0]
	if want := "no node fits shop/db.1: not enough memory (2 B reserved, 1 B free) on 1 node"; got.Why != want {
		t.Errorf("placed %+v, want %q", got, want)
	}
}

func TestANodeFailsAServiceAfterFiveFailuresInFiveMinutes(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	failed := func(node swarm.NodeID, n int, change func(*swarm.Task)) (tasks []swarm.Task) {
		for range n {
			task := swarm.Task{Service: "shop/web", Spec: "v1", Node: node, Status: swarm.TaskStatus{State: swarm.TaskFailed, Since: now.Add(-4 * time.Minute)}}
			change(&task)
			tasks = append(tasks, task)
		}
		return tasks
	}
	for _, c := range []struct {
		claim  string
		n      int
		change func(*swarm.Task)
		fails  bool
	}{
		{"five failures", 5, func(*swarm.Task) {}, true},
		{"four", 4, func(*swarm.Task) {}, false},
		{"five that are older", 5, func(t *swarm.Task) { t.Status.Since = now.Add(-6 * time.Minute) }, false},
		{"five of another spec", 5, func(t *swarm.Task) { t.Spec = "v0" }, false},
		{"five of another service", 5, func(t *swarm.Task) { t.Service = "shop/db" }, false},
		{"five that were rejected", 5, func(t *swarm.Task) { t.Status.State = swarm.TaskRejected }, true},
		{"five that completed", 5, func(t *swarm.Task) { t.Status.State = swarm.TaskComplete }, false},
		{"five that an operator stopped", 5, func(t *swarm.Task) { t.Excused = "stopped by operator" }, false},
	} {
		tasks := append(failed("b", c.n, c.change), failed("a", 3, func(*swarm.Task) {})...)
		got := failing(tasks, "shop/web", "v1", now)
		if c.fails != slices.Equal(got, []swarm.NodeID{"b"}) || !c.fails && len(got) > 0 {
			t.Errorf("%s: the service fails on %v", c.claim, got)
		}
	}
}
