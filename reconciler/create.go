package reconciler

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// create gives the seat a new task.
func (s *step) create(st *seat, g target, notBefore time.Time) {
	t := swarm.Task{
		Service: swarm.NewServiceID(s.view.Record.Name, st.service.name), Slot: st.slot, Node: st.node,
		Spec: g.def.Spec, Generation: g.generation, Job: st.service.ends,
		NotBefore: notBefore, Created: s.now, DesiredAt: s.now, Desired: swarm.DesiredPrepare,
		Status: swarm.TaskStatus{State: swarm.TaskNew, Since: s.now},
	}
	t.ID = s.newID(st)
	t.Revision, t.Rollout = s.origin(st, g)
	if last := s.before(st, g); last != nil {
		t.Replaces = last.ID
	}
	for _, other := range st.tasks { // an earlier leader's clock may have been ahead
		t.Created = later(t.Created, other.Created.Add(1))
	}

	first := s.startsFirst(st, g)
	crowded := st.any(func(t *task) bool { return t.live() && (!first || !t.holding()) })
	if !crowded && !s.now.Before(notBefore) {
		t.Desired, t.Touched = swarm.DesiredRun, s.now
		if t.Rollout != 0 {
			s.touch()
		}
	}
	s.ask(notBefore)
	s.decision.Create = append(s.decision.Create, t)
}

// before returns the task that a new one takes the seat of: the one that moves,
// else the last; nil where there was none.
func (s *step) before(st *seat, g target) *task {
	if moves := st.newest(func(t *task) bool { return t.holding() && s.moves(t, g) }); moves != nil {
		return moves
	}
	return st.newest(func(*task) bool { return true })
}

// origin says which commit and which rollout a new task comes from: those of
// the task that it restarts or moves, else those of the rollout that runs.
func (s *step) origin(st *seat, g target) (swarm.Revision, uint64) {
	r := s.rollout
	last := st.newest(func(t *task) bool { return t.live() && !t.asked() && s.moves(t, g) })
	if last == nil {
		last = s.lastOf(st, g)
	}
	if last != nil && !last.asked() {
		if s.isNew(st.service, last) {
			return last.Revision, r.ID
		}
		return last.Revision, 0
	}
	revision := r.To.Revision
	if st.service.back || r.Phase == swarm.PhaseRolledBack || g.def == st.service.from && st.service.want != st.service.from {
		revision = r.From.Revision
	}
	if r.Phase.Ended() {
		return revision, 0
	}
	return revision, r.ID
}

// newID names a new task of the seat. Chance makes it unlike any before it.
func (s *step) newID(st *seat) swarm.TaskID {
	prefix := string(s.view.Record.Name) + "/" + swarm.SlotName(st.service.name, st.slot) + "."
	for {
		s.created++
		seed := fmt.Sprintf("%d|%s|%d|%s|%d", s.view.Chance, st.service.name, st.slot, st.node, s.created)
		sum := sha256.Sum256([]byte(seed))
		text := new(big.Int).SetUint64(binary.BigEndian.Uint64(sum[:])).Text(36)
		id := swarm.TaskID(prefix + (strings.Repeat("0", 8) + text)[len(text):][:8])
		if !s.known[id] {
			s.known[id] = true
			return id
		}
	}
}
