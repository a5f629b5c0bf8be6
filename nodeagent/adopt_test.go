package nodeagent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/nodeagent/agenttest"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestAdoptsWhatRunsAfterItsOwnRestart(t *testing.T) {
	bubble(t, func(n *node) {
		check := &swarm.Healthcheck{Test: []string{"check"}, Interval: time.Minute, Retries: 1}
		n.manager.assign(one(web, n.manager.spec(swarm.TaskSpec{Health: check}), swarm.DesiredRun))
		time.Sleep(time.Second)
		synctest.Wait()
		n.is(web, "healthy")
		n.runtime.Told()

		n.stop()
		time.Sleep(time.Hour)
		n.start()
		n.told()
		if got := n.network.String(); got != "endpoint shop/web.1.a" {
			t.Errorf("network is %q", got)
		}
		n.is(web, "healthy")
		if hello := n.manager.latest().hello; hello.Index != 1 || hello.Hash == 0 {
			t.Errorf("hello is %+v, want the kept assignment", hello)
		}

		n.manager.assign(swarm.Assignment{})
		n.told("stop shop/web.1.a  0s", "remove shop/web.1.a")
	})
}

func TestAnExitWhileTheAgentWasAwayIsReported(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.assign(one(web, n.manager.spec(swarm.TaskSpec{}), swarm.DesiredRun))
		time.Sleep(time.Second)
		n.stop()
		time.Sleep(2 * time.Second)
		n.runtime.End(web, runtime.Exit{Code: 4})
		time.Sleep(time.Hour)
		n.start()
		n.is(web, "failed, exited 4 after 3s")
	})
}

func TestNeverStartsATaskTwice(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.assign(one(web, n.manager.spec(swarm.TaskSpec{}), swarm.DesiredRun))
		n.stop()
		_ = n.runtime.Remove(t.Context(), web) // as a reboot does
		n.runtime.Told()
		n.start()
		n.told()
		n.is(web, "failed, its container was gone: the node was restarted, or something removed it")
	})
}

func TestGoesOnByTheLastAssignmentWithoutAManager(t *testing.T) {
	bubble(t, func(n *node) {
		spec := n.manager.spec(swarm.TaskSpec{Image: "hello:1"})
		n.manager.assign(one(web, spec, swarm.DesiredRun))
		time.Sleep(time.Second)
		n.manager.pipe.Cut(errors.New("no route"))
		time.Sleep(time.Hour)
		n.stop()
		n.runtime.Told()
		n.start()
		time.Sleep(time.Hour)
		n.told()
		if got := n.runtime.Running(); !slices.Equal(got, []swarm.TaskID{web}) {
			t.Errorf("running are %v", got)
		}
		if lines := strings.Count(n.log.String(), "session ended"); lines > 10 {
			t.Errorf("an hour without manager filled the log with %d lines", lines)
		}
		n.manager.pipe.Mend()
		time.Sleep(8 * time.Second)
		synctest.Wait()
		n.is(web, "healthy")
	})
}

func TestTouchesNothingBeforeAManagerHasSpoken(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := &node{t: t, dir: dir, manager: newManager(t), runtime: agenttest.NewRuntime(), network: &agenttest.Network{}}
		stranger := runtime.Container{ID: web}
		if err := n.runtime.Create(t.Context(), stranger); err != nil {
			t.Fatal(err)
		}
		if _, err := n.runtime.Start(t.Context(), web); err != nil {
			t.Fatal(err)
		}
		n.runtime.Told()

		n.start()
		time.Sleep(time.Minute)
		n.told()
		if n.network.Sets() != 0 {
			t.Error("the network was set by no assignment")
		}
		n.manager.assign(swarm.Assignment{})
		time.Sleep(time.Second)
		synctest.Wait()
		if got := n.runtime.Running(); len(got) != 0 {
			t.Errorf("running are %v, though the manager wants none", got)
		}
		n.stop()
	})
}

func TestFetchesWhatIsMissingInTheNextSession(t *testing.T) {
	bubble(t, func(n *node) {
		spec := n.manager.spec(swarm.TaskSpec{Image: "hello:1"})
		n.manager.assign(one(web, spec, swarm.DesiredPrepare))
		n.stop()
		if err := os.RemoveAll(filepath.Join(n.dir, "blobs")); err != nil {
			t.Fatal(err)
		}
		n.manager.pipe.Cut(errors.New("no route"))
		n.start()
		time.Sleep(time.Minute)
		n.manager.pipe.Mend()
		time.Sleep(8 * time.Second)
		synctest.Wait()
		n.is(web, "prepared")
	})
}

func TestAMachineThatRestartsRunsWhatItWasLastAssignedThoughNoManagerAnswers(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.assign(one(web, n.manager.spec(swarm.TaskSpec{Image: "hello:1"}), swarm.DesiredRun))
		time.Sleep(time.Second)
		n.stop()
		n.runtime.End(web, runtime.Exit{Lost: true}) // its machine went off
		n.manager.pipe.Cut(errors.New("no route"))
		n.reboot = true
		n.start()
		if got := n.runtime.Running(); len(got) != 0 {
			t.Errorf("running are %v before a manager had time to say where the task is by now", got)
		}
		time.Sleep(aloneAfter)
		synctest.Wait()
		if got := n.runtime.Running(); !slices.Equal(got, []swarm.TaskID{web}) {
			t.Errorf("running are %v, want %s", got, web)
		}
		n.manager.pipe.Mend()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		n.is(web, "healthy")
	})
}
