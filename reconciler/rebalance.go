package reconciler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// rebalanceWait is how long a service is left alone after a replica could not
// move: what stood in its way may go.
const rebalanceWait = 5 * time.Minute

// rebalance moves one replica of a stack that is wholly healthy to an emptier
// node, where that makes the spread better. It is the last thing that a step
// does, and it does it only where there is nothing else to do: so one replica
// moves at a time, and each is healthy before the next.
//
// Each move makes the sum of the squares of some service's tasks by group of
// nodes smaller, or, where it leaves that as it is, the sum of the squares of
// all tasks by node. So the moves end.
func (s *step) rebalance() {
	if s.view.Record.Suspended != "" || !s.quiet() {
		return
	}
	var failed *task
	for _, sv := range s.services {
		if !s.rebalances(sv) {
			continue
		}
		if f := s.failedMove(sv); f != nil {
			failed = f
			continue
		}
		if seat, to := s.betterPlace(sv); seat != nil {
			s.create(seat, sv.goal(), time.Time{})
			s.decision.Create[len(s.decision.Create)-1].Node = to
			return
		}
	}
	switch {
	case !s.view.Record.Rebalance:
		return
	case failed != nil:
		s.happened("task", failed.seat, "stays where it is: "+reason(failed)+" on node "+string(failed.Node))
	default:
		s.happened("rollout", nil, "no replica has a better node")
	}
	s.decision.Rebalanced = true
}

// quiet reports whether every seat of the stack has one healthy task where it
// may be, or rests, and nothing is to be done.
func (s *step) quiet() bool {
	if len(s.decision.Create) > 0 || len(s.desires) > 0 || s.decision.Ended != nil {
		return false
	}
	for _, sv := range s.services {
		for _, st := range slices.Concat(sv.seats, sv.extra) {
			if sv.ends && s.idle(sv) && !st.any((*task).live) {
				continue
			}
			keeper := s.keeper(st, sv.goal())
			if keeper == nil && s.satisfied(st, sv.goal()) {
				continue
			}
			if keeper == nil || !keeper.healthy() || st.any(func(t *task) bool { return t.live() && t != keeper }) {
				return false
			}
		}
	}
	return true
}

// Movable returns, sorted, the names of the stack's services whose replicas a
// rebalance may move: those that may be anywhere and do not end by themselves.
func Movable(stack *swarm.Stack) (names []string) {
	if stack == nil {
		return nil
	}
	for _, service := range stack.Services {
		if movable(&service) && !awaited(stack, service.Name) {
			names = append(names, service.Name)
		}
	}
	slices.Sort(names)
	return names
}

func movable(service *swarm.Service) bool {
	return service.Mode == swarm.Replicated && !mountsVolume(service)
}

// rebalances reports whether a rebalance moves the service's replicas now.
func (s *step) rebalances(sv *service) bool {
	return sv.want != nil && !sv.ends && movable(sv.want) && (sv.want.Rebalance || s.view.Record.Rebalance)
}

// failedMove returns a move of the service that failed lately, or nil.
func (s *step) failedMove(sv *service) *task {
	for _, st := range sv.seats {
		keeper := s.keeper(st, sv.goal())
		for _, t := range st.tasks {
			if keeper == nil || t.Replaces != keeper.ID || t.Status.State.Live() {
				continue
			}
			if again := t.Status.Since.Add(rebalanceWait); s.now.Before(again) {
				s.ask(again)
				return t
			}
		}
	}
	return nil
}

// place is a node as one service sees it.
type place struct {
	node  *swarm.Node
	seats []*seat // of the service, by slot
	load  int     // tasks of all stacks
}

// betterPlace returns the seat whose move to another node makes the service's
// spread better, and that node; nil where none does.
func (s *step) betterPlace(sv *service) (*seat, swarm.NodeID) {
	var places []*place
	at := make(map[swarm.NodeID]*place)
	for i := range s.nodes {
		if node := &s.nodes[i]; takes(node) && Fits(sv.want, node) {
			at[node.ID] = &place{node: node, load: s.view.Load[node.ID]}
			places = append(places, at[node.ID])
		}
	}
	for _, st := range sv.seats {
		if keeper := s.keeper(st, sv.goal()); keeper != nil && at[keeper.Node] != nil {
			at[keeper.Node].seats = append(at[keeper.Node].seats, st)
		}
	}

	if len(places) < 2 {
		return nil, ""
	}
	from, to := s.fromTo(sv, places, sv.want.Spread)
	if from == nil {
		return nil, ""
	}
	return from.seats[len(from.seats)-1], to.node.ID
}

// fromTo looks for a move that evens out the groups of the first preference,
// then within each group those of the next, at last the nodes.
func (s *step) fromTo(sv *service, places []*place, preferences []string) (from, to *place) {
	if len(preferences) == 0 {
		return s.betweenNodes(sv, places)
	}
	groups := make(map[string][]*place)
	for _, p := range places {
		value, _ := swarm.NodeValue(*p.node, preferences[0])
		groups[value] = append(groups[value], p)
	}
	names := slices.Sorted(maps.Keys(groups))
	byCount := func(a, b string) int { return cmp.Compare(count(groups[a]), count(groups[b])) }
	if len(names) > 1 {
		most, least := slices.MaxFunc(names, byCount), slices.MinFunc(names, byCount)
		to = emptiest(sv, groups[least])
		if to != nil && count(groups[most])-count(groups[least]) > 1 {
			return busiest(groups[most]), to
		}
	}
	for _, name := range names {
		if from, to = s.fromTo(sv, groups[name], preferences[1:]); from != nil {
			return from, to
		}
	}
	return nil, nil
}

// betweenNodes looks for a move that evens out the service's replicas by node
// or, where they are even, all tasks by node.
func (s *step) betweenNodes(sv *service, places []*place) (from, to *place) {
	from, to = busiest(places), emptiest(sv, places)
	if from == nil || to == nil {
		return nil, nil
	}
	if len(from.seats)-len(to.seats) > 1 {
		return from, to
	}
	if s.view.Load == nil || len(from.seats)-len(to.seats) < 1 || from.load-to.load < 2 {
		return nil, nil
	}
	return from, to
}

func count(places []*place) (seats int) {
	for _, p := range places {
		seats += len(p.seats)
	}
	return seats
}

// busiest returns the place with the most of the service's tasks, then the most
// at all; nil where none has any.
func busiest(places []*place) *place {
	most := slices.MaxFunc(places, byLoad)
	if len(most.seats) == 0 {
		return nil
	}
	return most
}

// emptiest returns the place with the fewest of the service's tasks, then the
// fewest at all, that takes one more of them; or nil.
func emptiest(sv *service, places []*place) *place {
	var least *place
	for _, p := range places {
		full := sv.want.MaxPerNode > 0 && len(p.seats) >= sv.want.MaxPerNode || len(sv.want.Task.HostPorts) > 0 && len(p.seats) > 0
		if !full && (least == nil || byLoad(p, least) < 0) {
			least = p
		}
	}
	return least
}

func byLoad(a, b *place) int {
	return cmp.Or(cmp.Compare(len(a.seats), len(b.seats)), cmp.Compare(a.load, b.load))
}

// giveUpMove takes a move back that has not ended well in time: the task that holds
// the seat stays.
func (s *step) giveUpMove(st *seat) {
	keeper := s.keeper(st, st.service.goal())
	if keeper == nil || keeper.healthy() {
		return
	}
	if old := st.newest(func(t *task) bool { return t.staying() && t.healthy() && t.ID == keeper.Replaces }); old == nil {
		return
	}
	due := keeper.Created.Add(deadline(st.service))
	if s.now.Before(due) {
		s.ask(due)
		return
	}
	s.push(keeper, swarm.DesiredStop)
	s.happened("task", st, "did not become healthy on node "+string(keeper.Node)+" and stays where it is")
}
