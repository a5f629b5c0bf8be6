package reconciler

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/gitswarm/gitswarm/swarm"
)

var update = flag.Bool("update", false, "rewrite the timelines of the stories; review the difference")

// TestStories plays every story of testdata: what the stack is, how its images
// behave, what people do; and compares what happened.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("find stories: %d files, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) { tell(t, file) })
	}
}

func tell(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	story := &story{cluster: newCluster("n1", "n2", "n3"), stacks: map[string]*swarm.Stack{}}
	story.cluster.observe = watchRules()
	var want *txtar.File
	for i := range archive.Files {
		f := &archive.Files[i]
		switch kind, name, _ := strings.Cut(f.Name, " "); kind {
		case "stack":
			story.stacks[name] = parseStack(t, string(f.Data))
		case "images":
			story.images(t, string(f.Data))
		case "script":
			story.play(t, string(f.Data))
		case "timeline":
			want = f
		default:
			t.Fatalf("%s: unknown section %q", file, f.Name)
		}
	}

	got := []byte(story.cluster.out.String())
	if story.cluster.problem != "" {
		t.Errorf("%s", story.cluster.problem)
	}
	if *update {
		if want == nil {
			archive.Files = append(archive.Files, txtar.File{Name: "timeline"})
			want = &archive.Files[len(archive.Files)-1]
		}
		want.Data = got
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want == nil || !bytes.Equal(want.Data, got) {
		t.Errorf("the timeline differs; with -update it is rewritten. Got:\n%s", got)
	}
}

// story is a cluster and what its script speaks of.
type story struct {
	cluster *cluster
	stacks  map[string]*swarm.Stack
}

func (s *story) images(t *testing.T, text string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			s.cluster.acts = append(s.cluster.acts, parseAct(t, line))
		}
	}
}

func (s *story) play(t *testing.T, script string) {
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		s.cluster.say("> %s", line)
		verb, rest, _ := strings.Cut(line, " ")
		s.do(t, verb, rest)
	}
}

// do carries out one line of a script.
func (s *story) do(t *testing.T, verb, rest string) {
	c := s.cluster
	switch verb {
	case "accept":
		if s.stacks[rest] == nil {
			t.Fatalf("no stack %q", rest)
		}
		c.accept(rest, s.stacks[rest])
		c.record.Removing = false
		c.settle()
	case "retry":
		c.record.Quarantine = nil
		s.changed()
	case "rollback":
		c.record.Quarantine = append(c.record.Quarantine, swarm.Quarantined{Content: c.record.Accepted.Content})
		c.record.Accepted = c.record.Healthy
		s.changed()
	case "wait":
		c.run(duration(t, rest), nil)
	case "finish":
		c.run(24*time.Hour, c.over)
	case "node":
		s.node(t, rest)
	case "scale":
		service, replicas, _ := strings.Cut(rest, "=")
		c.record.Scale = maps.Clone(c.record.Scale)
		if c.record.Scale == nil {
			c.record.Scale = map[string]int{}
		}
		c.record.Scale[service] = atoi(t, replicas)
		s.changed()
	case "restart":
		c.record.Generation = maps.Clone(c.record.Generation)
		if c.record.Generation == nil {
			c.record.Generation = map[string]uint64{}
		}
		c.record.Generation[rest]++
		s.changed()
	case "suspend", "resume":
		c.record.Suspended = map[string]string{"suspend": "by ana"}[verb]
		s.changed()
	case "remove":
		c.record.Removing = true
		s.changed()
	case "lead":
		c.record.Rollout.Opened = c.now
		c.settle()
	case "obstacle":
		c.obstacles = []string{rest}
		c.settle()
	case "clear":
		c.obstacles, c.full = nil, false
		c.settle()
	case "full":
		c.full = true
	case "others": // tasks of other stacks on a node
		node, number, _ := strings.Cut(rest, "=")
		c.others[swarm.NodeID(node)] = atoi(t, number)
	case "history": // ended tasks to keep for a slot
		c.history = atoi(t, rest)
	case "rebalance":
		c.record.Rebalance = true
		s.changed()
	case "image":
		c.acts = append(c.acts, parseAct(t, rest))
	case "kill":
		s.kill(t, rest)
	case "plan":
		for step := range strings.Lines(Diff(c.view()).String()) {
			c.say("  %s", strings.TrimSuffix(step, "\n"))
		}
	case "ps":
		s.ps()
	case "status":
		s.status()
	default:
		t.Fatalf("unknown verb %q", verb)
	}
}

func (s *story) changed() {
	s.cluster.record.Version++
	s.cluster.settle()
}

func (s *story) node(t *testing.T, rest string) {
	c := s.cluster
	words := strings.Fields(rest)
	id := swarm.NodeID(words[0])
	switch word := words[1]; word {
	case "join":
		c.join(id)
	case "gone":
		c.remove(id)
	case "label":
		key, value, _ := strings.Cut(words[2], "=")
		c.nodes[id].Labels = map[string]string{key: value}
	case "tight", "roomy":
		c.tight[id] = word == "tight"
	case "unlabel":
		c.nodes[id].Labels = nil
	case "active", "paused", "drained":
		c.nodes[id].Availability = swarm.Availability(word)
	case "ready", "down", "unknown":
		c.nodes[id].State = swarm.NodeState(word)
	default:
		t.Fatalf("unknown node word %q", word)
	}
	c.settle()
}

// kill ends the running task of a seat from outside.
func (s *story) kill(t *testing.T, seat string) {
	for _, id := range slices.Sorted(maps.Keys(s.cluster.tasks)) {
		if task := s.cluster.tasks[id]; seatName(*task) == seat && task.Status.State.Running() {
			s.cluster.end(task, life{exit: 137})
			s.cluster.settle()
			return
		}
	}
	t.Fatalf("nothing runs in %s", seat)
}

func (s *story) ps() {
	c := s.cluster
	names := map[string]swarm.TaskID{}
	for id := range c.tasks {
		names[c.names[id]] = id
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		task := c.tasks[names[name]]
		c.say("  %s %s %s %s", name, c.images[task.Spec], task.Desired, task.Status.State)
	}
}

func (s *story) status() {
	r := s.cluster.record
	s.cluster.say("  %s accepted, %s healthy, rollout %d %s: %q",
		r.Accepted.Revision.Short(), r.Healthy.Revision.Short(), r.Rollout.ID, r.Rollout.Phase, r.Rollout.Why)
	for _, ended := range r.History {
		s.cluster.say("  rollout %d to %s ended %s", ended.ID, ended.To.Revision.Short(), ended.Phase)
	}
}

func duration(t *testing.T, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func atoi(t *testing.T, text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
