package store

import (
	"fmt"
	"sync"
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestTheFirstTakeSaysEverything(t *testing.T) {
	s := newPlace(t).open(t)
	sub := s.Subscribe()
	touched, changed := sub.Take()
	if !touched.Everything {
		t.Errorf("%+v", touched)
	}
	select {
	case <-changed:
		t.Error("woken by nothing")
	default:
	}
	propose(t, s, putSource("main"))
	<-changed
	touched, _ = sub.Take()
	wantTouched(t, touched, Touched{Sources: []swarm.SourceID{"main"}})
	if touched, _ := sub.Take(); !touched.Empty() {
		t.Errorf("told twice: %+v", touched)
	}
	sub.Close()
	propose(t, s, accept("shop", "v1"))
	if touched, _ := sub.Take(); !touched.Empty() {
		t.Errorf("told after Close: %+v", touched)
	}
}

// TestASubscriptionNeverMisses: each of many concurrent changes is told to
// every reader, and a View after it shows it.
func TestASubscriptionNeverMisses(t *testing.T) {
	s := newPlace(t).open(t)
	propose(t, s, putSource("main"))
	const writers, each = 4, 30

	var readers, proposers sync.WaitGroup
	for range 3 {
		sub := s.Subscribe()
		sub.Take()
		readers.Go(func() {
			defer sub.Close()
			told := map[swarm.StackName]bool{}
			for len(told) < writers*each {
				touched, changed := sub.Take()
				if touched.Empty() {
					<-changed
					continue
				}
				view := s.View()
				for _, name := range touched.Stacks {
					told[name] = true
					if _, ok := view.Stack(name); !ok {
						t.Errorf("%s was told before it can be seen", name)
					}
				}
			}
		})
	}
	for w := range writers {
		proposers.Go(func() {
			for i := range each {
				if _, err := s.Propose(t.Context(), accept(fmt.Sprintf("stack-%d-%d", w, i), "v1")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	proposers.Wait()
	readers.Wait()
}
