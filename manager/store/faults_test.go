package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// TestAWriteIsAcceptedSoonAfterTheLeaderDied: in virtual time, so that only
// timers count. 1.5 s is the promise; an election on a slow disk needs a part.
func TestAWriteIsAcceptedSoonAfterTheLeaderDied(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		worst := time.Duration(0)
		for round := range 10 {
			leader := m.leader()
			time.Sleep(time.Duration(round) * 137 * time.Millisecond)
			other := m.follower()
			m.sever(leader, true)
			began := time.Now()
			m.propose(other, accept(fmt.Sprint("stack", round), "v1"))
			worst = max(worst, time.Since(began))
			m.sever(leader, false)
			m.agree()
		}
		t.Logf("at most %v", worst)
		if worst > 1300*time.Millisecond {
			t.Errorf("a write waited %v", worst)
		}
	})
}

// TestAFollowerThatWasAwayDisturbsNobody: pre-vote is on.
// TestALeaderThatStandsStillKeepsNobodyWaiting: its connections live on, so
// nothing but the next leader tells those who asked it that they wait in vain.
func TestALeaderThatStandsStillKeepsNobodyWaiting(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		leader := m.leader()
		m.fabric.freeze(string(nodeName(leader)))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var asked sync.WaitGroup
		for i, s := range m.stores {
			if i == leader {
				continue
			}
			asked.Go(func() {
				if err := s.Confirm(ctx); err != nil {
					t.Errorf("m%d: %v", i, err)
				}
			})
			asked.Go(func() {
				node := swarm.Node{ID: nodeName(i), State: swarm.NodeReady}
				if _, err := s.Propose(ctx, Command{PutNode: &node}); err != nil {
					t.Errorf("m%d: %v", i, err)
				}
			})
		}
		asked.Wait()
	})
}

func TestAFollowerThatWasAwayDisturbsNobody(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		leader := m.leader()
		term := m.stores[leader].raft.CurrentTerm()
		for range 20 {
			away := m.follower()
			m.sever(away, true)
			time.Sleep(2 * time.Second)
			m.sever(away, false)
			time.Sleep(time.Second)
		}
		m.agree()
		if now := m.stores[leader].raft.CurrentTerm(); now != term || m.leader() != leader {
			t.Errorf("term %d became %d", term, now)
		}
	})
}

// TestALeaderThatIsCutOffSaysNothingMore: its writes end as uncertain or not
// accepted, it confirms no state, and what the others agreed on meanwhile wins.
func TestALeaderThatIsCutOffSaysNothingMore(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		m.propose(0, accept("shop", "v1"))
		old := m.leader()
		other := m.follower()
		m.sever(old, true)

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := m.stores[old].Propose(ctx, accept("shop", "lost")); !errors.Is(err, ErrUncertain) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write without the others: %v", err)
		}
		m.propose(other, accept("shop", "v2"))
		if err := m.stores[old].Confirm(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("confirmed a state that is old: %v", err)
		}
		if since := time.Since(m.stores[old].LastContact()); since < time.Second {
			t.Errorf("says it heard of a leader %v ago", since)
		}

		m.sever(old, false)
		if err := m.stores[old].Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		if shop, _ := m.stores[old].View().Stack("shop"); shop.Accepted.Content != "sha256:v2" {
			t.Errorf("after it came back it shows %s", shop.Accepted.Content)
		}
		m.agree()
	})
}

// TestADiskThatFailsMovesLeadership: the manager stops for good, the others go
// on, and nothing that was acknowledged is lost.
func TestADiskThatFailsMovesLeadership(t *testing.T) {
	for name, fail := range map[string]func(*failingDisk){
		"fsync":     func(d *failingDisk) { d.fail(syscall.EIO, nil) },
		"full disk": func(d *failingDisk) { d.fail(nil, syscall.ENOSPC) },
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 3, func(t *testing.T, m *managers) {
				m.propose(0, putSource("main"))
				m.propose(0, accept("kept", "v1"))
				leader := m.leader()
				other := m.follower()
				fail(m.disks[leader])
				if _, err := m.stores[leader].Propose(t.Context(), accept("lost", "v1")); !errors.Is(err, ErrFailed) {
					t.Errorf("the manager whose disk failed says %v", err)
				}
				if err := <-m.stores[leader].Failed(); !errors.Is(err, ErrFailed) {
					t.Error(err)
				}
				m.propose(other, accept("after", "v1"))
				if _, there := m.stores[other].View().Stack("kept"); !there {
					t.Error("what was acknowledged is lost")
				}

				m.disks[leader].fail(nil, nil)
				m.stop(leader)
				m.start(leader)
				m.agree()
			})
		})
	}
}

// TestDamageOnOneOfThreeIsNoticedAndHealed: a manager whose files were changed
// does not open; without them it joins again as the node it was.
func TestDamageOnOneOfThreeIsNoticedAndHealed(t *testing.T) {
	for name, damage := range map[string]struct {
		file string
		do   func(path string) error
	}{
		"a bit in the log": {logDir + "/*.wal", func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return flip(int64(used(data) - 30))(path) // what lies before may have been let go
		}},
		"a bit in a snapshot":     {snapDir + "/*.snap", flip(100)},
		"a snapshot cut off":      {snapDir + "/*.snap", truncate(-1)},
		"a log without its files": {logDir + "/*.wal", os.Remove},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 3, func(t *testing.T, m *managers) {
				m.propose(0, putSource("main"))
				for i := range 5 {
					m.propose(0, accept(fmt.Sprint("stack", i), "v1"))
				}
				m.agree()
				hurt := m.follower()
				if err := m.stores[hurt].Snapshot(); err != nil {
					t.Fatal(err)
				}
				m.propose(0, accept("later", "v1"))
				m.agree()
				m.stop(hurt)
				files, _ := filepath.Glob(filepath.Join(m.root, string(nodeName(hurt)), damage.file))
				if len(files) == 0 {
					t.Fatal("there is nothing to damage")
				}
				if err := damage.do(files[len(files)-1]); err != nil {
					t.Fatal(err)
				}
				if s, err := Open(m.config(hurt)); err == nil {
					shut(t, s)
					t.Fatal("it opened")
				} else if !strings.Contains(err.Error(), "backup") {
					t.Errorf("no way out: %v", err)
				}

				m.wipe(hurt)
				m.start(hurt)
				m.add(hurt)
				m.agree()
			})
		})
	}
}

// TestAManagerThatWasAwayForLongCatchesUpFromASnapshot, which each manager has
// sealed with keys of its own.
func TestAManagerThatWasAwayForLongCatchesUpFromASnapshot(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		away := m.follower()
		m.stop(away)
		for i := range 60 {
			m.propose(m.leader(), accept(fmt.Sprint("stack", i), "v1"))
		}
		time.Sleep(30 * time.Second)
		leader := m.stores[m.leader()]
		first, _ := leader.log.FirstIndex()
		last, _ := leader.log.LastIndex()
		if last-first > 40 {
			t.Fatalf("the log holds all: %d to %d", first, last)
		}
		m.start(away)
		m.agree()
		m.stop(away)
		m.start(away) // from what it was sent
		m.agree()
	})
}

// TestAWipedManagerDoesNotVoteAsTheOneItWas: with its disk it lost what it had
// acknowledged. A manager that lacks that must not win by its vote.
func TestAWipedManagerDoesNotVoteAsTheOneItWas(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		leader := m.leader()
		behind, wiped := (leader+1)%3, (leader+2)%3
		m.stop(behind)
		m.propose(leader, accept("shop", "v1")) // the leader and one more have it
		m.agree()
		m.stop(wiped)
		m.stop(leader)
		m.wipe(wiped)
		m.start(wiped)
		m.start(behind)
		time.Sleep(time.Minute)
		for _, i := range []int{behind, wiped} {
			if _, err := m.stores[i].ReadIndex(t.Context()); !errors.Is(err, ErrNotLeader) {
				t.Fatalf("m%d leads without what was acknowledged: %v", i, err)
			}
		}

		m.start(leader)
		m.add(wiped)
		m.agree()
		for i, s := range m.stores {
			if _, there := s.View().Stack("shop"); !there {
				t.Errorf("m%d has lost it", i)
			}
		}
	})
}

// TestOneManagerGoesOnAloneWhenTheOthersAreLost, and those take no part in its
// cluster when they come back after all.
func TestOneManagerGoesOnAloneWhenTheOthersAreLost(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(m.leader(), Command{At: noon, Lead: &Lead{Node: "m0", Cluster: "c1"}})
		m.propose(0, putSource("main"))
		for i := range 3 {
			m.propose(0, Command{At: noon, PutNode: &swarm.Node{ID: nodeName(i), Role: swarm.RoleManager}})
		}
		m.propose(0, accept("shop", "v1"))
		m.agree()
		before := m.stores[1].View().Index()
		for i := range 3 {
			m.stop(i)
		}

		if err := Recover(m.config(1), noon.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		m.start(1)
		m.propose(1, accept("blog", "v1"))
		m.start(0)
		m.start(2)
		time.Sleep(30 * time.Second)
		view := m.stores[1].View()
		if members := m.stores[1].Members(); len(members) != 1 || view.Index() <= before+1_000_000 || view.ClusterID() != "c1" {
			t.Errorf("%v at index %d of %q", members, view.Index(), view.ClusterID())
		}
		if node, _ := view.Node("m2"); node.Role != swarm.RoleWorker {
			t.Errorf("m2 is a %s", node.Role)
		}
		if _, there := m.stores[0].View().Stack("blog"); there {
			t.Error("the old cluster took a command of the new one")
		}

		m.stop(2)
		m.wipe(2)
		m.start(2)
		if err := m.stores[1].Add(t.Context(), Member{Node: "m2", Address: "m2"}); err != nil {
			t.Fatal(err)
		}
		if _, there := m.stores[2].View().Stack("blog"); !there {
			synctest.Wait()
			if err := m.stores[2].Confirm(t.Context()); err != nil {
				t.Error(err)
			}
		}
		m.stop(0)
		m.agree()
	})
}

func TestRecoveryNeedsAStore(t *testing.T) {
	p := newPlace(t)
	if err := Recover(p.config(), noon); err == nil || !strings.Contains(err.Error(), "no store") {
		t.Error(err)
	}
}

// TestALogOfWhichEntriesWereTakenBackOpens: what the manager wrote that nobody
// agreed on gives way to what the others did; after a restart all is there.
func TestALogOfWhichEntriesWereTakenBackOpens(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		for round := range 3 {
			old := m.leader()
			m.sever(old, true)
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				if _, err := m.stores[old].Propose(ctx, accept("shop", "lost")); !errors.Is(err, ErrUncertain) {
					t.Errorf("a write without the others: %v", err)
				}
				cancel()
			}
			m.propose((old+1)%3, accept(fmt.Sprint("stack", round), "v1"))
			m.sever(old, false)
			m.agree()
			m.stop(old)
			m.start(old)
			m.agree()
			if _, there := m.stores[old].View().Stack("shop"); there {
				t.Error("what nobody agreed on is there")
			}
		}
	})
}
