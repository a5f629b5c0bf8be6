package api

import (
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

func rendered(digits string) swarm.Rendered {
	return swarm.Rendered{
		Revision: swarm.NewRevision("main", digits+strings.Repeat("0", 40-len(digits))), Content: swarm.Digest("of " + digits),
	}
}

// oneStack is a snapshot of stack shop with one replica of content.
func oneStackOf(r swarm.StackRecord, running ...swarm.Task) Snapshot {
	r.Name, r.Source = "shop", "stacks"
	return Snapshot{
		Sources: []swarm.Source{{ID: "stacks", Status: swarm.SourceStatus{Head: r.Head.Revision}}},
		Stacks:  []swarm.StackRecord{r},
		Nodes:   []swarm.Node{{ID: "n1", State: swarm.NodeReady}},
		Tasks:   map[swarm.StackName][]swarm.Task{"shop": running},
		Content: func(digest swarm.Digest) (*swarm.Stack, bool) {
			return &swarm.Stack{Services: []swarm.Service{{Name: "web", Spec: digest, Mode: swarm.Replicated, Replicas: 1}}}, true
		},
	}
}

func runningTask(content string, state swarm.TaskState) swarm.Task {
	return swarm.Task{
		ID: "shop/web.1.x", Service: "shop/web", Slot: 1, Node: "n1", Spec: swarm.Digest("of " + content),
		Desired: swarm.DesiredRun, Status: swarm.TaskStatus{State: state},
	}
}

func TestAWaitEndsAsItsRolloutDid(t *testing.T) {
	old, next := rendered("aaaa"), rendered("bbbb")
	at := func(phase swarm.Phase) swarm.StackRecord {
		return swarm.StackRecord{
			Head: next, Accepted: next, Healthy: old, Rollout: swarm.Rollout{ID: 2, To: next, Phase: phase, Why: "web.1 exited 1"},
		}
	}
	problem := func(kind swarm.ProblemKind) swarm.StackRecord {
		return swarm.StackRecord{
			Head: next, Accepted: old, Healthy: old, Problem: &swarm.Problem{Kind: kind, Text: "text", Plan: "plan-1"},
			Rollout: swarm.Rollout{ID: 1, To: old, Phase: swarm.PhaseHealthy},
		}
	}
	suspended := at(swarm.PhaseProgressing)
	suspended.Suspended = "sale"
	const goesOn = -1

	for _, test := range []struct {
		claim  string
		record swarm.StackRecord
		task   swarm.Task
		goal   Goal
		want   int
	}{
		{"healthy ends well", at(swarm.PhaseHealthy), runningTask("bbbb", swarm.TaskHealthy), Goal{}, CodeHealthy},
		{"healthy with a replica of the old spec goes on: a restart was just asked for", at(swarm.PhaseHealthy), runningTask("aaaa", swarm.TaskHealthy), Goal{}, goesOn},
		{"progressing goes on", at(swarm.PhaseProgressing), runningTask("aaaa", swarm.TaskHealthy), Goal{}, goesOn},
		{"waiting goes on", at(swarm.PhaseWaiting), runningTask("aaaa", swarm.TaskHealthy), Goal{}, goesOn},
		{"rolling back goes on", at(swarm.PhaseRollingBack), runningTask("aaaa", swarm.TaskHealthy), Goal{}, goesOn},
		{"rolled back is a failure", at(swarm.PhaseRolledBack), runningTask("aaaa", swarm.TaskHealthy), Goal{}, CodeFailed},
		{"a failed rollback is one", at(swarm.PhaseFailed), runningTask("aaaa", swarm.TaskHealthy), Goal{}, CodeFailed},
		{"so is paused", at(swarm.PhasePaused), runningTask("aaaa", swarm.TaskHealthy), Goal{}, CodeFailed},
		{"an earlier failure does not count", at(swarm.PhaseFailed), runningTask("aaaa", swarm.TaskHealthy), Goal{After: 2}, goesOn},
		{"what is not a stack is refused", problem(swarm.ProblemLoad), runningTask("aaaa", swarm.TaskHealthy), Goal{}, CodeRefused},
		{"what policy denies is refused", problem(swarm.ProblemPolicy), runningTask("aaaa", swarm.TaskHealthy), Goal{}, CodeRefused},
		{"what waits for approval is held", problem(swarm.ProblemApproval), runningTask("aaaa", swarm.TaskHealthy), Goal{}, CodeHeld},
		{"what is in quarantine failed", problem(swarm.ProblemQuarantine), runningTask("aaaa", swarm.TaskHealthy), Goal{}, CodeFailed},
		{"a missing image solves itself", problem(swarm.ProblemWaiting), runningTask("aaaa", swarm.TaskHealthy), Goal{}, goesOn},
		{"a rollback by hand does not ask after the newest commit", problem(swarm.ProblemQuarantine), runningTask("aaaa", swarm.TaskHealthy), Goal{Accepted: true}, CodeHealthy},
		{"suspended is held", suspended, runningTask("aaaa", swarm.TaskHealthy), Goal{}, CodeHeld},
		{"a commit that was not seen goes on", at(swarm.PhaseHealthy), runningTask("bbbb", swarm.TaskHealthy), Goal{Revision: "cccc"}, goesOn},
		{"the newest commit is its own revision", at(swarm.PhaseHealthy), runningTask("bbbb", swarm.TaskHealthy), Goal{Revision: "main@bbbb"}, CodeHealthy},
		{"the same commit of another branch is not", at(swarm.PhaseHealthy), runningTask("bbbb", swarm.TaskHealthy), Goal{Revision: "dev@bbbb"}, goesOn},
	} {
		shot := oneStackOf(test.record, test.task)
		var sight Sight
		sight.Look(shot, test.goal.Revision)
		outcome, pending, ok := shot.JudgeAll(test.goal, sight)
		got := outcome.Code
		if !ok {
			got = goesOn
		}
		if got != test.want {
			t.Errorf("%s: got %d (%+v, %q), want %d", test.claim, got, outcome, pending, test.want)
		}
		if ok == (len(pending) > 0) {
			t.Errorf("%s: ended is %v, pending %q", test.claim, ok, pending)
		}
	}
}

func TestHistoryAnswersForRevisionsThatAreOver(t *testing.T) {
	newest := rendered("dddd")
	record := swarm.StackRecord{
		Head: newest, Accepted: newest, Rollout: swarm.Rollout{ID: 9, To: newest, Phase: swarm.PhaseProgressing},
		History: []swarm.Ended{
			{ID: 4, To: rendered("cccc"), Phase: swarm.PhaseSuperseded},
			{ID: 3, To: rendered("bbbb"), Phase: swarm.PhaseRolledBack, Why: "web.1 exited 1"},
			{ID: 2, To: rendered("aaaa"), Phase: swarm.PhaseHealthy},
		},
	}
	for digits, want := range map[string]int{"aaaa": CodeHealthy, "bbbb": CodeFailed, "cccc": CodeSuperseded} {
		outcome, _, ok := oneStackOf(record).JudgeAll(Goal{Revision: digits}, Sight{})
		if !ok || outcome.Code != want {
			t.Errorf("%s: %+v, %v; want %d", digits, outcome, ok, want)
		}
	}
}

func TestOfSeveralStacksTheWorstEndCounts(t *testing.T) {
	order := []int{CodeHealthy, CodeSuperseded, CodeHeld, CodeRefused, CodeFailed}
	for i, better := range order {
		for _, bad := range order[i+1:] {
			if !worse(bad, better) || worse(better, bad) {
				t.Errorf("%d does not hide %d", bad, better)
			}
		}
	}
}

func TestServicesThatAreMeantToEndAreWellOnceTheyHave(t *testing.T) {
	for _, test := range []struct {
		claim   string
		service swarm.Service
		state   swarm.TaskState
		want    Runtime
	}{
		{"a job that completed", swarm.Service{Mode: swarm.ReplicatedJob}, swarm.TaskComplete, RuntimeHealthy},
		{"a one-shot that completed", swarm.Service{Mode: swarm.Replicated, Restart: swarm.RestartPolicy{Condition: swarm.RestartOnFailure}}, swarm.TaskComplete, RuntimeHealthy},
		{"a server that ended", swarm.Service{Mode: swarm.Replicated, Restart: swarm.RestartPolicy{Condition: swarm.RestartAny}}, swarm.TaskComplete, RuntimeDown},
		{"a job that failed", swarm.Service{Mode: swarm.ReplicatedJob}, swarm.TaskFailed, RuntimeDown},
	} {
		test.service.Name, test.service.Replicas = "web", 1
		shot := oneStackOf(swarm.StackRecord{})
		if got := shot.serviceOf(shot.Stacks[0], test.service, []swarm.Task{runningTask("", test.state)}).Runtime; got != test.want {
			t.Errorf("%s is %s, want %s", test.claim, got, test.want)
		}
	}
}

func TestNounsAreShownInCamelCaseWithoutWhatIsZero(t *testing.T) {
	exit := 0
	got := plainStructOf(swarm.Task{
		ID: "shop/web.1.x", Desired: swarm.DesiredRun, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Addresses: []swarm.Address{{Network: "shop/default", IP: "10.0.0.2"}}, Status: swarm.TaskStatus{Exit: &exit},
	})
	if got["id"] != "shop/web.1.x" || got["desired"] != "run" || got["created"] != "2026-01-02T03:04:05Z" || len(got) != 5 {
		t.Errorf("task is shown as %v", got)
	}
	if spec := plainStructOf(swarm.TaskSpec{StopGrace: 10 * time.Second, HostPID: true}); spec["stopGrace"] != "10s" || spec["hostPID"] != true {
		t.Errorf("spec is shown as %v", spec)
	}
	for name, want := range map[string]string{"VIPs": "vips", "NanoCPUs": "nanoCPUs", "MTU": "mtu", "UID": "uid", "SSHKey": "sshKey"} {
		if got := camel(name); got != want {
			t.Errorf("%s is written %s, want %s", name, got, want)
		}
	}
}
