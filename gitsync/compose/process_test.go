package compose

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gitswarm/gitswarm/internal/codec"
)

// program writes a shell script that stands in for the child.
func program(t *testing.T, script string) Limits {
	t.Helper()
	name := filepath.Join(t.TempDir(), "loader")
	if err := os.WriteFile(name, []byte("#!/bin/sh\nhead -c 4 >/dev/null\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return Limits{Executable: name, Wall: 300 * time.Millisecond}
}

var simple = treeOf("services: {web: {image: web}}\n")

func TestAChildThatMisbehavesCostsItsProjectAlone(t *testing.T) {
	for script, want := range map[string]string{
		"exec sleep 60":                                          "takes longer than 300ms to load",
		"echo oops >&2; exit 3":                                  "loading ends in an error: oops",
		"printf '\\377\\377\\377\\377'":                          "is larger than",
		"printf '\\0\\0\\0\\1\\240'; cat >/dev/null":             "sent an empty message",
		"echo 'fatal error: runtime: out of memory' >&2; exit 2": "takes more than 512 MiB of memory",
		"kill -XCPU $$; sleep 1":                                 "takes too much CPU time",
	} {
		began := time.Now()
		_, err := Load(t.Context(), program(t, script), simple, Project{Dir: "shop", Files: []string{"shop/compose.yaml"}})
		if _, ok := errors.AsType[*Error](err); !ok || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "shop/compose.yaml:1: ") {
			t.Errorf("%s: got %v, want %s", script, err, want)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %s", script, took)
		}
	}
}

func TestAMissingProgramIsNoFaultOfTheProject(t *testing.T) {
	_, err := Load(t.Context(), Limits{Executable: "/nonexistent"}, simple, Project{Dir: "shop"})
	if _, ok := errors.AsType[*Error](err); ok || err == nil || !strings.Contains(err.Error(), "start compose loader") {
		t.Errorf("got %v", err)
	}
}

func TestCancellingEndsTheChild(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	limits := program(t, "exec sleep 60")
	limits.Wall = time.Minute
	if _, err := Load(ctx, limits, simple, Project{Dir: "shop"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own memory is beyond the limit")
	}
	// What is within all limits of text, and still large: contents in many files.
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range 900 {
		fmt.Fprintf(&b, "  s%d:\n    image: x\n    environment: &e%d {A: b}\n    labels: {%s}\n", i, i, labelsOfLength(40, i))
	}
	loaded, err := Load(t.Context(), Limits{Memory: leastMemory}, treeOf(b.String()), Project{Dir: "shop"})
	switch {
	case err == nil:
		t.Logf("fits into %s: %d services", size(leastMemory), len(loaded.Stack.Services))
	case !strings.Contains(err.Error(), "of memory to load"):
		t.Errorf("got %v", err)
	}
	checkChildren(t)
}

func labelsOfLength(count, seed int) string {
	var parts []string
	for i := range count {
		parts = append(parts, fmt.Sprintf("label%d: \"%d\"", i, i*seed))
	}
	return strings.Join(parts, ", ")
}

type failing struct{ memory }

func (failing) ReadDir(string) ([]Entry, error) {
	return nil, errors.New("the object store is corrupt")
}

func TestATreeThatCannotBeReadIsNoFaultOfTheProject(t *testing.T) {
	_, err := Load(t.Context(), Limits{}, failing{}, Project{Dir: "shop"})
	if _, ok := errors.AsType[*Error](err); ok || err == nil || !strings.Contains(err.Error(), "the object store is corrupt") {
		t.Errorf("got %v", err)
	}
}

func TestOneChildLoadsManyStacks(t *testing.T) {
	tree, projects := memory{}, []Project(nil)
	for i := range 50 {
		dir := fmt.Sprintf("s%d", i)
		tree.add(dir+"/compose.yaml", fmt.Appendf(nil, "services: {web: {image: 'web:%d', extends: {file: ../base.yaml, service: base}}}\n", i))
		if i == 20 {
			tree.add(dir+"/compose.override.yaml", []byte("services: [\n"))
		}
		projects = append(projects, Project{Dir: dir})
	}
	tree.add("base.yaml", []byte("services: {base: {image: base, labels: {a: b}}}\n"))
	for i, result := range LoadAll(t.Context(), Limits{}, tree, projects) {
		if i == 20 {
			if _, ok := errors.AsType[*Error](result.Err); !ok {
				t.Errorf("stack 20: got %v", result.Err)
			}
			continue
		}
		if result.Err != nil {
			t.Fatalf("stack %d: %v", i, result.Err)
		}
		task := result.Loaded.Stack.Services[0].Task
		if task.Image != fmt.Sprintf("web:%d", i) || task.Labels["a"] != "b" {
			t.Errorf("stack %d: got %+v", i, task)
		}
	}
}

func TestEqualTreesGiveEqualBytes(t *testing.T) {
	text := "services:\n"
	for i := range 30 {
		text += fmt.Sprintf("  s%d: {image: x, environment: {B: 1, A: 2}, labels: {z: y, a: b}, cap_add: [B, A], networks: [n%d, n5], volumes: ['v%d:/b', 'v1:/a']}\n", i, i%5, i%7)
	}
	text += "networks: {n0: {}, n1: {}, n2: {}, n3: {}, n4: {}, n5: {}}\nvolumes: {v0: {}, v1: {}, v2: {}, v3: {}, v4: {}, v5: {}, v6: {}}\n"
	var first []byte
	for range 5 {
		loaded, err := Load(t.Context(), Limits{}, treeOf(text), Project{Dir: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		data, err := codec.Encode(loaded.Stack)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = data
		}
		if !bytes.Equal(data, first) {
			t.Fatal("two loads of one tree differ")
		}
	}
}

func TestPlaceTellsWhereAKeyStands(t *testing.T) {
	loaded, err := Load(t.Context(), Limits{}, treeOf("services:\n  web:\n    image: web\n    cap_add:\n      - A\n"), Project{Dir: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]int{"cap_add": 4, "image": 3, "privileged": 2} {
		if file, line := loaded.Place("web", key); file != "shop/compose.yaml" || line != want {
			t.Errorf("%s: got %s:%d, want line %d", key, file, line, want)
		}
	}
	if file, line := loaded.Place("db", "image"); file != "" || line != 0 {
		t.Errorf("got %s:%d for a service that is not there", file, line)
	}
}

func TestFoldersAreRemovedWithTheirChild(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	for _, limits := range []Limits{{}, program(t, "exec sleep 60")} {
		if _, err := Load(t.Context(), limits, simple, Project{Dir: "shop"}); err != nil {
			t.Log(err)
		}
	}
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if strings.HasPrefix(entry.Name(), "gitswarm-compose-") {
			t.Errorf("%s is left", entry.Name())
		}
	}
}

// TestTheChildSeesNoFileOfTheMachine asks the child's own process what its
// root is while it waits for an answer.
func TestTheChildSeesNoFileOfTheMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root moves into another root; others are confined by Landlock")
	}
	c, err := start(Limits{}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer c.end()
	if err := writeFrame(c.in, frame{Render: &Project{Dir: "shop"}}); err != nil {
		t.Fatal(err)
	}
	message, err := readFrame(c.out)
	if err != nil || message.Ask == nil {
		t.Fatalf("got %+v, %v", message, err)
	}

	proc := fmt.Sprintf("/proc/%d/", c.cmd.Process.Pid)
	if root, err := os.Readlink(proc + "root"); err != nil || root != c.folder {
		t.Errorf("the child's root is %s, want %s: %v", root, c.folder, err)
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nUid:\t65534\t65534\t65534\t65534\n", "\nGid:\t65534\t65534\t65534\t65534\n", "\nCapEff:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("status has no %q", want)
		}
	}
	if env, err := os.ReadFile(proc + "environ"); err != nil || len(env) != 0 {
		t.Errorf("the child's environment is %q: %v", env, err)
	}
}

// TestOthersThanRootAreConfinedByLandlock runs a child that is not root.
func TestOthersThanRootAreConfinedByLandlock(t *testing.T) {
	if _, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1); errno != 0 {
		t.Skipf("the kernel has no Landlock: %v", errno)
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno != 0 {
		t.Skip("this build uses cgo: a process cannot confine all its threads; test with CGO_ENABLED=0")
	}
	folder := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "landlock-probe", folder, "/etc/passwd")
	if os.Geteuid() == 0 {
		if err := os.Chmod(filepath.Dir(folder), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(folder, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	said, err := cmd.CombinedOutput()
	if err != nil || string(said) != "outside: true\ninside: <nil>\n" {
		t.Errorf("got %q, %v", said, err)
	}
}

func TestFramesAreBounded(t *testing.T) {
	if _, err := readFrame(bufio.NewReader(strings.NewReader("\xff\xff\xff\xff"))); err == nil {
		t.Error("a frame of 4 GiB was read")
	}
	if _, err := readFrame(strings.NewReader("\x00\x00\x00\x05ab")); err == nil {
		t.Error("a frame that ends early was read")
	}
}

func TestFolderTreesShowFilesAndHideGit(t *testing.T) {
	root := t.TempDir()
	os.MkdirAll(filepath.Join(root, ".git"), 0o755)
	os.WriteFile(filepath.Join(root, "a"), []byte("abc"), 0o644)
	os.WriteFile(filepath.Join(root, "run"), nil, 0o755)
	os.Symlink("a", filepath.Join(root, "link"))
	tree := FromDir(root)

	entries, err := tree.ReadDir("")
	if err != nil || len(entries) != 3 {
		t.Fatalf("got %v, %v", entries, err)
	}
	if data, err := tree.ReadFile("a", 3); err != nil || string(data) != "abc" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, err := tree.ReadFile("a", 2); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if _, err := tree.ReadFile("b", 2); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := tree.ReadFile("../x", 2); err == nil {
		t.Error("a path beyond the root was read")
	}
}

// BenchmarkLoad is a stack with its child, BenchmarkLoadAll one of many.
func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		if _, err := Load(b.Context(), Limits{}, simple, Project{Dir: "shop"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadAll(b *testing.B) {
	projects := make([]Project, 100)
	for i := range projects {
		projects[i].Dir = "shop"
	}
	for b.Loop() {
		for _, result := range LoadAll(b.Context(), Limits{}, simple, projects) {
			if result.Err != nil {
				b.Fatal(result.Err)
			}
		}
	}
}
