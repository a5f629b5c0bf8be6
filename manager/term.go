package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
)

// termAgain is the pause after a term that ended by itself.
const termAgain = 200 * time.Millisecond

// A term is the time during which this manager leads.
type term struct {
	stop  context.CancelFunc
	ended chan error // holds what lead returned
}

// inTerms calls lead whenever leading says that a term begins, and ends it when
// the term ends. A term may also end by itself while leads is still true: the
// log takes nothing while leadership is handed over, and if nobody takes it
// then this manager goes on, unannounced.
func inTerms(ctx context.Context, leading <-chan bool, leads func() bool, lead func(context.Context) error) error {
	var current *term // nil while another leads
	var ended <-chan error
	var again <-chan time.Time
	begin := func() {
		current = beginTerm(ctx, lead)
		ended = current.ended
	}
	for {
		select {
		case <-ctx.Done():
			return current.end()
		case won := <-leading:
			// A term may also end unseen: leadership was lost and won again.
			if err := current.end(); err != nil {
				return err
			}
			if current, ended = nil, nil; won {
				begin()
			}
		case err := <-ended:
			if current, ended = nil, nil; ofTerm(err) {
				return fmt.Errorf("lead the cluster: %w", err)
			}
			again = time.After(termAgain)
		case <-again:
			if again = nil; current == nil && leads() {
				begin()
			}
		}
	}
}

// ofTerm reports whether an error is more than the end of a term.
func ofTerm(err error) bool {
	return err != nil && !errors.Is(err, store.ErrNotLeader) && !errors.Is(err, store.ErrUncertain) && !errors.Is(err, context.Canceled)
}

func beginTerm(ctx context.Context, lead func(context.Context) error) *term {
	ctx, stop := context.WithCancel(ctx)
	t := &term{stop: stop, ended: make(chan error, 1)}
	go func() { t.ended <- lead(ctx) }()
	return t
}

// end stops the term and waits until it is over.
func (t *term) end() error {
	if t == nil {
		return nil
	}
	t.stop()
	if err := <-t.ended; ofTerm(err) {
		return fmt.Errorf("lead the cluster: %w", err)
	}
	return nil
}
