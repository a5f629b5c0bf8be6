package manager

import (
	"cmp"
	"container/heap"
	"slices"
	"time"
)

// alarms keeps one moment for each key and rings at the earliest. It belongs
// to one goroutine.
type alarms[K cmp.Ordered] struct {
	at    map[K]time.Time
	queue alarmQueue[K]
	timer *time.Timer
}

func newAlarms[K cmp.Ordered]() *alarms[K] {
	a := &alarms[K]{at: make(map[K]time.Time), timer: time.NewTimer(time.Hour)}
	a.timer.Stop()
	return a
}

// set replaces the moment of a key; the zero time takes it away.
func (a *alarms[K]) set(key K, at time.Time) {
	if at.IsZero() {
		delete(a.at, key)
		return
	}
	a.at[key] = at
	heap.Push(&a.queue, alarm[K]{key, at})
}

// sooner moves the moment of a key to an earlier one, if it is.
func (a *alarms[K]) sooner(key K, at time.Time) {
	if before, set := a.at[key]; !set || at.Before(before) {
		a.set(key, at)
	}
}

// due takes the earliest key whose moment has come, or returns the zero key.
func (a *alarms[K]) due(now time.Time) (key K) {
	a.skipReplaced()
	if len(a.queue) == 0 || a.queue[0].at.After(now) {
		return key
	}
	key = heap.Pop(&a.queue).(alarm[K]).key
	delete(a.at, key)
	return key
}

// ring returns a channel that fires at the earliest moment. Each call replaces
// the one before.
func (a *alarms[K]) ring() <-chan time.Time {
	a.skipReplaced()
	if len(a.queue) == 0 {
		return nil
	}
	a.timer.Reset(time.Until(a.queue[0].at))
	return a.timer.C
}

// skipReplaced drops entries whose key has another moment by now.
func (a *alarms[K]) skipReplaced() {
	for len(a.queue) > 0 {
		first := a.queue[0]
		if at, set := a.at[first.key]; set && at.Equal(first.at) {
			return
		}
		heap.Pop(&a.queue)
	}
}

type alarm[K cmp.Ordered] struct {
	key K
	at  time.Time
}

type alarmQueue[K cmp.Ordered] []alarm[K]

func (q alarmQueue[K]) Len() int           { return len(q) }
func (q alarmQueue[K]) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q alarmQueue[K]) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *alarmQueue[K]) Push(x any)        { *q = append(*q, x.(alarm[K])) }
func (q *alarmQueue[K]) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// sorted returns the keys of a set in order.
func sorted[K cmp.Ordered](set map[K]bool) []K {
	keys := make([]K, 0, len(set))
	for key := range set {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
