package manager

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
)

// A leader that offers its place stops to accept decisions. Where nobody takes
// it, raft tells of no change: the leader must find out by itself.
func TestALeaderGoesOnIfNobodyTookItsPlace(t *testing.T) {
	for _, why := range []error{store.ErrNotLeader, fmt.Errorf("%w: the way to the leader broke", store.ErrUncertain)} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			leading := make(chan bool, 1)
			leads, terms := true, 0
			lead := func(ctx context.Context) error {
				if terms++; terms == 1 {
					return why
				}
				<-ctx.Done()
				return nil
			}
			done := make(chan error, 1)
			go func() { done <- inTerms(ctx, leading, func() bool { return leads }, lead) }()

			leading <- true
			time.Sleep(time.Second)
			synctest.Wait()
			if terms != 2 {
				t.Errorf("%d terms, not 2: the cluster has a leader that does nothing", terms)
			}
			leading <- false
			leads = false
			time.Sleep(time.Second)
			synctest.Wait()
			if terms != 2 {
				t.Error("a term began while another manager leads")
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
