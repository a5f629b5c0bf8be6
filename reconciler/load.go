package reconciler

import (
	"cmp"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// step is one call of Advance: what it looks at and what it has decided so
// far. Its tasks are copies; a desire is written into the copy at once, so
// that later lines see it.
type step struct {
	view     View
	now      time.Time
	rollout  swarm.Rollout // as it will be
	nodes    []swarm.Node  // by id
	tasks    []*task       // by id
	known    map[swarm.TaskID]bool
	services []*service                                     // by name
	refuge   bool                                           // a node takes new tasks: where none does, no task is given up for lost
	edges    map[*swarm.Stack]map[string][]swarm.Dependency // see dependencies
	desires  map[swarm.TaskID]*swarm.Desire
	decision swarm.Decision
	created  int
}

func newStep(view View, now time.Time) *step {
	s := &step{
		view: view, now: now, rollout: cloneRollout(view.Record.Rollout),
		nodes:   sortedNodes(view.Nodes),
		known:   make(map[swarm.TaskID]bool, len(view.Tasks)),
		edges:   make(map[*swarm.Stack]map[string][]swarm.Dependency),
		desires: make(map[swarm.TaskID]*swarm.Desire),
	}
	s.refuge = slices.ContainsFunc(s.nodes, func(n swarm.Node) bool { return takes(&n) })

	for _, t := range view.Tasks {
		s.known[t.ID] = true
		s.tasks = append(s.tasks, s.observe(t))
	}
	slices.SortFunc(s.tasks, func(a, b *task) int { return cmp.Compare(a.ID, b.ID) })

	s.load()
	return s
}

func sortedNodes(nodes []swarm.Node) []swarm.Node {
	for i := range nodes[min(1, len(nodes)):] {
		if nodes[i].ID > nodes[i+1].ID {
			return slices.SortedFunc(slices.Values(nodes), func(a, b swarm.Node) int { return cmp.Compare(a.ID, b.ID) })
		}
	}
	return nodes
}

// node returns a node of the cluster, or nil.
func (s *step) node(id swarm.NodeID) *swarm.Node {
	at := sort.Search(len(s.nodes), func(i int) bool { return s.nodes[i].ID >= id })
	if at == len(s.nodes) || s.nodes[at].ID != id {
		return nil
	}
	return &s.nodes[at]
}

func cloneRollout(r swarm.Rollout) swarm.Rollout {
	r.Failed, r.Dirty, r.Jobs = maps.Clone(r.Failed), maps.Clone(r.Dirty), maps.Clone(r.Jobs)
	r.Groups = slices.Clone(r.Groups)
	return r
}

// observe says what a task's node makes of it.
func (s *step) observe(t swarm.Task) *task {
	seen := &task{Task: t}
	if t.Node == "" {
		return seen
	}
	node := s.node(t.Node)
	seen.lost = node == nil || node.State == swarm.NodeDown && s.refuge
	return seen
}

// load arranges the services around the rollout as it now is.
func (s *step) load() {
	from, to := s.view.Healthy, s.content(s.rollout.To)
	names := make(map[string]bool)
	for _, stack := range []*swarm.Stack{from, to} {
		if stack != nil {
			for _, service := range stack.Services {
				names[service.Name] = true
			}
		}
	}
	tasks := make(map[string][]*task)
	for _, t := range s.tasks {
		name := t.Service.Name()
		names[name] = true
		tasks[name] = append(tasks[name], t)
	}

	s.services = nil
	for _, name := range slices.Sorted(maps.Keys(names)) {
		sv := &service{name: name, from: find(from, name), to: find(to, name)}
		sv.generation = s.view.Record.Generation[name]
		s.aim(sv)
		s.seat(sv, tasks[name])
		s.services = append(s.services, sv)
	}
}

// content returns the stack that was rendered so, if the view has it.
func (s *step) content(r swarm.Rendered) *swarm.Stack {
	switch {
	case r.Content == "":
		return nil
	case r.Content == s.view.Record.Accepted.Content:
		return s.view.Accepted
	case r.Content == s.view.Record.Healthy.Content:
		return s.view.Healthy
	}
	return nil
}

func find(stack *swarm.Stack, name string) *swarm.Service {
	if service, ok := stack.Service(name); ok {
		return &service
	}
	return nil
}

// aim says what a service must be in the rollout's phase.
func (s *step) aim(sv *service) {
	switch s.rollout.Phase {
	case swarm.PhaseHealthy, swarm.PhaseRolledBack:
		sv.want = sv.from
	case swarm.PhaseRollingBack, swarm.PhaseFailed:
		sv.back = s.goesBack(sv) && !s.rollout.Turned.IsZero()
		sv.want = sv.to
		if sv.back {
			sv.want = sv.from
		}
	default:
		sv.want = sv.to
	}
	sv.ends = s.ends(sv)
}

// seat sorts a service's tasks into seats.
func (s *step) seat(sv *service, tasks []*task) {
	seats := make(map[swarm.Seat]*seat)
	for _, t := range tasks {
		key := t.Seat()
		if seats[key] == nil {
			seats[key] = &seat{service: sv, slot: key.Slot, node: key.Node}
		}
		seats[key].tasks = append(seats[key].tasks, t)
		t.seat, t.unwelcome = seats[key], s.unwelcome(sv, t)
	}
	for _, st := range seats {
		slices.SortFunc(st.tasks, byAge)
	}

	switch {
	case sv.want != nil && sv.want.Mode.PerNode():
		s.seatNodes(sv, seats)
	case sv.want != nil:
		s.seatSlots(sv, seats)
	}
	sv.extra = slices.SortedFunc(maps.Values(seats), bySeat)
	sv.moves = sv.moving()
}

func bySeat(a, b *seat) int {
	return cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(a.node, b.node))
}

// seatNodes takes from seats those of nodes that fit; a node that is ready and
// active must have one.
func (s *step) seatNodes(sv *service, seats map[swarm.Seat]*seat) {
	for i := range s.nodes {
		node, id := &s.nodes[i], s.nodes[i].ID
		if !Fits(sv.want, node) {
			continue
		}
		key := swarm.Seat{Service: swarm.NewServiceID(s.view.Record.Name, sv.name), Node: id}
		st, taken := seats[key]
		delete(seats, key)
		if !taken {
			st = &seat{service: sv, node: id}
		}
		st.late = !s.rollout.Began.IsZero() && node.Joined.After(s.rollout.Began)

		if takes(node) {
			sv.seats = append(sv.seats, st)
		} else if taken {
			sv.kept = append(sv.kept, st)
		}
	}
}

// seatSlots takes from seats as many as there must be replicas, by the order of
// shrink; what is missing gets the lowest free numbers.
func (s *step) seatSlots(sv *service, seats map[swarm.Seat]*seat) {
	replicas := sv.want.Replicas
	if scale, ok := s.view.Record.Scale[sv.name]; ok {
		replicas = scale
	}
	replicas = min(max(replicas, 0), replicasLimit)

	var taken []*seat
	for _, st := range seats {
		if st.slot > 0 && st.occupied() {
			taken = append(taken, st)
		}
	}
	if len(taken) > replicas {
		taken = s.shrink(sv, taken)[:replicas]
	}

	used := make(map[int]bool)
	for _, st := range taken {
		used[st.slot] = true
	}
	for slot := 1; len(taken) < replicas; slot++ {
		if !used[slot] {
			taken = append(taken, s.slot(sv, seats, slot))
		}
	}
	for _, st := range taken {
		delete(seats, swarm.Seat{Service: swarm.NewServiceID(s.view.Record.Name, sv.name), Slot: st.slot})
	}
	slices.SortFunc(taken, bySeat)
	sv.seats = taken
}

func (s *step) slot(sv *service, seats map[swarm.Seat]*seat, slot int) *seat {
	key := swarm.Seat{Service: swarm.NewServiceID(s.view.Record.Name, sv.name), Slot: slot}
	if st, ok := seats[key]; ok {
		return st
	}
	return &seat{service: sv, slot: slot}
}
