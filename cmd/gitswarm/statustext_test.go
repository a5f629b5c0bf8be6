package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/swarm"
)

// golden compares text with a file of testdata; UPDATE=1 rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// drawing builds a snapshot from nouns.
type drawing struct {
	api.Snapshot
	contents map[swarm.Digest]*swarm.Stack
	tasks    int
}

func newDrawing(now time.Time) *drawing {
	d := &drawing{contents: map[swarm.Digest]*swarm.Stack{}}
	d.Now, d.Tasks = now, map[swarm.StackName][]swarm.Task{}
	d.Content = func(digest swarm.Digest) (*swarm.Stack, bool) {
		stack, ok := d.contents[digest]
		return stack, ok
	}
	return d
}

func (d *drawing) node(name, role string, state swarm.NodeState, since time.Duration) {
	d.Nodes = append(d.Nodes, swarm.Node{
		ID: swarm.NodeID(name), State: state, Role: role, Since: d.Now.Add(-since), Availability: swarm.NodeActive,
		Description: swarm.NodeDescription{Hostname: name},
	})
}

func (d *drawing) rendered(name, digits, author, subject string, replicas map[string]int) swarm.Rendered {
	content := &swarm.Stack{Name: swarm.StackName(name)}
	for _, service := range []string{"api", "cache", "db", "web"} {
		if n := replicas[service]; n > 0 {
			content.Services = append(content.Services, swarm.Service{
				Name: service, Spec: swarm.Digest(digits + service), Mode: swarm.Replicated, Replicas: n, Deadline: 10 * time.Minute,
			})
		}
	}
	digest := swarm.Digest(name + digits)
	d.contents[digest] = content
	return swarm.Rendered{Revision: commit(digits), Content: digest, Author: author, Subject: subject}
}

func (d *drawing) task(name, service string, slot int, spec string, state swarm.TaskState) *swarm.Task {
	d.tasks++
	stack := swarm.StackName(name)
	d.Tasks[stack] = append(d.Tasks[stack], swarm.Task{
		ID: swarm.TaskID(fmt.Sprintf("%s/%s.%d.%d", name, service, slot, d.tasks)), Service: swarm.NewServiceID(stack, service),
		Slot: slot, Node: "m1", Spec: swarm.Digest(spec + service), Desired: swarm.DesiredRun,
		Created: d.Now.Add(time.Duration(d.tasks-1000) * time.Second), Status: swarm.TaskStatus{State: state},
	})
	return &d.Tasks[stack][len(d.Tasks[stack])-1]
}

func (d *drawing) healthy(name string, over time.Duration) *swarm.StackRecord {
	is := d.rendered(name, "3f2c91a", "Ana", "begin", map[string]int{"web": 1})
	d.task(name, "web", 1, "3f2c91a", swarm.TaskHealthy)
	d.Stacks = append(d.Stacks, swarm.StackRecord{
		Name: swarm.StackName(name), Source: "stacks", Head: is, Accepted: is, Healthy: is,
		Rollout: swarm.Rollout{ID: 1, To: is, Phase: swarm.PhaseHealthy, Began: d.Now.Add(-over), Over: d.Now.Add(-over)},
	})
	return &d.Stacks[len(d.Stacks)-1]
}

func render(d *drawing, all bool) string {
	var out bytes.Buffer
	(&app{}).writeStatus(&out, api.NewStatus(d.Snapshot), all)
	return out.String()
}

// The page of the design: forty stacks on three managers and six workers, one
// of which is down, one stack that went back and one that is being rolled out.
func TestStatusPageIsTheOneThatTheDesignDraws(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	d := newDrawing(now)
	for _, name := range []string{"m1", "m2", "m3"} {
		d.node(name, "manager", swarm.NodeReady, 0)
	}
	for _, name := range []string{"w1", "w3", "w4", "w5", "w6"} {
		d.node(name, "worker", swarm.NodeReady, 0)
	}
	d.node("w2", "worker", swarm.NodeDown, 4*time.Minute)
	d.Sources = []swarm.Source{{ID: "stacks", Status: swarm.SourceStatus{Head: commit("3f2c91a"), Seen: now.Add(-12 * time.Second)}}}

	blog := d.rendered("blog", "b81e004", "Bo", "begin", map[string]int{"db": 1, "web": 2})
	bad := d.rendered("blog", "77aa102", "Bo", "break it", map[string]int{"db": 1, "web": 2})
	d.task("blog", "db", 1, "b81e004", swarm.TaskHealthy)
	d.task("blog", "web", 1, "b81e004", swarm.TaskHealthy)
	d.task("blog", "web", 2, "b81e004", swarm.TaskHealthy)
	why := "web.1 exited 1 after 2s"
	d.Stacks = append(d.Stacks, swarm.StackRecord{
		Name: "blog", Source: "stacks", Head: bad, Accepted: bad, Healthy: blog,
		Quarantine: []swarm.Quarantined{{Content: bad.Content, Revision: bad.Revision, Why: why}},
		Rollout:    swarm.Rollout{ID: 2, From: blog, To: bad, Phase: swarm.PhaseRolledBack, Why: why, FailedBy: "web.1", Over: now.Add(-2 * time.Minute)},
	})
	for i := range 38 {
		d.healthy(fmt.Sprintf("s%02d", i), time.Hour)
	}
	d.shop(now)
	d.lostTasks(now)
	golden(t, "status-design.txt", render(d, false))
	if all := render(d, true); strings.Count(all, "synced") != 38 || strings.Contains(all, "…") {
		t.Errorf("-a does not list every stack:\n%s", all)
	}
}

// A manager is down, a worker is being emptied, and then the quorum goes.
func TestStatusPageSaysWhatManagersAndDrainedNodesNeed(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	d := newDrawing(now)
	d.node("m1", "manager", swarm.NodeReady, 0)
	d.node("m2", "manager", swarm.NodeReady, 0)
	d.node("m3", "manager", swarm.NodeDown, 3*time.Minute)
	d.node("w1", "worker", swarm.NodeReady, 0)
	d.Nodes[3].Availability = swarm.NodeDrained
	d.healthy("shop", time.Hour)
	d.task("shop", "web", 1, "3f2c91a", swarm.TaskHealthy).Node = "w1"
	page := api.NewStatus(d.Snapshot)
	var out bytes.Buffer
	(&app{}).writeStatus(&out, page, true)

	page.Leaderless = &api.Leaderless{
		Text:   "quorum lost: 2 of 3 managers do not answer: m2 (10.0.0.2:2377), m3 (10.0.0.3:2377); running containers go on, nothing is changed",
		Remedy: "start them, or their links; if they are lost for good, docs/recovery.md: gitswarm init --force-new-cluster",
	}
	page.Managers = api.Count{Well: 1, Of: 3}
	fmt.Fprintln(&out)
	(&app{}).writeStatus(&out, page, true)
	golden(t, "status-cluster.txt", out.String())
}

// shop has two of five web replicas replaced; the image of the third is pulled.
func (d *drawing) shop(now time.Time) {
	was := map[string]int{"api": 2, "cache": 1, "db": 1, "web": 5}
	shop := d.rendered("shop", "aaaa000", "Ana", "begin", was)
	next := d.rendered("shop", "3f2c91a", "Ana", "raise web to 5", was)
	for _, service := range d.contents[next.Content].Services {
		for slot := 1; slot <= service.Replicas; slot++ {
			spec := "3f2c91a"
			if service.Name == "web" && slot > 2 {
				spec = "aaaa000"
			}
			d.task("shop", service.Name, slot, spec, swarm.TaskHealthy)
		}
	}
	pulling := d.task("shop", "web", 3, "3f2c91a", swarm.TaskPreparing)
	pulling.Status.Pulled, pulling.Node, pulling.Desired = 61, "w4", swarm.DesiredPrepare
	starting := d.task("shop", "web", 4, "3f2c91a", swarm.TaskStarting)
	starting.Rollout, starting.Touched = 2, now.Add(-90*time.Second)
	d.Stacks = append(d.Stacks, swarm.StackRecord{
		Name: "shop", Source: "stacks", Head: next, Accepted: next, Healthy: shop,
		Rollout: swarm.Rollout{ID: 2, From: shop, To: next, Phase: swarm.PhaseProgressing, Began: now},
	})
}

// lostTasks are twelve that ran on w2: eleven run elsewhere, one waits.
func (d *drawing) lostTasks(now time.Time) {
	for slot := 1; slot <= 12; slot++ {
		name, service := "s01", "lost"
		if slot == 12 {
			service = "db"
		}
		old := d.task(name, service, slot%11, "x", swarm.TaskLost)
		old.Node, old.Excused, old.Desired = "w2", "node lost", swarm.DesiredRemove
		id := old.ID
		successor := d.task(name, service, slot%11, "x", swarm.TaskHealthy)
		successor.Replaces = id
		if slot == 12 {
			successor.Status = swarm.TaskStatus{State: swarm.TaskNew, Message: "waits for volume db@w2"}
		}
	}
}

// Every sync and runtime, one stack each, with the line that says what to type.
func TestStatusNamesEveryTroubleAndItsRemedy(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	d := newDrawing(now)
	d.node("m1", "manager", swarm.NodeReady, 0)
	d.node("m2", "manager", swarm.NodeUnknown, 0)
	d.Sources = []swarm.Source{
		{ID: "more", Status: swarm.SourceStatus{Problem: "host key of git.example is unknown", Since: now.Add(-3 * time.Hour), Seen: now.Add(-3 * time.Hour)}},
		{ID: "stacks", Status: swarm.SourceStatus{Head: commit("3f2c91a"), Seen: now.Add(-12 * time.Second)}},
	}
	next := func(name string) swarm.Rendered {
		return d.rendered(name, "77aa102", "Bo", "next", map[string]int{"web": 1})
	}
	held := func(name string, kind swarm.ProblemKind, text string) *swarm.StackRecord {
		r := d.healthy(name, time.Hour)
		r.Head = swarm.Rendered{Revision: commit("77aa102")}
		r.Problem = &swarm.Problem{Kind: kind, Text: text}
		return r
	}

	d.healthy("a-calm", time.Hour)
	down := d.healthy("b-down", time.Hour)
	d.Tasks[down.Name][0].Status = swarm.TaskStatus{State: swarm.TaskFailed, Message: "exited 137 after 3m"}
	held("c-load", swarm.ProblemLoad, "compose.yaml:3: yaml: mapping values are not allowed here")
	policy := held("d-policy", swarm.ProblemPolicy, "2 rules refuse it")
	policy.Problem.Refuse = []swarm.Finding{
		{File: "d/compose.yaml", Line: 7, Text: "web is privileged: ask for a grant"}, {File: "d/compose.yaml", Line: 9, Text: "x"},
	}
	approval := held("e-approval", swarm.ProblemApproval, "removes 3 of 10 services")
	approval.Problem.Plan = "plan-4"
	held("f-waiting", swarm.ProblemWaiting, "image web:9 is not in registry.example")
	d.healthy("g-suspended", time.Hour).Suspended = "sale on Friday"
	paused := d.healthy("h-paused", time.Hour)
	paused.Accepted = next("h-paused")
	paused.Rollout = swarm.Rollout{ID: 2, To: paused.Accepted, Phase: swarm.PhasePaused, Why: "web.1 never turned healthy"}
	failed := d.healthy("i-failed", time.Hour)
	failed.Healthy, failed.Accepted = swarm.Rendered{}, next("i-failed")
	failed.Rollout = swarm.Rollout{ID: 1, To: failed.Accepted, Phase: swarm.PhaseFailed, Why: "web.1 exited 3 after 1s", FailedBy: "web.1", Over: now.Add(-time.Minute)}
	d.healthy("j-stale", time.Hour).Source = "more"
	d.healthy("k-removing", time.Hour).Removing = true
	d.healthy("l-unseen", time.Hour)
	d.Tasks["l-unseen"][0].Node = "m2"
	back := d.healthy("m-back", time.Hour)
	back.Accepted = next("m-back")
	back.Rollout = swarm.Rollout{ID: 2, To: back.Accepted, Phase: swarm.PhaseRollingBack, Why: "web.1 is unhealthy"}
	golden(t, "status-troubles.txt", render(d, false))
}

func TestTablesAlignWhateverTheirCellsHold(t *testing.T) {
	var out bytes.Buffer
	list := (&app{paint: true}).table("NAME", "STATE", "NOTE")
	list.add("süß", "healthy", "-")
	list.add("longer-name", "failed", "why")
	list.write(&out)
	plain := strings.NewReplacer("\x1b[0m", "", "\x1b[1m", "", "\x1b[31m", "", "\x1b[32m", "").Replace(out.String())
	want := "NAME         STATE    NOTE\nsüß          healthy  -\nlonger-name  failed   why\n"
	if plain != want {
		t.Errorf("got\n%s\nwant\n%s", plain, want)
	}
	if !strings.Contains(out.String(), "\x1b[31mfailed\x1b[0m") {
		t.Errorf("failed is not red: %q", out.String())
	}
}
