package wire

import (
	"context"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Lines writes lines to emit, oldest first, until there are no more (or, of a
// log that is followed, until ctx ends).
type Lines func(ctx context.Context, emit func(swarm.LogLine) error) error

// lineWindow is how long a followed line waits for an earlier one of another
// source.
const lineWindow = 20 * time.Millisecond

// lineAhead is how many lines a source may read ahead.
const lineAhead = 64

// MergeLines emits the lines of all sources in the order of their times, until
// all have ended or emit fails. A source's error is emitted in its place, and
// the others go on. Lines of followed sources that come more than 20 ms late
// are out of order.
func MergeLines(ctx context.Context, sources []Lines, follow bool, emit func(swarm.LogLine, error) error) error {
	ctx, cancel := context.WithCancel(ctx)
	m := &merge{follow: follow, emit: emit, news: make(chan struct{}, 1)}

	var readers sync.WaitGroup
	for _, read := range sources {
		lines := make(chan entry, lineAhead)
		m.sources = append(m.sources, &source{lines: lines})
		readers.Go(func() {
			defer close(lines)
			err := read(ctx, func(line swarm.LogLine) error { return m.push(ctx, lines, entry{line: line}) })
			if err != nil && ctx.Err() == nil {
				_ = m.push(ctx, lines, entry{err: err})
			}
			m.wake()
		})
	}
	defer readers.Wait()
	defer cancel()
	return m.run(ctx)
}

type merge struct {
	follow  bool
	emit    func(swarm.LogLine, error) error
	news    chan struct{}
	sources []*source
	late    <-chan time.Time // when the heads go out, whatever the others do; nil while there is none
}

type source struct {
	lines <-chan entry
	head  *entry
	ended bool
}

type entry struct {
	line swarm.LogLine
	err  error
}

func (m *merge) push(ctx context.Context, lines chan<- entry, e entry) error {
	select {
	case lines <- e:
		m.wake()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *merge) wake() {
	select {
	case m.news <- struct{}{}:
	default:
	}
}

func (m *merge) run(ctx context.Context) error {
	for {
		first, missing, open := m.look()
		if open == 0 {
			return nil
		}
		if first != nil && missing == 0 {
			if err := m.pass(first); err != nil {
				return err
			}
			continue
		}

		if first != nil && m.follow && m.late == nil {
			m.late = time.After(lineWindow)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.news:
		case <-m.late:
			if err := m.flush(); err != nil {
				return err
			}
		}
	}
}

// look takes what sources have ready. It returns the source whose head comes
// first, how many open sources have no head yet, and how many are open.
func (m *merge) look() (first *source, missing, open int) {
	for _, s := range m.sources {
		s.take()
		switch {
		case s.head != nil:
			open++
			if first == nil || s.head.line.At.Before(first.head.line.At) {
				first = s
			}
		case !s.ended:
			open++
			missing++
		}
	}
	return first, missing, open
}

func (s *source) take() {
	if s.head != nil || s.ended {
		return
	}
	select {
	case e, ok := <-s.lines:
		if ok {
			s.head = &e
		} else {
			s.ended = true
		}
	default:
	}
}

func (m *merge) pass(s *source) error {
	e := *s.head
	s.head = nil
	return m.emit(e.line, e.err)
}

// flush passes on all that has come, in order.
func (m *merge) flush() error {
	m.late = nil
	for {
		first, _, _ := m.look()
		if first == nil {
			return nil
		}
		if err := m.pass(first); err != nil {
			return err
		}
	}
}
