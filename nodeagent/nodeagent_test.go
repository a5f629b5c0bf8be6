package nodeagent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/nodeagent/agenttest"
	"github.com/gitswarm/gitswarm/nodeagent/network"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

var (
	_ Runtime = (*runtime.Runtime)(nil)
	_ Network = (*network.Network)(nil)
)

const web = swarm.TaskID("shop/web.1.a")

func TestTakesATaskThroughItsLife(t *testing.T) {
	bubble(t, func(n *node) {
		spec := n.manager.spec(swarm.TaskSpec{Image: "hello:1", StopGrace: 10 * time.Second, StopSignal: "SIGINT"})

		n.manager.assign(one(web, spec, swarm.DesiredPrepare))
		n.told("pull hello:1", `create shop/web.1.a in "/netns/shop/web.1.a"`)
		n.is(web, "prepared")

		n.manager.assign(one(web, spec, swarm.DesiredRun))
		n.told("start shop/web.1.a")
		n.is(web, "healthy")

		n.manager.assign(one(web, spec, swarm.DesiredDrain))
		n.told()
		n.is(web, "healthy")

		n.manager.assign(one(web, spec, swarm.DesiredStop))
		n.told("stop shop/web.1.a SIGINT 10s")
		n.is(web, "stopped, exited 143 after 0s")

		n.manager.assign(one(web, spec, swarm.DesiredRemove))
		n.told("remove shop/web.1.a")

		n.manager.assign(swarm.Assignment{})
		time.Sleep(time.Second)
		synctest.Wait()
		n.told()
		if kept, _ := os.ReadDir(filepath.Join(n.dir, "tasks")); len(kept) != 0 {
			t.Errorf("the forgotten task is still kept: %v", kept)
		}
	})
}

func TestATaskThatIsNotAssignedAnyMoreIsStoppedAndRemoved(t *testing.T) {
	bubble(t, func(n *node) {
		spec := n.manager.spec(swarm.TaskSpec{StopGrace: time.Second})
		n.manager.assign(one(web, spec, swarm.DesiredRun))
		n.runtime.Told()
		n.manager.assign(swarm.Assignment{})
		n.told("stop shop/web.1.a  1s", "remove shop/web.1.a")
	})
}

func TestSaysHowAContainerEnded(t *testing.T) {
	for _, test := range []struct {
		behaviour agenttest.Behaviour
		want      string
	}{
		{agenttest.Behaviour{Exits: true, After: 2 * time.Second, Code: 1}, "failed, exited 1 after 2s"},
		{agenttest.Behaviour{Exits: true, Code: 0}, "complete, exited 0 after 0s"},
		{agenttest.Behaviour{Exits: true, Code: 137, OOM: true, After: time.Minute}, "failed, out of memory: exited 137 after 1m0s"},
		{agenttest.Behaviour{Start: errors.New("exec /nope: not found")}, "rejected, exec /nope: not found"},
		{agenttest.Behaviour{Create: errors.New("no space left")}, "rejected, no space left"},
	} {
		bubble(t, func(n *node) {
			n.runtime.Behave = func(runtime.Container) agenttest.Behaviour { return test.behaviour }
			n.manager.assign(one(web, n.manager.spec(swarm.TaskSpec{}), swarm.DesiredRun))
			time.Sleep(test.behaviour.After + time.Second)
			synctest.Wait()
			n.is(web, test.want)
		})
	}
}

func TestReportsAnExitAtOnce(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.assign(one(web, n.manager.spec(swarm.TaskSpec{}), swarm.DesiredRun))
		n.runtime.End(web, runtime.Exit{Code: 9})
		synctest.Wait() // no time passes
		n.is(web, "failed, exited 9 after 0s")
	})
}

func TestStopsAContainerThatTurnsUnhealthy(t *testing.T) {
	bubble(t, func(n *node) {
		n.runtime.Behave = func(runtime.Container) agenttest.Behaviour {
			return agenttest.Behaviour{Probe: func(i int) (int, string) {
				if i < 3 {
					return 0, ""
				}
				return 1, "database is away"
			}}
		}
		check := &swarm.Healthcheck{Test: []string{"check"}, Interval: 10 * time.Second, Retries: 2}
		n.manager.assign(one(web, n.manager.spec(swarm.TaskSpec{Health: check, StopGrace: time.Second}), swarm.DesiredRun))
		n.is(web, "starting")
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		n.is(web, "healthy")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		n.is(web, "healthy, health check fails: database is away")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		n.is(web, "failed, unhealthy: database is away")
	})
}

func TestAsksForAllWhenADeltaDoesNotFit(t *testing.T) {
	bubble(t, func(n *node) {
		spec := n.manager.spec(swarm.TaskSpec{})
		n.manager.assign(one(web, spec, swarm.DesiredRun))
		wrong := wire.Delta{Index: 9, Base: 1, Changes: wire.Changes{GoneTasks: []swarm.TaskID{web}}, Hash: 12345}
		n.manager.send(wire.FromManager{Delta: &wrong})
		if got := n.manager.latest().said().resends; got != 1 {
			t.Errorf("the agent asked %d times", got)
		}
		if got := n.runtime.Running(); len(got) != 1 {
			t.Error("the agent acted on a delta that does not fit")
		}
	})
}

func TestLeavesAManagerThatIsBehind(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.index = 100
		n.manager.assign(one(web, n.manager.spec(swarm.TaskSpec{}), swarm.DesiredRun))
		n.manager.index = 50
		n.manager.assign(swarm.Assignment{})
		if got := n.runtime.Running(); len(got) != 1 {
			t.Error("the agent followed an older assignment")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n.manager.opened() < 2 || !n.manager.sessions[0].said().over {
			t.Error("the agent kept the session")
		}
	})
}

func TestRepeatsEveryStatusInANewSession(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.assign(one(web, n.manager.spec(swarm.TaskSpec{}), swarm.DesiredRun))
		n.manager.pipe.Cut(errors.New("cut"))
		n.runtime.End(web, runtime.Exit{Code: 7})
		time.Sleep(time.Minute)
		n.manager.pipe.Mend()
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if n.manager.opened() != 2 {
			t.Fatalf("%d sessions", n.manager.opened())
		}
		n.is(web, "failed, exited 7 after 0s")
		if got := n.manager.latest().said().applied; got != 1 {
			t.Errorf("applied is %d in the new session", got)
		}
	})
}

func TestGivesASignOfLifeEachSecond(t *testing.T) {
	bubble(t, func(n *node) {
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if got := n.manager.latest().said().beats; got != 10 {
			t.Errorf("%d signs of life in 10 s", got)
		}
	})
}

func TestAppliedIsSaidOnceTheNetworkIsSet(t *testing.T) {
	bubble(t, func(n *node) {
		n.network.Takes = time.Second
		n.manager.assign(swarm.Assignment{Services: []swarm.AssignedService{{ID: "shop/web"}}})
		if got := n.manager.latest().said().applied; got != 0 {
			t.Errorf("applied %d was said before the network was set", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := n.manager.latest().said().applied; got != 1 {
			t.Errorf("applied is %d", got)
		}
	})
}

func TestANetworkThatFailsIsNotCalledApplied(t *testing.T) {
	bubble(t, func(n *node) {
		var works atomic.Bool
		n.network.Fails = func(network.Config) error {
			if !works.Load() {
				return errors.New("netlink: busy")
			}
			return nil
		}
		n.manager.assign(swarm.Assignment{})
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := n.manager.latest().said().applied; got != 0 {
			t.Errorf("applied is %d", got)
		}
		works.Store(true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := n.manager.latest().said().applied; got != 1 {
			t.Errorf("applied is %d once the network works again", got)
		}
	})
}

func TestATaskIsOutOfTheLoadBalancersBeforeItsSignal(t *testing.T) {
	bubble(t, func(n *node) {
		spec := n.manager.spec(swarm.TaskSpec{StopGrace: time.Minute, HostPorts: []swarm.Port{{Published: 8080}}})
		service := swarm.AssignedService{ID: "shop/web", Backends: []swarm.Backend{{Task: web}}}
		run, stop := one(web, spec, swarm.DesiredRun), one(web, spec, swarm.DesiredStop)
		run.Services = []swarm.AssignedService{service}
		stop.Services = run.Services // the managers are late
		n.manager.assign(run)
		synctest.Wait()
		if got, want := n.network.String(), "endpoint shop/web.1.a :8080, service shop/web"; got != want {
			t.Errorf("network is %q, want %q", got, want)
		}
		n.manager.assign(run)
		if got := n.network.Backends("shop/web"); !slices.Equal(got, []swarm.TaskID{web}) {
			t.Fatalf("backends are %v", got)
		}

		n.network.Takes = time.Second
		n.runtime.Told()
		n.manager.assign(stop)
		time.Sleep(999 * time.Millisecond) // the network is still being set
		synctest.Wait()
		n.told()
		time.Sleep(time.Second + 2*time.Millisecond)
		synctest.Wait()
		if got := n.network.Backends("shop/web"); len(got) != 0 {
			t.Errorf("backends are %v", got)
		}
		n.told("stop shop/web.1.a  1m0s")
	})
}

func TestANetworkInTroubleKeepsNoTaskRunning(t *testing.T) {
	bubble(t, func(n *node) {
		spec := n.manager.spec(swarm.TaskSpec{StopGrace: time.Minute})
		run := one(web, spec, swarm.DesiredRun)
		run.Services = []swarm.AssignedService{{ID: "shop/web", Backends: []swarm.Backend{{Task: web}}}}
		n.manager.assign(run)
		n.manager.assign(run)
		n.runtime.Told()
		n.network.Takes = time.Hour
		n.manager.assign(one(web, spec, swarm.DesiredStop))
		time.Sleep(leaveTimeout)
		synctest.Wait()
		n.told("stop shop/web.1.a  1m0s")
	})
}

func TestTasksThatCannotBePlacedAreRejectedAlone(t *testing.T) {
	bubble(t, func(n *node) {
		n.network.Place = func(task swarm.TaskID) error {
			if task == web {
				return errors.New("address 10.0.0.2 is in use")
			}
			return nil
		}
		spec := n.manager.spec(swarm.TaskSpec{})
		a := one(web, spec, swarm.DesiredRun)
		a.Tasks = append(a.Tasks, swarm.AssignedTask{ID: "shop/web.2.b", Spec: spec, Desired: swarm.DesiredRun})
		n.manager.assign(a)
		n.is(web, "rejected, attach to networks: address 10.0.0.2 is in use")
		n.is("shop/web.2.b", "healthy")
	})
}

func TestACalledOffTaskStopsPulling(t *testing.T) {
	bubble(t, func(n *node) {
		n.runtime.Images = func(string) agenttest.Behaviour { return agenttest.Behaviour{Pull: time.Hour} }
		spec := n.manager.spec(swarm.TaskSpec{Image: "large:1"})
		n.manager.assign(one(web, spec, swarm.DesiredPrepare))
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		n.is(web, "preparing, pulling 40%")
		n.manager.assign(one(web, spec, swarm.DesiredStop))
		n.is(web, "stopped, stopped before it started")
	})
}

func TestAHundredTasksStartAtOnceEightPullsAtATime(t *testing.T) {
	bubble(t, func(n *node) {
		n.runtime.Images = func(string) agenttest.Behaviour { return agenttest.Behaviour{Pull: time.Second} }
		n.network.Takes = 10 * time.Millisecond
		var a swarm.Assignment
		for i := range 100 {
			spec := n.manager.spec(swarm.TaskSpec{Image: fmt.Sprint("image:", i), Manifest: swarm.Digest(fmt.Sprint("sha256:", i))})
			a.Tasks = append(a.Tasks, swarm.AssignedTask{ID: swarm.TaskID(fmt.Sprintf("shop/web.%03d.a", i)), Spec: spec, Desired: swarm.DesiredRun})
		}
		n.manager.assign(a)
		time.Sleep(14 * time.Second)
		synctest.Wait()
		if got := len(n.runtime.Running()); got != 100 {
			t.Errorf("%d run", got)
		}
		if got := n.runtime.MostPulls(); got != 8 {
			t.Errorf("%d images were pulled at once", got)
		}
		if sets := n.network.Sets(); sets > 45 {
			t.Errorf("the network was set %d times for 100 tasks", sets)
		}
	})
}

func TestSecretsNeverReachTheDisk(t *testing.T) {
	bubble(t, func(n *node) {
		secret, config := []byte("hunter2-hunter2"), []byte("listen 80")
		n.manager.blobs["hmac-sha256:ab"] = secret
		spec := n.manager.spec(swarm.TaskSpec{Files: []swarm.File{
			{Kind: swarm.FileConfig, Target: "/etc/web", Content: n.manager.blob(config)},
			{Kind: swarm.FileSecret, Target: "/run/secrets/db", Content: "hmac-sha256:ab"},
		}})
		n.manager.assign(one(web, spec, swarm.DesiredRun))
		time.Sleep(time.Second)
		n.told("pull ", `create shop/web.1.a in "/netns/shop/web.1.a" /etc/web=listen 80 /run/secrets/db=hunter2-hunter2`, "start shop/web.1.a")

		kept := readAll(t, n.dir)
		if bytes.Contains(kept, secret) {
			t.Error("the secret is on the disk")
		}
		if !bytes.Contains(kept, config) {
			t.Error("the config is not kept")
		}
	})
}

func readAll(t *testing.T, dir string) (all []byte) {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all = append(all, data...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAMissingBlobRejectsTheTaskWithItsRemedy(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.assign(one(web, "sha256:00", swarm.DesiredRun))
		n.is(web, "rejected, fetch spec: fetch blob sha256:00: blob is missing: restore a backup")
	})
}

func TestRemovesVolumesThatWereGivenUp(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.assign(swarm.Assignment{Volumes: []swarm.VolumeID{"shop/data"}})
		n.told("remove volume shop/data")
		if got := n.manager.latest().said().removed; !slices.Equal(got, []swarm.VolumeID{"shop/data"}) {
			t.Errorf("removed are %v", got)
		}
	})
}

func TestServesLogsProcessesAndUsage(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.assign(one(web, n.manager.spec(swarm.TaskSpec{}), swarm.DesiredRun))
		n.manager.send(wire.FromManager{Open: &wire.Open{Stream: "exec", Exec: &swarm.ExecRequest{Task: web}}})
		n.manager.send(wire.FromManager{Open: &wire.Open{Stream: "logs", Logs: &swarm.LogQuery{Tasks: []swarm.TaskID{web}}}})
		n.manager.send(wire.FromManager{Open: &wire.Open{Stream: "stats", Stats: []swarm.TaskID{web}}})
		n.manager.send(wire.FromManager{Open: &wire.Open{Stream: "exec of nothing", Exec: &swarm.ExecRequest{Task: "x"}}})
		n.is("exec", "new, exec: one exit 3")
		n.is("logs", "new, logs: shop/web.1.a hello")
		n.is("stats", "new, stats: shop/web.1.a 1048576")
		n.is("exec of nothing", "new, exec of nothing:container does not run")
	})
}
