package converge

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestNextCoversAssignedAndObservedTasksInOrder(t *testing.T) {
	assignment := swarm.Assignment{Tasks: []swarm.AssignedTask{
		{ID: "a", Desired: swarm.DesiredRun},
		{ID: "c", Desired: swarm.DesiredRun},
		{ID: "d", Desired: swarm.DesiredStop},
	}}
	observed := []Observed{
		{Task: "d", Fetched: true, Container: Running, Left: true},
		{Task: "c", Fetched: true, Container: Running},
		{Task: "b", Container: Running},
	}
	want := []Action{{Fetch, "a"}, {Leave, "b"}, {Stop, "d"}}
	if got := Next(assignment, observed); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Whatever happens in whatever order: a state never goes back, a task comes to
// rest, a task that was not asked to run is not started, and one that is over
// is never started again.
func TestStateNeverGoesBackAndEveryTaskComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := &node{seen: Observed{Task: "a"}, now: time.Unix(0, 0), check: &swarm.Healthcheck{Retries: 2}}
		desired := swarm.DesiredPrepare
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			switch rapid.IntRange(0, 6).Draw(t, "event") {
			case 0, 1:
				desired = max(desired, swarm.Desired(10*rapid.IntRange(1, 5).Draw(t, "desired")))
			case 2:
				n.refuse = &Refusal{Cause: swarm.CauseContent}
			case 3:
				if n.seen.Container == Running {
					n.end(rapid.IntRange(0, 2).Draw(t, "code"), false)
				}
			case 4:
				n.now = n.now.Add(time.Minute)
				p := Probe{At: n.now, Exit: rapid.IntRange(0, 1).Draw(t, "probe")}
				n.seen.Health = n.seen.Health.After(*n.check, n.seen.Started, p)
			case 5:
				n.restart(rapid.SampledFrom([]string{"absent", "running", "exited"}).Filter(n.plausible).Draw(t, "container"))
			case 6:
				n.seen.Left = true
			}
			n.want = &swarm.AssignedTask{ID: "a", Desired: desired}
			n.settleOr(t.Fatalf)
		}
	})
}

// plausible reports whether a restart may find the container so: what never
// ran is not found running.
func (n *node) plausible(container string) bool {
	return container == "absent" || n.seen.Container >= Running
}

func (n *node) settleOr(fatalf func(string, ...any)) {
	for range 20 {
		status := Status(n.want, n.seen)
		if status.State < n.seen.Last.State {
			fatalf("the task went back from %s to %s", n.seen.Last.State, status.State)
		}
		n.seen.Last = status
		verb := Step(n.want, n.seen)
		if verb == Rest {
			return
		}
		if verb == Start && (n.want.Desired != swarm.DesiredRun || !status.State.Live()) {
			fatalf("a task that is %s and should %s was started", status.State, n.want.Desired)
		}
		n.do(verb)
	}
	fatalf("the task never comes to rest: %+v", n.seen)
}

func TestProbesComeEarlyAndThenMoreRarely(t *testing.T) {
	check := swarm.Healthcheck{Interval: 30 * time.Second}
	started := time.Unix(0, 0)
	var (
		h    Health
		last time.Time
		at   []time.Duration
	)
	for range 9 {
		last = h.NextProbe(check, started, last)
		at = append(at, last.Sub(started))
		h = h.After(check, started, Probe{At: last, Exit: 1})
	}
	want := []time.Duration{250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 60000}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(at, want) {
		t.Errorf("probes at %v, want %v", at, want)
	}
	if h.Failed != 2 {
		t.Errorf("%d failures count, want the 2 after the first interval", h.Failed)
	}
}
