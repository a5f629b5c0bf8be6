package reconciler

import (
	"cmp"
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// shrink orders seats by how long a smaller service keeps them. The first to go
// are those that go already, then those without a node, then those of the
// busiest node, of these the ones that do not run, then the highest slots.
func (s *step) shrink(sv *service, seats []*seat) []*seat {
	slices.SortFunc(seats, func(a, b *seat) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), bySeat(a, b))
	})

	// A node's second seat goes before any node's first.
	turn := make(map[*seat]int)
	taken := make(map[swarm.NodeID]int)
	for _, st := range seats {
		if t := st.newest((*task).staying); t != nil && t.Node != "" {
			taken[t.Node]++
			turn[st] = taken[t.Node]
		}
	}
	slices.SortStableFunc(seats, func(a, b *seat) int {
		return cmp.Or(cmp.Compare(s.standing(sv, a), s.standing(sv, b)), cmp.Compare(turn[a], turn[b]))
	})
	return seats
}

// standing sorts seats by what is decided of them. While a rollout runs, a seat
// that has what it brings is not given up for one that has not.
func (s *step) standing(sv *service, st *seat) int {
	goal := sv.goal()
	goal.anywhere = true
	switch stays := st.newest((*task).staying); {
	case !s.rollout.Phase.Ended() && s.keeper(st, goal) != nil:
		return 0
	case stays != nil && stays.Node != "":
		return 1
	case st.any(func(t *task) bool { return t.live() && t.asked() }):
		return 3
	}
	return 2
}

// rank is low for seats whose task runs.
func rank(st *seat) int {
	switch {
	case st.any(func(t *task) bool { return t.live() && t.Status.State.Running() }):
		return 1
	case st.any((*task).live):
		return 2
	}
	return 3
}
