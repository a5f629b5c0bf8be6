package main

import (
	"errors"
	"net/http"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/store"
)

// storeView is a store as the control API sees it.
func storeView(s *store.Store) (func() api.View, func() api.Changes) {
	return func() api.View { return s.View() },
		func() api.Changes { return storeChanges{s.Subscribe()} }
}

// storeChanges forgets what was touched: a page is computed anew as a whole.
type storeChanges struct{ subscription *store.Subscription }

func (c storeChanges) Next() <-chan struct{} {
	_, changed := c.subscription.Take()
	return changed
}

func (c storeChanges) Close() { c.subscription.Close() }

// explainStore tells the control API's clients what the store's refusals mean.
func explainStore(err error) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return api.Fail(http.StatusNotFound, err.Error(), "")
	case errors.Is(err, store.ErrNotLeader):
		return api.Unavailable(err.Error(), "try again in a second: a leader is being elected")
	case errors.Is(err, store.ErrFailed), errors.Is(err, store.ErrClosed):
		return api.Unavailable(err.Error(), "the daemon's log says why: journalctl -u gitswarm")
	}
	return err
}
