package sim

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

// rules are what must hold whatever happens.
type rules struct {
	sim *sim

	mu     sync.Mutex
	states map[uint64][sha256.Size]byte // of the whole state, by index
	acks   []ack
	views  int // that were judged
	single int // of them, those that one command made of the one before
}

// ack is a token that a manager said was written.
type ack struct {
	id    string
	index uint64
}

func newRules(s *sim) *rules { return &rules{sim: s, states: make(map[uint64][sha256.Size]byte)} }

// hashEvery is how many indexes lie between those whose whole state is compared.
const hashEvery = 8

// follow judges one manager's views, one after the other, until ctx ends.
func (r *rules) follow(ctx context.Context, name string, s *store.Store) {
	changes := s.Subscribe()
	defer changes.Close()
	f := &follower{rules: r, name: name, tasks: make(map[swarm.TaskID]swarm.Task), proving: make(map[swarm.Seat]bool), missing: make(map[swarm.Seat]bool)}
	last := s.View()
	f.resume(last)
	for {
		_, changed := changes.Take()
		if now := s.View(); now.Index() > last.Index() {
			r.compare(name, s, now.Index())
			f.judge(last, now)
			last = now
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// compare holds that managers at equal indexes have equal states.
func (r *rules) compare(name string, s *store.Store, index uint64) {
	if index%hashEvery != 0 {
		return
	}
	hash := sha256.New()
	index, err := s.Export(hash)
	if err != nil {
		r.sim.broke("%s does not export its state: %v", name, err)
		return
	}
	sum := [sha256.Size]byte(hash.Sum(nil))
	r.mu.Lock()
	defer r.mu.Unlock()
	if other, seen := r.states[index]; seen && other != sum {
		r.sim.broke("%s has another state at index %d than another manager", name, index)
	}
	r.states[index] = sum
}

// acknowledged notes a write that must never be lost.
func (r *rules) acknowledged(id string, index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acks = append(r.acks, ack{id, index})
}

// acked returns what was acknowledged so far.
func (r *rules) acked() []ack {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.acks)
}

// has holds that a view has what was acknowledged up to its index, or all of it.
func (r *rules) has(name string, view *store.View, acks []ack, all bool) {
	for _, a := range acks {
		if a.index > view.Index() && !all {
			continue
		}
		if _, there := view.Token(a.id); !there {
			r.sim.broke("%s at index %d has lost %s, which was acknowledged at %d", name, view.Index(), a.id, a.index)
		}
	}
}

// secrets holds that a container gets the secrets that its task names, and no
// other.
func (r *rules) secrets(node swarm.NodeID, c runtime.Container) {
	named := make(map[swarm.Digest]bool)
	for _, file := range r.sim.library.service(c.SpecDigest).Task.Files {
		named[file.Content] = true
	}
	for digest, data := range c.Files {
		if !named[digest] || string(data) != secretText+string(c.Service.Stack()) {
			r.sim.broke("%s on %s got content %s, which its spec does not name", c.ID, node, digest)
		}
	}
	if len(c.Files) < len(named) {
		r.sim.broke("%s on %s began without its secrets", c.ID, node)
	}
}

// follower judges the views of one manager.
type follower struct {
	rules   *rules
	name    string
	tasks   map[swarm.TaskID]swarm.Task
	worked  map[swarm.StackName]swarm.Digest // the content that was healthy last
	proving map[swarm.Seat]bool              // seats that we took from a task that served, until a successor has proved itself
	missing map[swarm.Seat]bool              // of these, those that nothing serves since
}

// resume begins anew with a view: what led to it was not seen.
func (f *follower) resume(view *store.View) {
	f.worked = make(map[swarm.StackName]swarm.Digest)
	for _, record := range view.Stacks() {
		f.worked[record.Name] = record.Healthy.Content
	}
	clear(f.proving)
	clear(f.missing)
}

// judge holds what a view may be after another.
func (f *follower) judge(last, now *store.View) {
	r := f.rules
	single := now.Index() == last.Index()+1
	r.mu.Lock()
	r.views++
	if single {
		r.single++
	}
	r.mu.Unlock()
	tasks := now.AllTasks()
	f.grow(tasks)
	if !single {
		f.resume(now)
		return
	}
	for _, record := range now.Stacks() {
		before, _ := last.Stack(record.Name)
		f.rollback(now, before, record)
		f.replace(last, now, record)
	}
}

// grow holds that tasks only grow.
func (f *follower) grow(tasks []swarm.Task) {
	there := make(map[swarm.TaskID]swarm.Task, len(tasks))
	for _, task := range tasks {
		there[task.ID] = task
		before, known := f.tasks[task.ID]
		switch {
		case !known:
		case task.Status.State < before.Status.State:
			f.rules.sim.broke("%s: %s went from %s back to %s", f.name, task.ID, before.Status.State, task.Status.State)
		case task.Desired < before.Desired:
			f.rules.sim.broke("%s: %s was to %s and is now to %s", f.name, task.ID, before.Desired, task.Desired)
		case before.Node != "" && task.Node != before.Node, task.Spec != before.Spec, task.Seat() != before.Seat() && before.Node != "":
			f.rules.sim.broke("%s: %s became another task", f.name, task.ID)
		}
	}
	f.tasks = there
}

// rollback holds that a rollback ends at what worked before.
func (f *follower) rollback(view *store.View, before, record swarm.StackRecord) {
	if before.Rollout.Phase == record.Rollout.Phase && before.Rollout.ID == record.Rollout.ID {
		return
	}
	switch record.Rollout.Phase {
	case swarm.PhaseHealthy:
		f.worked[record.Name] = record.Healthy.Content
	case swarm.PhaseRolledBack:
		if record.Healthy.Content != f.worked[record.Name] {
			f.rules.sim.broke("%s: %s was rolled back to %s, what worked was %s", f.name, record.Name, record.Healthy.Content, f.worked[record.Name])
		}
		for _, task := range view.Tasks(record.Name) {
			stack := f.rules.sim.library.stack(f.worked[record.Name])
			service, known := stack.Service(task.Service.Name())
			if serves(view, task) && (!known || service.Spec != task.Spec) {
				f.rules.sim.broke("%s: %s was rolled back and %s still runs %s", f.name, record.Name, task.ID, task.Spec)
			}
		}
	}
}

// serves reports whether a task takes connections.
func serves(view *store.View, task swarm.Task) bool {
	node, _ := view.Node(task.Node)
	return task.Status.State == swarm.TaskHealthy && task.Desired <= swarm.DesiredRun && node.State != swarm.NodeDown
}

// replace holds that no more seats than parallelism allows are replaced at
// once, and that no more than those are without a task that serves because the
// cluster took it.
func (f *follower) replace(last, now *store.View, record swarm.StackRecord) {
	limit, wanted := f.limits(now, record)
	seats := make(map[swarm.Seat]bool)
	for _, task := range now.Tasks(record.Name) {
		seats[task.Seat()] = seats[task.Seat()] || task.Status.State.Live() || task.Desired < swarm.DesiredRemove
	}
	for _, task := range last.Tasks(record.Name) {
		after, there := now.Task(task.ID)
		taken := there && serves(last, task) && after.Desired >= swarm.DesiredDrain && after.Status.State == swarm.TaskHealthy
		if !taken || after.Excused != "" || len(seats) > wanted { // one that is no longer wanted goes
			continue
		}
		f.missing[task.Seat()] = true
		if node, _ := now.Node(task.Node); node.Availability == swarm.NodeActive { // else a person asked for it
			f.proving[task.Seat()] = true
		}
	}
	before, _ := last.Stack(record.Name)
	turned := before.Rollout.Phase != record.Rollout.Phase && record.Rollout.Phase == swarm.PhaseRollingBack
	if turned || before.Rollout.ID != record.Rollout.ID || before.Version != record.Version {
		forget(f.proving, record.Name, func(swarm.Seat) bool { return true }) // what is superseded has nothing to prove
	}
	gone := func(seat swarm.Seat) bool { return !seats[seat] }
	forget(f.proving, record.Name, gone)
	forget(f.missing, record.Name, gone)
	limit += max(0, len(seats)-wanted) // seats that are no longer wanted go beside the others
	for _, task := range now.Tasks(record.Name) {
		if !serves(now, task) {
			continue
		}
		delete(f.missing, task.Seat())
		if monitor := f.rules.sim.library.service(task.Spec).Update.Monitor; now.Now().Sub(task.Status.Healthy) >= monitor {
			delete(f.proving, task.Seat())
		}
	}

	if phase := record.Rollout.Phase; phase == swarm.PhaseFailed || phase == swarm.PhasePaused {
		return // what did not go back stays as it is
	}
	if n := count(f.proving, record.Name); n > limit {
		f.rules.sim.broke("%s: at index %d %d seats of %s are replaced at once, parallelism is %d%s", f.name, now.Index(), n, record.Name, limit, tasksOf(now, record))
	}
	if n := count(f.missing, record.Name); n > limit {
		f.rules.sim.broke("%s: at index %d %d seats of %s serve no more because of us, parallelism is %d%s", f.name, now.Index(), n, record.Name, limit, tasksOf(now, record))
	}
}

// limits are the largest parallelism of what the stack's tasks are of, and how
// many replicas are wanted.
func (f *follower) limits(view *store.View, record swarm.StackRecord) (limit, wanted int) {
	consider := func(service swarm.Service) {
		limit = max(limit, service.Update.Parallelism, service.Rollback.Parallelism)
	}
	for _, task := range view.Tasks(record.Name) {
		consider(f.rules.sim.library.service(task.Spec))
	}
	for _, content := range []swarm.Digest{record.Accepted.Content, record.Healthy.Content} {
		if service, known := f.rules.sim.library.stack(content).Service("web"); known {
			consider(service)
			wanted = service.Replicas
			if content == record.Accepted.Content {
				break
			}
		}
	}
	if scaled, is := record.Scale["web"]; is {
		wanted = scaled
	}
	return limit, wanted
}

// tasksOf prints a stack's rollout and tasks.
func tasksOf(view *store.View, record swarm.StackRecord) string {
	text := fmt.Sprintf("\n%s: rollout %d %s %s, scale %v, now %s", record.Name, record.Rollout.ID, record.Rollout.Phase, record.Rollout.Why, record.Scale, view.Now().Format(time.TimeOnly))
	for _, task := range view.Tasks(record.Name) {
		text += fmt.Sprintf("\n  %s on %s: rollout %d, spec %.12s, to %s since %s, is %s since %s, excused %q, %s", task.ID, task.Node, task.Rollout, task.Spec,
			task.Desired, task.DesiredAt.Format("05.000"), task.Status.State, task.Status.Since.Format("05.000"), task.Excused, task.Status.Message)
	}
	return text
}

// forget drops seats of a stack.
func forget(seats map[swarm.Seat]bool, stack swarm.StackName, which func(swarm.Seat) bool) {
	maps.DeleteFunc(seats, func(seat swarm.Seat, _ bool) bool { return seat.Service.Stack() == stack && which(seat) })
}

func count(seats map[swarm.Seat]bool, stack swarm.StackName) (n int) {
	for seat := range seats {
		if seat.Service.Stack() == stack {
			n++
		}
	}
	return n
}

const (
	returned = 5 * time.Second  // until a node that is in contact again has ended what runs elsewhere by now
	moving   = 10 * time.Second // until what began to move away from a drained node is in one place again
)
