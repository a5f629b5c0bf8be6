package nodeagent

import (
	"context"
	"sync"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

// outbox holds what the agent has yet to say, the newest word of each task.
// What a broken session lost is said again in the next one.
type outbox struct {
	news chan struct{}

	mu      sync.Mutex
	all     map[swarm.TaskID]swarm.TaskStatus
	unsaid  map[swarm.TaskID]bool
	index   uint64 // that the network was last set for
	said    uint64 // of index
	resend  bool
	removed []swarm.VolumeID
	papers  *wire.Papers // that are new
}

func newOutbox() *outbox {
	return &outbox{
		news:   make(chan struct{}, 1),
		all:    make(map[swarm.TaskID]swarm.TaskStatus),
		unsaid: make(map[swarm.TaskID]bool),
	}
}

func (o *outbox) report(task swarm.TaskID, status swarm.TaskStatus) {
	o.change(func() { o.all[task], o.unsaid[task] = status, true })
}

func (o *outbox) applied(index uint64) { o.change(func() { o.index = index }) }
func (o *outbox) askResend()           { o.change(func() { o.resend = true }) }
func (o *outbox) renewed(papers *wire.Papers) {
	o.change(func() { o.papers = papers })
}
func (o *outbox) gone(volumes []swarm.VolumeID) {
	o.change(func() { o.removed = append(o.removed, volumes...) })
}

func (o *outbox) change(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
	poke(o.news)
}

// drop forgets a task that nobody asks for.
func (o *outbox) drop(task swarm.TaskID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, task)
	delete(o.unsaid, task)
}

// repeat makes everything unsaid: a session begins.
func (o *outbox) repeat() {
	o.change(func() {
		for task := range o.all {
			o.unsaid[task] = true
		}
		o.said, o.resend, o.papers = 0, false, nil
	})
}

// take returns the next message, or false if all is said.
func (o *outbox) take() (wire.FromAgent, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var m wire.FromAgent
	for task := range o.unsaid {
		if len(m.Reports) == wire.MaxReports {
			break
		}
		m.Reports = append(m.Reports, wire.Report{Task: task, Status: o.all[task]})
		delete(o.unsaid, task)
	}
	if o.index != o.said {
		m.Applied, o.said = o.index, o.index
	}
	m.Resend, o.resend = o.resend, false
	m.Removed, o.removed = o.removed, nil
	m.Papers, o.papers = o.papers, nil
	return m, len(m.Reports) > 0 || m.Applied > 0 || m.Resend || len(m.Removed) > 0 || m.Papers != nil
}

// slots bounds how many things happen at once. Those of one key, unless it is
// empty, share a slot: a second pull of an image waits for the first anyway.
type slots struct {
	free chan struct{}
	mu   *sync.Mutex
	held map[string]int
}

func newSlots(n int) slots {
	return slots{free: make(chan struct{}, n), mu: new(sync.Mutex), held: make(map[string]int)}
}

func (s slots) take(ctx context.Context, key string) (release func(), err error) {
	if key != "" && s.join(key) {
		return func() { s.leave(key) }, nil
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case s.free <- struct{}{}:
	}
	if key == "" {
		return func() { <-s.free }, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[key] > 0 { // another was faster
		<-s.free
	}
	s.held[key]++
	return func() { s.leave(key) }, nil
}

func (s slots) join(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[key] == 0 {
		return false
	}
	s.held[key]++
	return true
}

func (s slots) leave(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[key]--
	if s.held[key] == 0 {
		delete(s.held, key)
		<-s.free
	}
}
