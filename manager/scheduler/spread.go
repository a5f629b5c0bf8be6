package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// branch is nodes that agree on the first keys of a spread. Its parts agree on
// one key more.
type branch struct {
	nodes ranks
	value string
	parts []*branch // by value; none in a leaf
	part  []int32   // by rank of a node here: its place in parts
}

// tree returns the nodes, branched by the keys of a spread. A node that lacks
// a label is in the branch of the empty value.
func (c *Cluster) tree(spread []string) *branch {
	key := strings.Join(spread, "\x00")
	if known := c.trees[key]; known != nil {
		return known
	}
	root := &branch{nodes: newRanks(len(c.order))}
	for rank := range c.order {
		root.nodes.add(rank)
	}
	c.grow(root, spread)
	if len(c.trees) >= matchesKept {
		clear(c.trees)
	}
	c.trees[key] = root
	return root
}

func (c *Cluster) grow(b *branch, spread []string) {
	if len(spread) == 0 {
		return
	}
	parts := make(map[string]*branch)
	values := make([]string, len(c.order))
	for rank, r := range c.order {
		if !b.nodes.has(rank) {
			continue
		}
		value, _ := swarm.NodeValue(r.node, spread[0])
		if parts[value] == nil {
			parts[value] = &branch{nodes: newRanks(len(c.order)), value: value}
			b.parts = append(b.parts, parts[value])
		}
		parts[value].nodes.add(rank)
		values[rank] = value
	}

	slices.SortFunc(b.parts, func(a, b *branch) int { return cmp.Compare(a.value, b.value) })
	places := make(map[string]int32, len(b.parts))
	for i, part := range b.parts {
		places[part.value] = int32(i)
		c.grow(part, spread[1:])
	}
	b.part = make([]int32, len(c.order))
	for rank, value := range values {
		b.part[rank] = places[value] // of a node that is not here, nobody asks
	}
}

// ground is nodes that a search may use: those that are open, branch by branch.
type ground struct {
	search *search
	open   ranks // nodes that have not refused
	fresh  ranks // of these, those without a task of the service
	root   *limb
}

// limb is a branch as a ground uses it.
type limb struct {
	*branch
	tasks int     // of the service, on nodes that keep them
	parts []limb  // of the branch's; nil until they are looked at
	spent bool    // none of its nodes is open
	used  *crowds // of a leaf without fresh nodes: those with tasks of the service
}

func newGround(s *search, open ranks) *ground {
	g := &ground{search: s, open: open, fresh: slices.Clone(open)}
	here := s.cluster.services[s.wanted.Service]
	for r := range here {
		if r.known {
			g.fresh.drop(r.rank)
		}
	}
	g.root = &limb{branch: s.cluster.tree(s.wanted.Spread)}
	if len(s.wanted.Spread) > 0 {
		for r, tasks := range here {
			if r.keeps() {
				g.root.count(r.rank, tasks)
			}
		}
	}
	return g
}

// grown returns the limbs of the branch's parts.
func (l *limb) grown() []limb {
	if l.parts == nil {
		l.parts = make([]limb, len(l.branch.parts))
		for i, part := range l.branch.parts {
			l.parts[i].branch = part
		}
	}
	return l.parts
}

func (l *limb) count(rank, tasks int) {
	l.tasks += tasks
	if len(l.branch.parts) > 0 {
		l.grown()[l.part[rank]].count(rank, tasks)
	}
}

// fewest returns the part with the fewest tasks that is not spent, or nil.
func (l *limb) fewest() *limb {
	var best *limb
	for i := range l.grown() {
		if part := &l.parts[i]; !part.spent && (best == nil || part.tasks < best.tasks) {
			best = part
		}
	}
	return best
}

// next returns the best room that takes one more task, or nil.
func (g *ground) next() *room { return g.in(g.root) }

func (g *ground) in(l *limb) *room {
	if len(l.branch.parts) == 0 {
		return g.leaf(l)
	}
	for part := l.fewest(); part != nil; part = l.fewest() {
		if r := g.in(part); r != nil {
			l.tasks++
			return r
		}
	}
	l.spent = true
	return nil
}

// leaf returns the best room of a leaf: one without tasks of the service while
// there is any, else the one with the fewest.
func (g *ground) leaf(l *limb) *room {
	for l.used == nil {
		rank := g.search.cluster.levels.first(g.fresh, l.nodes)
		if rank < 0 {
			l.used = g.crowds(l)
			break
		}
		g.fresh.drop(rank)
		if r := g.search.cluster.order[rank]; g.takes(r, 0) {
			l.tasks++
			return r
		}
	}
	for l.used.Len() > 0 {
		heap.Fix(l.used, 0) // it may have been taken since
		r := l.used.rooms[0]
		if g.takes(r, l.used.service[r]) {
			l.tasks++
			return r
		}
		heap.Pop(l.used)
	}
	l.spent = true
	return nil
}

// takes asks a room, and closes it for good if it refuses.
func (g *ground) takes(r *room, there int) bool {
	if g.search.demand.short(r, there).text == "" {
		return true
	}
	g.open.drop(r.rank)
	return false
}

// crowds is rooms with tasks of one service: a heap, the best on top.
type crowds struct {
	rooms   []*room
	service population
}

// crowds gathers the open rooms of a leaf that have tasks of the service.
func (g *ground) crowds(l *limb) *crowds {
	c := &crowds{service: g.search.cluster.services[g.search.wanted.Service]}
	for r := range c.service {
		if r.known && g.open.has(r.rank) && l.nodes.has(r.rank) {
			c.rooms = append(c.rooms, r)
		}
	}
	heap.Init(c)
	return c
}

// Len implements heap.Interface.
func (c *crowds) Len() int { return len(c.rooms) }

// Less implements heap.Interface.
func (c *crowds) Less(i, j int) bool {
	a, b := c.rooms[i], c.rooms[j]
	return cmp.Or(
		cmp.Compare(c.service[a], c.service[b]),
		cmp.Compare(a.tasks, b.tasks),
		cmp.Compare(a.rank, b.rank)) < 0
}

// Swap implements heap.Interface.
func (c *crowds) Swap(i, j int) { c.rooms[i], c.rooms[j] = c.rooms[j], c.rooms[i] }

// Push implements heap.Interface. Nothing is pushed: rooms only fill up.
func (c *crowds) Push(r any) { c.rooms = append(c.rooms, r.(*room)) }

// Pop implements heap.Interface.
func (c *crowds) Pop() any {
	last := c.rooms[len(c.rooms)-1]
	c.rooms = c.rooms[:len(c.rooms)-1]
	return last
}
