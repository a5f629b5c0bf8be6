package store

import (
	"maps"
	"slices"
	"sync"

	"github.com/gitswarm/gitswarm/swarm"
)

// Touched is what commands changed.
type Touched struct {
	Everything bool              // nothing may be taken as known: a new subscription, a new leader, a restored snapshot
	Stacks     []swarm.StackName // sorted; those that are gone are among them
	Nodes      []swarm.NodeID    // sorted
	Sources    []swarm.SourceID  // sorted
	Index      uint64            // every change up to it was told, now or before; a View may be ahead of it for a moment
	Changed    uint64            // the last of them, at most Index: what came after it changed nothing that is told
}

// Empty reports whether nothing was touched.
func (t Touched) Empty() bool {
	return !t.Everything && len(t.Stacks) == 0 && len(t.Nodes) == 0 && len(t.Sources) == 0
}

// marks collects what was touched.
type marks struct {
	everything bool
	stacks     map[swarm.StackName]bool
	nodes      map[swarm.NodeID]bool
	sources    map[swarm.SourceID]bool
	index      uint64 // of the command that was applied last
	changed    uint64 // of the last one that touched anything
}

func newMarks() marks {
	return marks{
		stacks:  map[swarm.StackName]bool{},
		nodes:   map[swarm.NodeID]bool{},
		sources: map[swarm.SourceID]bool{},
	}
}

func (m *marks) stack(name swarm.StackName) { m.stacks[name] = true }
func (m *marks) source(id swarm.SourceID)   { m.sources[id] = true }
func (m *marks) node(id swarm.NodeID) {
	if id != "" {
		m.nodes[id] = true
	}
}

func (m *marks) empty() bool {
	return !m.everything && len(m.stacks) == 0 && len(m.nodes) == 0 && len(m.sources) == 0
}

func (m *marks) add(other marks) {
	m.everything = m.everything || other.everything
	m.index = max(m.index, other.index)
	m.changed = max(m.changed, other.changed)
	maps.Copy(m.stacks, other.stacks)
	maps.Copy(m.nodes, other.nodes)
	maps.Copy(m.sources, other.sources)
}

func (m *marks) touched() Touched {
	return Touched{
		Everything: m.everything,
		Stacks:     slices.Sorted(maps.Keys(m.stacks)),
		Nodes:      slices.Sorted(maps.Keys(m.nodes)),
		Sources:    slices.Sorted(maps.Keys(m.sources)),
		Index:      m.index,
		Changed:    m.changed,
	}
}

// Subscription tells one reader what commands touched. It forgets nothing
// that was not taken.
type Subscription struct {
	hub    *hub
	mu     sync.Mutex
	since  marks
	change chan struct{} // closed once since is not empty
}

// Take returns what was touched since the last Take, and a channel that is
// closed when there is more. A View that is taken after it shows at least
// these changes. The first Take says Everything.
func (s *Subscription) Take() (Touched, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.since.empty() {
		return Touched{Index: s.since.index, Changed: s.since.changed}, s.change
	}
	touched := s.since.touched()
	s.since = newMarks()
	s.since.index, s.since.changed = touched.Index, touched.Changed
	s.change = make(chan struct{})
	return touched, s.change
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.subscriptions, s)
}

func (s *Subscription) touch(m marks) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.since.empty() && !m.empty() {
		close(s.change)
	}
	s.since.add(m)
}

// hub knows the subscriptions.
type hub struct {
	mu            sync.Mutex
	subscriptions map[*Subscription]bool
	index         uint64 // of the command that was applied last
	changed       uint64 // of the last one that touched anything
}

func (h *hub) subscribe() *Subscription {
	s := &Subscription{hub: h, since: newMarks(), change: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.touch(marks{everything: true, index: h.index, changed: h.changed})
	if h.subscriptions == nil {
		h.subscriptions = map[*Subscription]bool{}
	}
	h.subscriptions[s] = true
	return s
}

// touch tells of the command of that index, also where it changed nothing.
func (h *hub) touch(index uint64, m marks) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index = index
	if !m.empty() {
		h.changed = index
	}
	m.index, m.changed = h.index, h.changed
	for s := range h.subscriptions {
		s.touch(m)
	}
}
