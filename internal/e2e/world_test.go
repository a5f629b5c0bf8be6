package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// shared is what all tests of the package have in common: binaries, registry,
// images.
var shared *lab.Lab

func TestMain(m *testing.M) {
	lab.WipeIfAsked()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Println("end-to-end tests make containers and namespaces, which needs root; skipped")
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if shared, err = lab.New(ctx, os.Stderr); err != nil {
		stop()
		fmt.Println(err)
		return 1
	}
	shared.WipeWhen(ctx) // a test that is interrupted runs no Cleanup
	code := 1
	if err := pushImages(shared); err != nil {
		fmt.Println(err)
	} else {
		code = m.Run()
	}
	if err := five.close(); err != nil {
		fmt.Println(err)
		code = 1
	}
	if err := shared.Close(); err != nil {
		fmt.Println(err)
		code = 1
	}
	return code
}

// pushImages makes one image for each way to be.
func pushImages(l *lab.Lab) error {
	for tag, env := range map[string][]string{
		"v1":            nil,
		"v2":            nil,
		"v3":            nil,
		"dies-after-2s": {"APP_EXIT_AFTER=2s", "APP_EXIT_CODE=3"},
		"exits-at-once": {"APP_EXIT_AFTER=0s", "APP_EXIT_CODE=7"},
		"never-healthy": {"APP_UNHEALTHY=0s"},
		"job":           {"APP_EXIT_AFTER=0s", "APP_EXIT_CODE=0"},
	} {
		if err := l.PushApp(tag, env...); err != nil {
			return err
		}
	}
	return nil
}

// A world is one daemon and one repository, for one test.
type world struct {
	*lab.Lab
	t     *testing.T
	repo  *lab.Repo
	first string // the commit that begin pushed
}

// begin starts a daemon that follows a repository with these files.
func begin(t *testing.T, files map[string]string) *world {
	t.Helper()
	l, err := shared.Fork(t.Output())
	must(t, err)
	w := &world{Lab: l, t: t}
	t.Cleanup(func() {
		if t.Failed() {
			w.explain()
		}
		if err := l.Close(); err != nil {
			t.Errorf("clear away: %v", err)
		}
	})
	w.repo, err = l.NewRepo("repo")
	must(t, err)
	_, err = l.StartDaemon(t.Context())
	must(t, err)
	w.first = w.push(files)
	w.run(0, "init", "--repo", w.repo.Bare, "--branch", "main", "--yes")
	return w
}

// settled is begin, and then waits until the first commit is healthy.
func settled(t *testing.T, files map[string]string) *world {
	t.Helper()
	w := begin(t, files)
	w.wait(w.first, 0)
	return w
}

// explain prints what helps to understand a failure.
func (w *world) explain() {
	for _, args := range [][]string{{"status", "-a"}, {"ps", "-a"}, {"events"}} {
		text, exit := w.Run(context.Background(), args...)
		w.t.Logf("$ gitswarm %s (exit %d)\n%s", strings.Join(args, " "), exit, text)
	}
}

// push commits files to the repository; an empty text removes one.
func (w *world) push(files map[string]string) (commit string) {
	w.t.Helper()
	for path, text := range files {
		files[path] = strings.ReplaceAll(text, "REGISTRY", w.Registry)
	}
	must(w.t, w.repo.Write(files))
	commit, err := w.repo.Push("change " + strings.Join(keys(files), ", "))
	must(w.t, err)
	return commit
}

func keys(files map[string]string) []string {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	return names
}

// run runs a command and expects an exit code.
func (w *world) run(want int, args ...string) (output string) {
	w.t.Helper()
	text, exit := w.Run(w.t.Context(), args...)
	if exit != want {
		w.t.Fatalf("gitswarm %s: exit %d, want %d\n%s", strings.Join(args, " "), exit, want, text)
	}
	return text
}

// wait waits for a commit's end, and expects the exit code of it.
func (w *world) wait(commit string, want int) (output string) {
	w.t.Helper()
	return w.run(want, "status", "--wait", "--revision", commit, "--timeout", "90s")
}

// task is a line of `gitswarm ps -o json`.
type task struct {
	ID       string    `json:"id"`
	Service  string    `json:"service"`
	Slot     int       `json:"slot"`
	State    string    `json:"state"`
	Desired  string    `json:"desired"`
	Image    string    `json:"image"`
	Revision string    `json:"revision"`
	Message  string    `json:"message"`
	Created  time.Time `json:"created"`
	Exit     *int      `json:"exit"`
}

// tasks lists a stack's tasks, ended ones included.
func (w *world) tasks(stack string) []task {
	w.t.Helper()
	text := w.run(0, "ps", stack, "-a", "-o", "json")
	var tasks []task
	if err := json.Unmarshal([]byte(text), &tasks); err != nil {
		w.t.Fatalf("read `gitswarm ps`: %v\n%s", err, text)
	}
	return tasks
}

// healthy maps the ids of a service's healthy tasks to their images.
func (w *world) healthy(service string) map[string]string {
	w.t.Helper()
	found := make(map[string]string)
	for _, task := range w.tasks(strings.Split(service, "/")[0]) {
		if task.Service == service && task.State == "healthy" {
			found[task.ID] = task.Image
		}
	}
	return found
}

// until polls a claim of the test.
func (w *world) until(claim string, what func() bool) {
	w.t.Helper()
	must(w.t, lab.Poll(w.t.Context(), 60*time.Second, claim, what))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kept counts the ids of before that are still in after.
func kept(before, after map[string]string) int {
	n := 0
	for id := range before {
		if _, still := after[id]; still {
			n++
		}
	}
	return n
}
