package converge

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/gitswarm/gitswarm/swarm"
)

var update = flag.Bool("update", false, "rewrite the expected parts of the stories")

// A story is told to a node that does at once what Step asks. Each line of
// "events" is one thing that happens; "expect" shows what followed.
//
//	want prepare|run|drain|stop|remove   the assignment names the task
//	gone                                 it no longer does
//	saved                                and that is on disk
//	check key=value…                     the spec has a health check
//	wait 3s                              time passes
//	probe 1 "text"                       a probe ends
//	exit 1 [oom]                         the container ends by itself
//	refuse content|environment TEXT      the next verb fails
//	restart [container]                  the agent starts anew and finds the container absent, created, running or exited
func TestStories(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("stories: %d, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { play(t, path) })
	}
}

func play(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{seen: Observed{Task: "shop/web.1.a"}, start: time.Unix(1000, 0)}
	n.now = n.start
	for line := range strings.Lines(string(archive.Files[0].Data)) {
		n.happen(t, strings.TrimSpace(line))
	}

	got := n.told.String()
	if *update {
		archive.Files = append(archive.Files[:1], txtar.File{Name: "expect", Data: []byte(got)})
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if len(archive.Files) < 2 || got != string(archive.Files[1].Data) {
		t.Errorf("%sgot\n%s", archive.Comment, got)
	}
}

// node is a fake that prints itself.
type node struct {
	want       *swarm.AssignedTask
	seen       Observed
	check      *swarm.Healthcheck
	refuse     *Refusal
	start, now time.Time
	told       strings.Builder
}

func (n *node) happen(t *testing.T, event string) {
	t.Helper()
	fmt.Fprintf(&n.told, "%s\n", event)
	words := strings.Fields(event)
	switch words[0] {
	case "want":
		n.want = &swarm.AssignedTask{ID: n.seen.Task, Desired: desiredOf(t, words[1])}
	case "gone":
		n.want = nil
	case "saved":
		n.seen.Saved = true
	case "check":
		n.check = checkOf(t, words[1:])
		return
	case "wait":
		n.now = n.now.Add(durationOf(t, words[1]))
	case "probe":
		n.probe(t, words[1], strings.Join(words[2:], " "))
	case "exit":
		n.end(numberOf(t, words[1]), len(words) > 2)
	case "refuse":
		n.refuse = &Refusal{Cause: swarm.Cause(words[1]), Message: strings.Join(words[2:], " ")}
		return
	case "restart":
		n.restart(words[1])
	default:
		t.Fatalf("story has no event %q", event)
	}
	n.settle(t)
}

func (n *node) settle(t *testing.T) {
	t.Helper()
	for range 20 {
		status := Status(n.want, n.seen)
		if fmt.Sprint(status) != fmt.Sprint(n.seen.Last) {
			fmt.Fprintf(&n.told, "    is %s\n", show(status))
		}
		if status.State < n.seen.Last.State {
			t.Fatalf("the task went back from %s to %s", n.seen.Last.State, status.State)
		}
		n.seen.Last = status

		verb := Step(n.want, n.seen)
		if verb == Rest {
			return
		}
		fmt.Fprintf(&n.told, "    %s\n", verb)
		if verb == Forget {
			n.seen = Observed{Task: n.seen.Task}
			return
		}
		n.do(verb)
	}
	t.Fatalf("the task never comes to rest:\n%s", n.told.String())
}

func (n *node) do(verb Verb) {
	if n.refuse != nil {
		n.seen.Refused, n.refuse = n.refuse, nil
		return
	}
	switch verb {
	case Fetch:
		n.seen.Fetched, n.seen.Check = true, n.check
	case Attach:
		n.seen.Attached = true
	case Create:
		n.seen.Container, n.seen.Traces = Created, true
	case Start:
		n.seen.Container, n.seen.Started = Running, n.now
	case Leave:
		n.seen.Left = true
	case Stop:
		n.end(143, false)
	case Remove:
		n.seen.Container, n.seen.Traces = Absent, false
	}
}

func (n *node) end(code int, oom bool) {
	n.seen.Container, n.seen.Exit, n.seen.OOM, n.seen.Ended = Exited, code, oom, n.now
}

func (n *node) probe(t *testing.T, code, output string) {
	n.seen.Health = n.seen.Health.After(*n.check, n.seen.Started, Probe{At: n.now, Exit: numberOf(t, code), Output: output})
	next := n.seen.Health.NextProbe(*n.check, n.seen.Started, n.now)
	fmt.Fprintf(&n.told, "    next probe %s after the start\n", next.Sub(n.seen.Started))
}

func (n *node) restart(container string) {
	was := n.seen
	n.seen = Observed{Task: was.Task, Last: was.Last, Started: was.Started, Health: Health{Passed: was.Last.State == swarm.TaskHealthy}}
	for c, name := range []string{"absent", "created", "running", "exited"} {
		if name == container {
			n.seen.Container = Container(c)
		}
	}
	n.seen.Traces = n.seen.Container != Absent
}

func show(s swarm.TaskStatus) string {
	text := s.State.String()
	if s.Message != "" {
		text += ", " + s.Message
	}
	if s.Cause != "" {
		text += " (" + string(s.Cause) + ")"
	}
	return text
}

func checkOf(t *testing.T, settings []string) *swarm.Healthcheck {
	check := &swarm.Healthcheck{Test: []string{"check"}}
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		switch key {
		case "interval":
			check.Interval = durationOf(t, value)
		case "start_period":
			check.StartPeriod = durationOf(t, value)
		case "start_interval":
			check.StartInterval = durationOf(t, value)
		case "retries":
			check.Retries = numberOf(t, value)
		default:
			t.Fatalf("health check has no key %q", key)
		}
	}
	return check
}

func desiredOf(t *testing.T, word string) (d swarm.Desired) {
	if err := d.UnmarshalText([]byte(word)); err != nil {
		t.Fatal(err)
	}
	return d
}

func durationOf(t *testing.T, word string) time.Duration {
	d, err := time.ParseDuration(word)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func numberOf(t *testing.T, word string) int {
	n, err := strconv.Atoi(word)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
