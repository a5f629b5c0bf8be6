package manager

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestAlarmsRingInOrderAndOnceForEachKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAlarms[string]()
		start := time.Now()
		a.set("late", start.Add(3*time.Second))
		a.set("early", start.Add(time.Second))
		a.set("moved", start.Add(time.Second))
		a.set("moved", start.Add(2*time.Second))
		a.set("gone", start.Add(time.Second))
		a.set("gone", time.Time{})

		for _, want := range []string{"early", "moved", "late"} {
			<-a.ring()
			if got := a.due(time.Now()); got != want {
				t.Errorf("after %s %q is due, want %q", time.Since(start), got, want)
			}
		}
		if a.ring() != nil {
			t.Error("it would ring again")
		}
	})
}

func TestTheEarliestAlarmIsAlwaysTheNext(t *testing.T) {
	start := time.Unix(1e9, 0)
	rapid.Check(t, func(t *rapid.T) {
		a := newAlarms[int]()
		set := make(map[int]time.Time)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			key := rapid.IntRange(1, 8).Draw(t, "key")
			at := start.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "at")) * time.Second)
			if rapid.Bool().Draw(t, "take away") {
				a.set(key, time.Time{})
				delete(set, key)
			} else {
				a.set(key, at)
				set[key] = at
			}
		}
		for last := start; len(set) > 0; {
			key := a.due(start.Add(time.Hour))
			at, known := set[key]
			if !known || at.Before(last) {
				t.Fatalf("key %d at %v came after %v", key, at, last)
			}
			last = at
			delete(set, key)
		}
		if key := a.due(start.Add(time.Hour)); key != 0 {
			t.Fatalf("key %d is due and was never set", key)
		}
	})
}
