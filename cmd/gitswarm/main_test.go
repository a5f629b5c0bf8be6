package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary gitswarm itself, so that scripts run the real
// command line, and its children find themselves.
func TestMain(m *testing.M) {
	runChild()
	testscript.Main(m, map[string]func(){"gitswarm": main})
}

// TestScripts runs each command as a person does, against a real control API
// on a real socket over a real store.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("UPDATE") != "",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			w := newWorld(env.T().(testing.TB), env.WorkDir+"/.world")
			stop := w.serve(env.T().(testing.TB))
			env.Values["world"] = w
			env.Setenv("GITSWARM_HOST", w.host)
			env.Setenv("SOCKET", w.host)
			env.Setenv("USERS", w.users)
			env.Setenv("XDG_CONFIG_HOME", env.WorkDir+"/.config")
			env.Setenv("TZ", "UTC")
			env.Setenv("NO_COLOR", "1")
			env.Defer(func() {
				stop()
				if err := w.store.Close(); err != nil {
					panic(err)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"world": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Value("world").(*world).command(ts, neg, args)
			},
			"sleep": func(*testscript.TestScript, bool, []string) { time.Sleep(300 * time.Millisecond) },
			"pin": func(ts *testscript.TestScript, _ bool, _ []string) { // PIN: of the world's authority
				ts.Setenv("PIN", ts.Value("world").(*world).pin())
			},
			"tokenenv": func(ts *testscript.TestScript, _ bool, args []string) { // GITSWARM_TOKEN: what a file holds
				ts.Setenv("GITSWARM_TOKEN", strings.TrimSpace(ts.ReadFile(args[0])))
			},
			"page": page,
			"code": code,
		},
	})
}

var (
	ages   = regexp.MustCompile(`\b\d+[smhd]( ago)?\b`)
	spaces = regexp.MustCompile(` {2,}`)
)

// ageless is a page without its ages, which widen columns: the golden pages of
// TestStatus… hold the alignment.
func ageless(page string) string {
	return spaces.ReplaceAllString(ages.ReplaceAllString(page, "0s$1"), "  ")
}

// page runs gitswarm and compares what it prints with a file, ages aside:
// `page FILE ARGS…`.
func page(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(ts.Exec("gitswarm", args[1:]...))
	got, want := ageless(ts.ReadFile("stdout")), ageless(ts.ReadFile(args[0]))
	if got != want {
		ts.Fatalf("gitswarm %v prints\n%s\nwant\n%s", args[1:], got, want)
	}
}

// code runs gitswarm and compares its exit code: `code N ARGS…`.
func code(ts *testscript.TestScript, neg bool, args []string) {
	started := time.Now()
	err := ts.Exec("gitswarm", args[1:]...)
	got := "0"
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ProcessState.String()
		got = regexp.MustCompile(`\d+`).FindString(got)
	}
	if got != args[0] {
		ts.Fatalf("gitswarm %v ended with %s after %v, want %s", args[1:], got, time.Since(started), args[0])
	}
}
