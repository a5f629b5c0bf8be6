package reconciler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// epoch is when a story begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// cluster is a fake: it applies decisions to one stack's record and tasks, its
// agents answer as their images say, and its clock jumps from one event to the
// next. It prints all that happens.
type cluster struct {
	now       time.Time
	record    swarm.StackRecord
	contents  map[swarm.Digest]*swarm.Stack
	tasks     map[swarm.TaskID]*swarm.Task
	nodes     map[swarm.NodeID]*swarm.Node
	obstacles []string
	acts      []act
	images    map[swarm.Digest]string // by spec
	names     map[swarm.TaskID]string
	counts    map[string]int
	since     map[swarm.TaskID]since
	lives     map[swarm.TaskID]life
	full      bool                    // no node takes new tasks
	tight     map[swarm.NodeID]bool   // nodes without room for one more task
	volumes   map[string]swarm.NodeID // where each volume lies
	others    map[swarm.NodeID]int    // tasks of other stacks
	history   int                     // ended tasks to keep for a slot
	askAt     time.Time
	steps     int
	out       strings.Builder
	check     func(*cluster, swarm.Decision) // called with each decision before it is applied
	observe   func(*cluster)                 // called after each change
	problem   string                         // the first broken rule
}

type since struct{ created, started, stopping time.Time }

func newCluster(nodes ...swarm.NodeID) *cluster {
	c := &cluster{
		now: epoch, contents: map[swarm.Digest]*swarm.Stack{}, tasks: map[swarm.TaskID]*swarm.Task{},
		nodes: map[swarm.NodeID]*swarm.Node{}, images: map[swarm.Digest]string{}, names: map[swarm.TaskID]string{},
		counts: map[string]int{}, since: map[swarm.TaskID]since{}, lives: map[swarm.TaskID]life{},
		tight: map[swarm.NodeID]bool{}, volumes: map[string]swarm.NodeID{}, others: map[swarm.NodeID]int{},
	}
	c.record.Name = "shop"
	for _, id := range nodes {
		c.join(id)
	}
	return c
}

func (c *cluster) join(id swarm.NodeID) {
	c.nodes[id] = &swarm.Node{
		ID: id, Availability: swarm.NodeActive, State: swarm.NodeReady, Role: "worker", Joined: c.now,
		Description: swarm.NodeDescription{Hostname: string(id), OS: "linux", Arch: "amd64"},
	}
}

func (c *cluster) say(format string, args ...any) {
	fmt.Fprintf(&c.out, "%-7s %s\n", c.now.Sub(epoch).Round(time.Millisecond), fmt.Sprintf(format, args...))
}

// accept makes the stack the one to run, as a commit does.
func (c *cluster) accept(name string, stack *swarm.Stack) swarm.Rendered {
	r := swarm.Rendered{Revision: swarm.NewRevision("main", name), Content: digest(stack)}
	c.contents[r.Content] = stack
	for _, service := range stack.Services {
		c.images[service.Spec] = service.Task.Image
	}
	c.record.Head, c.record.Accepted = r, r
	c.record.Version++
	return r
}

func digest(stack *swarm.Stack) swarm.Digest { return swarm.Digest(fmt.Sprintf("%+v", *stack)) }

func (c *cluster) view() View {
	view := View{
		Record: c.record, Accepted: c.contents[c.record.Accepted.Content], Healthy: c.contents[c.record.Healthy.Content],
		Obstacles: c.obstacles, Chance: uint64(c.steps), Load: maps.Clone(c.others), History: c.history,
	}
	if c.record.Removing {
		view.Accepted = nil
	}
	for _, id := range slices.Sorted(maps.Keys(c.tasks)) {
		t := *c.tasks[id]
		view.Tasks = append(view.Tasks, t)
		if t.Status.State.Live() && t.Desired <= swarm.DesiredRun {
			view.Load[t.Node]++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.nodes)) {
		view.Nodes = append(view.Nodes, *c.nodes[id])
	}
	return view
}

// stepsLimit is how many decisions may follow one another at one instant.
const stepsLimit = 300

// settle lets reconciler and agents act until neither has anything to do now.
func (c *cluster) settle() {
	for range stepsLimit {
		c.steps++
		d := Advance(c.view(), c.now)
		c.askAt = d.AskAt
		if !d.AskAt.IsZero() && !d.AskAt.After(c.now) {
			c.broke("asked to be asked at %s, which is not to come", d.AskAt)
		}
		if c.check != nil {
			c.check(c, d)
		}
		c.apply(d)
		acted := c.act()
		if c.observe != nil {
			c.observe(c)
		}
		if d.Empty() && !acted {
			return
		}
		if c.record.Name == "" {
			return
		}
	}
	c.broke("%d decisions at one instant and no end", stepsLimit)
}

func (c *cluster) broke(format string, args ...any) {
	if c.problem == "" {
		c.problem = fmt.Sprintf("%s: ", c.now.Sub(epoch)) + fmt.Sprintf(format, args...)
		c.say("BROKEN %s", c.problem)
	}
}

// run lets time pass until the end, or until stop holds.
func (c *cluster) run(d time.Duration, stop func() bool) {
	end := c.now.Add(d)
	for c.problem == "" {
		c.settle()
		if c.record.Name == "" || stop != nil && stop() {
			return
		}
		next := c.next()
		if next.IsZero() || next.After(end) {
			if stop == nil {
				c.now = end
				c.settle()
			}
			return
		}
		c.now = next
	}
}

// next returns the next instant at which something may change.
func (c *cluster) next() time.Time {
	next := c.askAt
	for id := range c.tasks {
		if at := c.due(id); at.After(c.now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// over reports whether the rollout to what is accepted has ended or paused.
func (c *cluster) over() bool {
	r := c.record.Rollout
	return r.ID != 0 && r.To.Content == c.record.Accepted.Content && (r.Phase.Ended() || r.Phase == swarm.PhasePaused)
}

// apply does what the store does with a decision.
func (c *cluster) apply(d swarm.Decision) {
	if d.Version != c.record.Version {
		c.broke("decided on version %d, not %d", d.Version, c.record.Version)
	}
	for _, t := range d.Create {
		c.create(t)
	}
	for _, desire := range d.Desire {
		c.desire(desire)
	}
	for _, id := range d.Forget {
		if c.tasks[id] == nil {
			c.broke("forgot %s twice", id)
		}
		delete(c.tasks, id)
	}
	if d.Rollout != nil {
		if d.Rollout.Phase != c.record.Rollout.Phase || d.Rollout.ID != c.record.Rollout.ID {
			c.say("rollout %d %s", d.Rollout.ID, d.Rollout.Phase)
		}
		c.record.Rollout = *d.Rollout
	}
	if d.Settle != nil {
		d.Healthy.Content = digest(d.Settle)
		c.contents[d.Healthy.Content] = d.Settle
	}
	if d.Healthy != nil {
		c.record.Healthy = *d.Healthy
	}
	if d.Ended != nil {
		c.record.History = slices.Insert(c.record.History, 0, *d.Ended)
	}
	if d.Rebalanced {
		c.record.Rebalance = false
	}
	if d.Quarantine != nil {
		c.record.Quarantine = append(c.record.Quarantine, *d.Quarantine)
		c.say("quarantined %s", d.Quarantine.Revision.Short())
	}
	for _, e := range d.Events {
		c.say("  (%s)", e.Text)
	}
	if d.Gone {
		c.record = swarm.StackRecord{}
	}
}

func (c *cluster) create(t swarm.Task) {
	if c.tasks[t.ID] != nil {
		c.broke("created %s twice", t.ID)
	}
	seat := seatName(t)
	c.counts[seat]++
	c.names[t.ID] = fmt.Sprintf("%s#%d", seat, c.counts[seat])
	c.since[t.ID] = since{created: c.now}
	c.lives[t.ID] = c.lifeOf(&t)
	c.tasks[t.ID] = &t
	c.place(&t)
	after := ""
	if !t.NotBefore.IsZero() {
		after = " not before " + t.NotBefore.Sub(epoch).String()
	}
	c.say("create %s %s on %s, %s%s", c.names[t.ID], c.images[t.Spec], cmp.Or(t.Node, "no node"), t.Desired, after)
}

func seatName(t swarm.Task) string {
	if t.Slot == 0 {
		return t.Service.Name() + "@" + string(t.Node)
	}
	return swarm.SlotName(t.Service.Name(), t.Slot)
}

func (c *cluster) desire(d swarm.Desire) {
	t := c.tasks[d.Task]
	if t == nil {
		c.broke("asked something of %s, which is not there", d.Task)
		return
	}
	if d.Desired < t.Desired {
		c.broke("%s went from %s back to %s", c.names[d.Task], t.Desired, d.Desired)
	}
	t.Excused = cmp.Or(d.Excused, t.Excused)
	if d.Desired == t.Desired {
		return
	}
	t.Desired, t.DesiredAt = d.Desired, d.At
	if d.Desired == swarm.DesiredRun && t.Touched.IsZero() {
		t.Touched = d.At
	}
	if d.Desired >= swarm.DesiredStop {
		s := c.since[t.ID]
		s.stopping = c.now
		c.since[t.ID] = s
	}
	if t.Node == "" && d.Desired >= swarm.DesiredStop {
		t.Status.State, t.Status.Since = swarm.TaskStopped, c.now
	}
	c.say("%s %s", d.Desired, c.names[d.Task])
}
