package reconciler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/swarm"
)

// TestAnUpgradeHoldsParallelismAndFloorAndGoesBackToWhatWorked rolls one
// random service from an image that works to any other, undisturbed.
func TestAnUpgradeHoldsParallelismAndFloorAndGoesBackToWhatWorked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster("n1", "n2", "n3")
		c.acts = drawActs(t, 2, false)
		old, changed := newService("a"), newService("a")
		old.Task.Image, changed.Task.Image = "a:1", "a:2"
		old.Replicas = rapid.IntRange(1, 8).Draw(t, "replicas")
		changed.Replicas = old.Replicas
		drawPolicy(t, &changed.Update)
		drawPolicy(t, &old.Rollback)
		stacks := []*swarm.Stack{oneService(old), oneService(changed)}

		c.accept("v1", stacks[0])
		c.run(time.Hour, c.over)
		if c.record.Rollout.Phase != swarm.PhaseHealthy {
			t.Fatalf("the old image is %s\n%s", c.record.Rollout.Phase, c.out.String())
		}
		rules := watchRules()
		u := &upgrade{old: old, changed: changed, cluster: c, proved: map[swarm.TaskID]int{}}
		c.observe = func(c *cluster) { rules(c); u.watch() }
		c.check = func(c *cluster, d swarm.Decision) {
			if d.Healthy != nil && d.Rollout.Why == "" && len(replacing(Diff(c.view()))) > 0 {
				c.broke("a rollout that calls itself healthy leaves a plan:\n%s", Diff(c.view()))
			}
			for id, t := range c.tasks {
				proved := t.Status.State == swarm.TaskHealthy && !c.now.Before(t.Status.Healthy.Add(changed.Update.Monitor))
				if d.Healthy != nil && d.Rollout.Why == "" && t.Status.State.Live() && !proved {
					c.broke("a rollout calls itself healthy before %s has proved itself", c.names[id])
				}
			}
		}
		c.accept("v2", stacks[1])
		c.run(6*time.Hour, c.over)
		u.atEnd()
		if rapid.Bool().Draw(t, "retry") && c.record.Rollout.Phase != swarm.PhaseFailed {
			c.run(time.Minute, nil)
			c.record.Quarantine, c.record.Version = nil, c.record.Version+1
			c.run(6*time.Hour, c.over)
			u.atEnd()
		}
		if c.problem != "" {
			t.Fatalf("%s\n%s\n%s", c.problem, describe(c), c.out.String())
		}
	})
}

func oneService(service swarm.Service) *swarm.Stack {
	service.Spec = swarm.Digest(fmt.Sprintf("%+v", service.Task))
	return &swarm.Stack{Name: "shop", Services: []swarm.Service{service}}
}

// replacing returns the steps of a plan that concern tasks.
func replacing(plan swarm.Plan) []swarm.Step {
	return slices.DeleteFunc(plan.Steps, func(step swarm.Step) bool { return step.Verb == swarm.Adjust })
}

// upgrade judges one rollout from outside: by the tasks alone.
type upgrade struct {
	old, changed swarm.Service
	cluster      *cluster
	proved       map[swarm.TaskID]int // the slots of tasks that were healthy for their monitor
}

// watch checks how many replicas are between the first touch and the end of
// their monitor, and how many serve.
func (u *upgrade) watch() {
	c := u.cluster
	limit := max(u.limit(u.changed.Update), 0)
	if !c.record.Rollout.Turned.IsZero() {
		limit = max(limit, u.limit(u.old.Rollback))
	}
	if busy := u.busy(); c.record.Rollout.Phase != swarm.PhaseFailed && busy > limit {
		c.broke("%d replicas are replaced at once, parallelism is %d", busy, limit)
	}

	serving := 0
	for _, t := range c.tasks {
		if t.Status.State == swarm.TaskHealthy && t.Desired <= swarm.DesiredRun {
			serving++
		}
	}
	if floor := u.floor(limit); serving < floor {
		c.broke("%d replicas serve, at least %d must", serving, floor)
	}
}

// limit is a policy's parallelism. What is tolerated does not count as being
// replaced any more, nor as serving.
func (u *upgrade) limit(policy swarm.RolloutPolicy) int {
	tolerates := policy.OnFailure == swarm.FailureContinue || policy.MaxFailureRatio > 0
	if policy.Parallelism == 0 || tolerates {
		return u.old.Replicas
	}
	return policy.Parallelism
}

// floor is how many replicas must serve. An image that outlives its monitor
// and dies then is not caught in time: there is none.
func (u *upgrade) floor(limit int) int {
	ends, late := false, false
	for _, a := range u.cluster.acts {
		for _, l := range a.lives {
			if a.image == u.changed.Task.Image && l.dies >= 0 {
				ends = true
				late = late || l.dies >= l.healthy+u.changed.Update.Monitor
			}
		}
	}
	tolerates := u.changed.Update.OnFailure == swarm.FailureContinue || u.changed.Update.MaxFailureRatio > 0
	switch first := u.changed.Update.Order == swarm.StartFirst; {
	case late:
		return 0
	case first && !ends && !tolerates && u.cluster.record.Rollout.Turned.IsZero():
		return u.old.Replicas
	}
	return u.old.Replicas - limit
}

// busy counts the seats that a served task was asked to leave and whose
// successor has not proved itself yet. One that has and fails later does not
// count again.
func (u *upgrade) busy() int {
	c := u.cluster
	busy := map[int]bool{}
	for _, t := range c.tasks {
		asked := t.Desired > swarm.DesiredRun && !t.Status.Healthy.IsZero() && !t.DesiredAt.Before(c.record.Rollout.Began)
		if asked && u.forward(t) == u.cluster.record.Rollout.Turned.IsZero() {
			busy[t.Slot] = true
		}
	}
	for _, t := range c.tasks {
		monitor := u.changed.Update.Monitor
		if u.forward(t) {
			monitor = u.old.Rollback.Monitor
		}
		if t.Desired <= swarm.DesiredRun && !t.Status.Healthy.IsZero() && !c.now.Before(t.Status.Healthy.Add(monitor)) {
			u.proved[t.ID] = t.Slot
		}
	}
	for id, slot := range u.proved {
		if t := c.tasks[id]; t != nil && u.forward(t) != u.cluster.record.Rollout.Turned.IsZero() {
			delete(busy, slot)
		}
	}
	return len(busy)
}

// forward reports whether the task is of the old image: replacing it is a step
// forward.
func (u *upgrade) forward(t *swarm.Task) bool { return u.cluster.images[t.Spec] == u.old.Task.Image }

// atEnd checks where the rollout ended, and that it stays there.
func (u *upgrade) atEnd() {
	c := u.cluster
	phase := c.record.Rollout.Phase
	want := map[swarm.Phase]string{swarm.PhaseHealthy: u.changed.Task.Image, swarm.PhaseRolledBack: u.old.Task.Image}[phase]
	switch {
	case !c.over():
		c.broke("the rollout has not ended")
	case want != "":
		for id, t := range c.tasks {
			if t.Status.State.Live() && t.Desired <= swarm.DesiredRun && c.images[t.Spec] != want {
				c.broke("after %s, %s runs %s", phase, c.names[id], c.images[t.Spec])
			}
		}
	}
	if healthy := c.record.Healthy.Revision.Commit(); (phase == swarm.PhaseHealthy) != (healthy == "v2") {
		c.broke("after %s, %s counts as healthy", phase, healthy)
	}
}

// TestAPlanAppliedLeavesAnEmptyPlan carries out the plan of a random change by
// hand.
func TestAPlanAppliedLeavesAnEmptyPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster("n1", "n2", "n3")
		c.acts = drawActs(t, 4, true)
		c.accept("v1", drawStack(t, 1))
		c.run(time.Hour, c.over)
		for i := range rapid.IntRange(1, 4).Draw(t, "actions") {
			c.record.Suspended = "by hand"
			disturb(t, c, i)
		}
		c.obstacles, c.record.Quarantine = nil, nil

		view := c.view()
		plan := Diff(view)
		for i, step := range plan.Steps {
			view.Tasks = carryOut(view, step, i)
		}
		view.Record.Healthy, view.Healthy = view.Record.Accepted, view.Accepted
		if left := Diff(view); len(left.Steps) > 0 {
			t.Fatalf("%s\nleft:\n%safter:\n%s%s", describe(c), left, plan, c.out.String())
		}
	})
}

// carryOut returns the tasks as they are after a step of a plan.
func carryOut(view View, step swarm.Step, i int) []swarm.Task {
	id := swarm.NewServiceID(step.Stack, step.Service)
	tasks := slices.DeleteFunc(slices.Clone(view.Tasks), func(t swarm.Task) bool {
		same := t.Service == id && t.Slot == step.Slot && (t.Slot != 0 || t.Node == step.Node)
		switch step.Verb {
		case swarm.Remove:
			return t.Service == id || step.Service == ""
		case swarm.Stop, swarm.Replace:
			return same
		}
		return false
	})
	if step.Verb != swarm.Start && step.Verb != swarm.Replace {
		return tasks
	}

	service, _ := view.Accepted.Service(step.Service)
	t := swarm.Task{
		ID: swarm.TaskID(fmt.Sprintf("%s.%d", id, i)), Service: id, Slot: step.Slot, Node: step.Node, Spec: service.Spec,
		Generation: view.Record.Generation[step.Service], Desired: swarm.DesiredRun, Created: epoch.Add(time.Hour), Touched: epoch.Add(time.Hour),
		Job: service.Mode.Job() || awaited(view.Accepted, service.Name), Status: swarm.TaskStatus{State: swarm.TaskHealthy},
	}
	return append(tasks, t)
}

// TestEqualViewsGiveEqualDecisions asks twice, with everything in another
// order.
func TestEqualViewsGiveEqualDecisions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster("n1", "n2", "n3")
		c.acts = drawActs(t, 4, false)
		c.check = func(c *cluster, d swarm.Decision) {
			view := c.view()
			slices.Reverse(view.Tasks)
			slices.Reverse(view.Nodes)
			if again := Advance(view, c.now); fmt.Sprintf("%+v", deref(again)) != fmt.Sprintf("%+v", deref(d)) {
				t.Fatalf("decided\n%+v\nand then\n%+v", deref(d), deref(again))
			}
		}
		c.accept("v1", drawStack(t, 1))
		for i := range 4 {
			disturb(t, c, i)
			c.run(5*time.Second, nil)
		}
	})
}

// deref makes a decision printable by value.
func deref(d swarm.Decision) []any {
	all := []any{d.Stack, d.Version, d.Create, d.Desire, d.Forget, d.Gone, d.Events, d.AskAt}
	if d.Rollout != nil {
		all = append(all, *d.Rollout)
	}
	if d.Ended != nil {
		all = append(all, *d.Ended)
	}
	if d.Settle != nil {
		all = append(all, *d.Settle)
	}
	return all
}
