package scheduler

import "math/bits"

// ranks is a set of nodes, by their rank.
type ranks []uint64

func newRanks(size int) ranks { return make(ranks, (size+63)/64) }

func (s ranks) add(rank int)      { s[rank/64] |= 1 << (rank % 64) }
func (s ranks) drop(rank int)     { s[rank/64] &^= 1 << (rank % 64) }
func (s ranks) has(rank int) bool { return s[rank/64]&(1<<(rank%64)) != 0 }

// first returns the lowest rank that is in all three sets, or -1.
func first(a, b, c ranks) int {
	for i, word := range a {
		if word &= b[i] & c[i]; word != 0 {
			return i*64 + bits.TrailingZeros64(word)
		}
	}
	return -1
}

// levels sorts nodes by how many tasks they have: those with n are level n.
type levels struct {
	size   int // how many nodes there are
	of     []level
	lowest int // no level below it has a node
}

type level struct {
	nodes ranks // nil while none was ever here
	count int
}

func (l *levels) enter(rank, tasks int) {
	for len(l.of) <= tasks {
		l.of = append(l.of, level{})
	}
	if l.of[tasks].nodes == nil {
		l.of[tasks].nodes = newRanks(l.size)
	}
	l.of[tasks].nodes.add(rank)
	l.of[tasks].count++
	l.lowest = min(l.lowest, tasks)
}

func (l *levels) move(rank, from, to int) {
	l.of[from].nodes.drop(rank)
	l.of[from].count--
	l.enter(rank, to)
	for l.of[l.lowest].count == 0 {
		l.lowest++
	}
}

// first returns the node with the fewest tasks, of those the one with the
// lowest id, that is in both sets; or -1.
func (l *levels) first(a, b ranks) int {
	for tasks := l.lowest; tasks < len(l.of); tasks++ {
		if l.of[tasks].count == 0 {
			continue
		}
		if rank := first(l.of[tasks].nodes, a, b); rank >= 0 {
			return rank
		}
	}
	return -1
}
