package api

import "github.com/gitswarm/gitswarm/manager/store"

// FromStore shows what a store holds: the View and Changes of Config.
func FromStore(s *store.Store) (func() View, func() Changes) {
	return func() View { return s.View() },
		func() Changes { return storeChanges{s.Subscribe()} }
}

// storeChanges forgets what was touched: a page is computed anew as a whole.
type storeChanges struct{ subscription *store.Subscription }

func (c storeChanges) Next() <-chan struct{} {
	_, changed := c.subscription.Take()
	return changed
}

func (c storeChanges) Close() { c.subscription.Close() }
