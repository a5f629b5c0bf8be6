package reconciler

import (
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// A node that is drained, or that a service's constraints no longer admit, may
// not keep its tasks. Those that serve move: a successor starts elsewhere, and
// once it is healthy the task goes. At most as many seats of a service move at
// a time as its update_config replaces at a time.
//
// Where order forbids two tasks in a seat, the task goes once its successor is
// prepared: see movesFirst. Where what the service holds of its nodes (host
// ports, volumes, replicas for each node) leaves no other node, it goes at
// once, and the seat waits. For lack of anything else nothing goes: the move
// waits for room.

// Why tasks that left a node are excused.
const (
	drained    = "node drained"
	unfit      = "node no longer fits"
	rebalanced = "rebalanced"
)

// unwelcome says why the task's node may not keep it, or "". A task of content
// that a rollout brings or replaces may be where either of the two admits it:
// taking it from there is the rollout's.
func (s *step) unwelcome(sv *service, t *task) string {
	node := s.node(t.Node)
	if node == nil || t.lost || !t.live() {
		return ""
	}
	if node.Availability == swarm.NodeDrained {
		return drained
	}
	contents := []*swarm.Service{sv.from, sv.to}
	if s.rollout.Phase == swarm.PhaseHealthy || s.rollout.Phase == swarm.PhaseRolledBack {
		contents = contents[:1]
	}
	known := false
	for _, def := range contents {
		if def == nil || def.Spec != t.Spec {
			continue
		}
		if Fits(def, node) {
			return ""
		}
		known = true
	}
	if known {
		return unfit
	}
	return ""
}

// same reports whether the task is what the target asks for, wherever it is.
func (s *step) same(t *task, g target) bool {
	return g.def != nil && t.Spec == g.def.Spec && t.Generation == g.generation
}

// moves reports whether the task would leave its seat for one that differs from
// it by its place alone, and that it is not for a rollout to take it from there.
func (s *step) moves(t *task, g target) bool {
	return s.same(t, g) && (t.unwelcome != "" || t.Excused != "" || s.fits(t, g))
}

// mover returns the task of the seat that is what the target asks for, serves,
// and is only in the wrong place; or nil.
func (s *step) mover(st *seat, g target) *task {
	return st.newest(func(t *task) bool {
		return t.holding() && t.unwelcome != "" && t.healthy() && s.same(t, g) && !st.service.ends
	})
}

// startsFirst reports whether a new task of the seat starts beside the one
// that holds it: by its order where their contents differ, by movesFirst where
// only the place does.
func (s *step) startsFirst(st *seat, g target) bool {
	if st.any(func(t *task) bool { return t.holding() && !s.moves(t, g) }) {
		return s.order(st, g) == swarm.StartFirst
	}
	return s.movesFirst(st, g)
}

// movesFirst reports whether a seat that moves has two tasks for a while.
// Replicas run side by side anyway, so one more of them disturbs nobody,
// whatever the order of a rollout; a service of one replica, one whose tasks
// may end by themselves and one that has volumes must ask for it by its order.
// A job never runs twice.
func (s *step) movesFirst(st *seat, g target) bool {
	switch sv := st.service; {
	case sv.ends:
		return false
	case s.order(st, g) == swarm.StartFirst:
		return true
	case g.def.Restart.Condition != swarm.RestartAny && g.def.Restart.Condition != "":
		return false
	default:
		return len(sv.seats) > 1 && !mountsVolume(g.def)
	}
}

func mountsVolume(def *swarm.Service) bool {
	return slices.ContainsFunc(def.Task.Mounts, func(m swarm.Mount) bool {
		return m.Kind == swarm.MountVolume && m.Source != ""
	})
}

// claims reports whether the service holds something of its nodes that leaves
// a seat no other node than its own.
func claims(def *swarm.Service) bool {
	return mountsVolume(def) || len(def.Task.HostPorts) > 0 || def.MaxPerNode > 0
}

// mayGo reports whether a task may go for the one that its seat moves to.
func (s *step) mayGo(st *seat, t, keeper *task, first bool) bool {
	switch {
	case keeper.healthy(), !first && s.ready(keeper) && keeper.Desired < swarm.DesiredRun: // else it was begun when two were allowed
		return true
	case t.unwelcome == "":
		return false
	case !t.healthy():
		return true
	}
	def := st.service.want
	for _, other := range []*swarm.Service{st.service.to, st.service.from} {
		if other != nil && other.Spec == t.Spec {
			def = other
		}
	}
	unplaced := keeper.Node == "" && keeper.Status.Message != ""
	return unplaced && def != nil && claims(def)
}

// moveOff asks a task to go for the one that its seat moves to.
func (s *step) moveOff(t, keeper *task) {
	why := t.unwelcome
	if why == "" {
		why = rebalanced
	}
	text := "left node " + string(t.Node) + ": " + why
	if keeper.Node != "" {
		text = "moved from node " + string(t.Node) + " to " + string(keeper.Node) + ": " + why
	}
	t.Excused = why
	s.push(t, swarm.DesiredStop)
	s.happened("task", t.seat, text)
}

// waitsForSuccessor reports whether a task that its node may not keep stays
// until another one serves in its place.
func (s *step) waitsForSuccessor(t *task) bool {
	return t.holding() && t.healthy() && !t.seat.service.ends
}

// evict moves a task on its way out. That its node may not keep it is no
// failure of its own.
func (s *step) evict(t *task) {
	if t.holding() && t.unwelcome != "" {
		t.Excused = t.unwelcome
		s.happened("task", t.seat, "left node "+string(t.Node)+": "+t.unwelcome)
	}
	s.push(t, swarm.DesiredStop)
}

// moving counts the service's seats that are on their way to another node: those
// that have a successor of a task that moves, but no healthy one yet.
func (sv *service) moving() (count int) {
	for _, st := range sv.seats {
		count += number(st.moving())
	}
	return count
}

func (st *seat) moving() bool {
	if settled := st.newest(func(t *task) bool { return t.staying() && t.healthy() }); settled != nil &&
		!st.any(func(t *task) bool { return t != settled && t.live() }) {
		return false
	}
	var last *task // the seat's youngest
	for _, t := range slices.Backward(st.tasks) {
		besides := last != nil && last.live() && t.staying() && t.Spec == last.Spec
		switch {
		case t.unwelcome != "", t.Excused == drained, t.Excused == unfit, t.Excused == rebalanced, besides:
			return last != nil
		case !t.Status.Healthy.IsZero():
			return false
		}
		if last == nil {
			last = t
		}
	}
	return false
}

// waitsForTurn reports whether the seat must move, has not begun to, and has
// to wait for others of its service. Asking takes the turn.
func (s *step) waitsForTurn(st *seat, g target) bool {
	mover := s.mover(st, g)
	if mover == nil || st.moving() {
		return false
	}
	sv, limit := st.service, st.service.policy().Parallelism
	busy := sv.moves
	if !s.startsFirst(st, g) && !s.rollout.Phase.Ended() {
		for _, other := range sv.seats {
			if s.begun(other) {
				busy += number(s.busy(other))
			}
		}
	}
	if limit > 0 && busy >= limit {
		return true
	}
	sv.moves++
	return false
}
