package compose

import (
	"os"
	"runtime"
	"syscall"
	"testing"
)

func TestAChildThatIsReadyServesOneCommit(t *testing.T) {
	l := Loader{Limits: Limits{Folder: t.TempDir()}}
	defer l.Close()
	l.Prepare(t.Context())
	ready := l.ready
	if ready == nil {
		t.Fatal("no child is ready")
	}
	if l.Prepare(t.Context()); l.ready != ready {
		t.Error("a second child was started beside the one that is ready")
	}

	projects := []Project{{Dir: "shop"}, {Dir: "shop"}, {Dir: "shop"}}
	for i, result := range l.LoadAll(t.Context(), simple, projects) {
		if result.Err != nil {
			t.Errorf("project %d: %v", i, result.Err)
		}
	}
	if l.ready != nil || ready.cmd.ProcessState == nil {
		t.Error("the child lives on after the commit that it loaded")
	}
}

func TestAReadyChildThatDiedIsNoFaultOfTheNextProject(t *testing.T) {
	l := Loader{Limits: Limits{Folder: t.TempDir()}}
	defer l.Close()
	l.Prepare(t.Context())
	if err := l.ready.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for l.ready.alive() {
		runtime.Gosched()
	}
	if result := l.LoadAll(t.Context(), simple, []Project{{Dir: "shop"}})[0]; result.Err != nil {
		t.Error(result.Err)
	}
}

func TestNoChildLeavesAFolder(t *testing.T) {
	l := Loader{Limits: Limits{Folder: t.TempDir()}}
	l.Prepare(t.Context())
	l.LoadAll(t.Context(), simple, []Project{{Dir: "shop"}})
	l.Prepare(t.Context())
	l.Close()
	left, err := os.ReadDir(l.Limits.Folder)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
