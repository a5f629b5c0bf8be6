package converge

import (
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestAMachineThatRestartsGoesOnWithWhatItWasToRun(t *testing.T) {
	ran := Observed{Task: "a", Last: swarm.TaskStatus{State: swarm.TaskHealthy}, Traces: true, Container: Exited, Lost: true}
	seen, again := ran.Revived(&swarm.AssignedTask{ID: "a", Desired: swarm.DesiredRun})
	if !again {
		t.Fatal("the task is over, want it to begin again")
	}
	want := &swarm.AssignedTask{ID: "a", Desired: swarm.DesiredRun}
	var verbs []Verb
	for verb := Step(want, seen); verb != Rest; verb = Step(want, seen) {
		if status := Status(want, seen); status.State != swarm.TaskHealthy {
			t.Fatalf("before %s it is %s, want healthy: a state never goes back", verb, status.State)
		}
		verbs = append(verbs, verb)
		switch verb {
		case Fetch:
			seen.Fetched = true
		case Attach:
			seen.Attached = true
		case Create:
			seen.Container = Created
		case Start:
			seen.Container, seen.Again = Running, false
		default:
			t.Fatalf("it came to %s", verb)
		}
	}
	if len(verbs) != 4 {
		t.Errorf("it took %v, want fetch, attach, create, start", verbs)
	}

	seen.Container, seen.Exit = Exited, 1
	if status := Status(want, seen); status.State != swarm.TaskFailed {
		t.Errorf("it ended by itself and is %s, want failed", status.State)
	}
}

func TestWhatWasNotToRunEndsWithItsMachine(t *testing.T) {
	ran := Observed{Task: "a", Last: swarm.TaskStatus{State: swarm.TaskHealthy}, Container: Exited, Lost: true}
	for claim, c := range map[string]struct {
		want *swarm.AssignedTask
		seen Observed
	}{
		"nobody asks for it":  {nil, ran},
		"it is to stop":       {&swarm.AssignedTask{Desired: swarm.DesiredStop}, ran},
		"it is a job":         {&swarm.AssignedTask{Desired: swarm.DesiredRun, Job: true}, ran},
		"it had ended before": {&swarm.AssignedTask{Desired: swarm.DesiredRun}, Observed{Last: swarm.TaskStatus{State: swarm.TaskFailed}, Container: Exited}},
		"it runs":             {&swarm.AssignedTask{Desired: swarm.DesiredRun}, Observed{Last: ran.Last, Container: Running}},
	} {
		if _, again := c.seen.Revived(c.want); again {
			t.Errorf("%s, and it would begin again", claim)
		}
	}
}
