package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/nodeagent/agenttest"
	"github.com/gitswarm/gitswarm/swarm"
)

// meet tells the node of managers by name, and makes one of them for each.
func (n *node) meet(names ...string) {
	n.others = make(map[string]*manager)
	for _, name := range names {
		n.others[name] = newManager(n.t)
	}
	n.manager.send(wire.FromManager{Managers: names})
}

// at is the name of the manager that has the node's newest session.
func (n *node) at() (name string) {
	for other, m := range n.others {
		if m.opened() > 0 && !m.latest().said().over {
			name += other
		}
	}
	return name
}

func TestFindsAnotherManagerWhenItsOwnIsGone(t *testing.T) {
	bubble(t, func(n *node) {
		n.meet("m2", "m3")
		n.others["m2"].pipe.Cut(errors.New("dead"))
		n.manager.pipe.Cut(errors.New("dead"))
		time.Sleep(time.Second)
		synctest.Wait()
		if n.at() != "m3" {
			t.Errorf("the node is at %q", n.at())
		}
	})
}

func TestAManagerThatNeverAnswersCostsLessThanASecond(t *testing.T) {
	bubble(t, func(n *node) {
		n.meet("m2")
		n.others["silent"] = &manager{t: t, pipe: agenttest.NewPipe()} // takes no connection
		n.manager.send(wire.FromManager{Managers: []string{"silent", "m2"}})
		began := time.Now()
		n.manager.pipe.Cut(errors.New("dead"))
		for n.at() != "m2" {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			if time.Since(began) > time.Second {
				t.Fatalf("after %s the node is still at no manager:\n%s", time.Since(began), n.log.String())
			}
		}
	})
}

func TestKnowsItsManagersAfterARestart(t *testing.T) {
	bubble(t, func(n *node) {
		n.meet("m2")
		n.stop()
		n.manager.pipe.Cut(errors.New("dead"))
		n.start()
		if n.at() != "m2" {
			t.Errorf("the node is at %q", n.at())
		}
	})
}

func TestThisMachinesOwnManagerComesFirst(t *testing.T) {
	bubble(t, func(n *node) {
		names := []string{"m2", "m3", "m4", "m5", "own"}
		n.meet(names...)
		n.own = "own"
		for range 5 {
			n.manager.pipe.Cut(errors.New("dead"))
			n.stop()
			n.start()
			if n.at() != "own" {
				t.Errorf("the node is at %q", n.at())
			}
		}
	})
}

func TestAManagerOfAnotherClusterHasNothingToSay(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.welcome.Cluster = "ours"
		n.stop()
		n.start()
		spec := n.manager.spec(swarm.TaskSpec{})
		n.manager.assign(one(web, spec, swarm.DesiredRun))
		n.runtime.Told()

		n.meet("foreign")
		n.others["foreign"].welcome.Cluster = "theirs"
		n.manager.pipe.Cut(errors.New("dead"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		n.told()
		if over := n.others["foreign"].latest().said().over; !over {
			t.Error("the node keeps the foreign session")
		}
		if !strings.Contains(n.log.String(), "of cluster theirs, this node of ours") {
			t.Errorf("the log does not say why:\n%s", n.log.String())
		}
	})
}

func TestLeavesAManagerThatSaysNothing(t *testing.T) {
	bubble(t, func(n *node) {
		n.meet("m2")
		n.manager.welcome.Silence = 2 * time.Second
		n.stop()
		n.manager.pipe.Cut(nil)
		n.own = "m1"
		n.start()
		for range 10 {
			time.Sleep(time.Second)
			n.manager.send(wire.FromManager{})
		}
		if n.at() != "" {
			t.Error("the node left a manager that speaks")
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n.at() != "m2" {
			t.Errorf("the node is at %q", n.at())
		}
	})
}

func TestIsBackWithinFiveSecondsOfALongCut(t *testing.T) {
	bubble(t, func(n *node) {
		n.manager.assign(one(web, n.manager.spec(swarm.TaskSpec{StopGrace: time.Second}), swarm.DesiredRun))
		n.manager.pipe.Cut(errors.New("cut"))
		time.Sleep(time.Hour)
		if got := n.runtime.Running(); !slices.Equal(got, []swarm.TaskID{web}) {
			t.Fatalf("while it was cut off, %v ran", got)
		}
		began := time.Now()
		n.manager.pipe.Mend()
		for n.manager.opened() < 2 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		n.manager.assign(swarm.Assignment{}) // its task was replaced elsewhere
		time.Sleep(time.Second)
		synctest.Wait()
		if took := time.Since(began); len(n.runtime.Running()) != 0 || took > 5*time.Second {
			t.Errorf("after %s there run %v", took, n.runtime.Running())
		}
	})
}

func TestRenewsItsCertificateWhenAskedAndWhenItIsTime(t *testing.T) {
	bubble(t, func(n *node) {
		var mu sync.Mutex // agent and session look at the certificate
		var renewed atomic.Int64
		fails := 1
		due := time.Now().Add(3 * time.Hour)
		n.renewAt = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return due
		}
		n.renew = func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if fails > 0 {
				fails--
				return errors.New("no leader")
			}
			renewed.Add(1)
			n.issuer.Store(fmt.Sprint("authority ", renewed.Load()))
			due = time.Now().Add(3 * time.Hour)
			return nil
		}
		n.stop()
		n.start()
		n.manager.send(wire.FromManager{Renew: true})
		if renewed.Load() != 0 {
			t.Error("a renewal that failed counts")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if renewed.Load() != 1 {
			t.Fatalf("asked once, it renewed %d times", renewed.Load())
		}
		if papers := n.manager.latest().said().papers; papers == nil || papers.Issuer != "authority 1" || papers.Role != swarm.RoleWorker {
			t.Errorf("the manager was told of papers %+v", papers)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if renewed.Load() != 1 {
			t.Error("it renewed before it was time")
		}
		time.Sleep(70 * time.Minute)
		synctest.Wait()
		if renewed.Load() != 2 {
			t.Errorf("when it was time it had renewed %d times", renewed.Load())
		}
	})
}

func TestRestartedWithoutManagersItBringsUpWhatItWasAssignedButForSecrets(t *testing.T) {
	bubble(t, func(n *node) {
		plain := n.manager.spec(swarm.TaskSpec{Image: "hello:1"})
		n.manager.mu.Lock()
		n.manager.blobs["hmac-sha256:00"] = []byte("hunter2")
		n.manager.mu.Unlock()
		secret := n.manager.spec(swarm.TaskSpec{Image: "hello:1", Files: []swarm.File{{Kind: swarm.FileSecret, Target: "/s", Content: "hmac-sha256:00"}}})
		other := swarm.TaskID("shop/web.2.b")
		assignment := one(web, plain, swarm.DesiredRun)
		assignment.Tasks = append(assignment.Tasks, swarm.AssignedTask{ID: other, Service: "shop/web", Slot: 2, Spec: secret, Desired: swarm.DesiredRun})
		n.runtime.Images = func(string) agenttest.Behaviour { return agenttest.Behaviour{Pull: 10 * time.Second} }
		n.manager.assign(assignment)
		time.Sleep(time.Second) // it is on disk; the images are still on their way
		n.stop()
		n.manager.pipe.Cut(errors.New("all managers are down"))
		n.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := n.runtime.Running(); !slices.Equal(got, []swarm.TaskID{web}) {
			t.Errorf("without a manager there run %v", got)
		}
		n.manager.pipe.Mend()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := n.runtime.Running(); len(got) != 2 {
			t.Errorf("with a manager there run %v", got)
		}
	})
}
