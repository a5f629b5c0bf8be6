package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestManagersComeAndGoOneByOne(t *testing.T) {
	inCluster(t, 5, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		members := m.stores[m.leader()].Members()
		if len(members) != 5 || members[4].Node != "m4" || members[4].Address != "m4" {
			t.Errorf("members are %+v", members)
		}
		for _, member := range members {
			if !member.Voter || !member.Reachable {
				t.Errorf("%+v", member)
			}
		}
		for i := 4; i > 0; i-- {
			leader := m.leader()
			if leader == i {
				if err := m.stores[i].Remove(t.Context(), nodeName(i)); err == nil || !strings.Contains(err.Error(), "hand over first") {
					t.Errorf("a leader removes itself: %v", err)
				}
				if err := m.stores[i].HandOver(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
				leader = m.leader()
			}
			if err := m.stores[leader].Remove(t.Context(), nodeName(i)); err != nil {
				t.Fatal(err)
			}
			m.stop(i)
			m.propose(0, accept("shop", "v1"))
		}
		if err := m.stores[0].Removable("m0"); err == nil || !strings.Contains(err.Error(), "last manager") {
			t.Errorf("the last one: %v", err)
		}
		if err := m.stores[0].Remove(t.Context(), "m4"); err != nil {
			t.Errorf("one who left already: %v", err)
		}
	})
}

func TestNobodyLeavesWhereTooFewWouldAnswer(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		leader, gone := m.leader(), m.follower()
		other := 3 - leader - gone
		m.sever(gone, true)
		time.Sleep(5 * time.Second)
		s := m.stores[leader]
		err := s.Remove(t.Context(), nodeName(other))
		if err == nil || !strings.Contains(err.Error(), "bring back or remove "+string(nodeName(gone))) {
			t.Errorf("a manager that is needed: %v", err)
		}
		for _, member := range s.Members() {
			if member.Reachable == (member.Node == nodeName(gone)) {
				t.Errorf("%+v", member)
			}
		}
		if err := s.Remove(t.Context(), nodeName(gone)); err != nil {
			t.Errorf("the one that is gone: %v", err)
		}
		if err := s.Remove(t.Context(), nodeName(other)); err != nil {
			t.Errorf("with two left, both there: %v", err)
		}
	})
}

func TestALeaderHandsOverWithoutAPause(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		old, next := m.leader(), m.follower()
		began := time.Now()
		if err := m.stores[old].HandOver(t.Context(), nodeName(next)); err != nil {
			t.Fatal(err)
		}
		m.propose(3-old-next, accept("shop", "v1"))
		if took := time.Since(began); took > 500*time.Millisecond || m.leader() != next {
			t.Errorf("m%d leads, after %v", m.leader(), took)
		}
		if leader, known := m.stores[old].Leader(); !known || leader.Node != nodeName(next) || !leader.Reachable {
			t.Errorf("m%d sees %+v lead", old, leader)
		}
		if err := m.stores[next].HandOver(t.Context(), "m9"); err == nil {
			t.Error("handed over to nobody")
		}
		if err := m.stores[old].HandOver(t.Context(), ""); !errors.Is(err, ErrNotLeader) {
			t.Errorf("one who does not lead hands over: %v", err)
		}
	})
}

// TestAnAdditionThatWasCutOffIsTakenUpAgain: the new manager is away while it
// catches up, has no vote meanwhile, and is not waited for by anyone else.
func TestAnAdditionThatWasCutOffIsTakenUpAgain(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		leader, gone := m.leader(), m.follower()
		s := m.stores[leader]
		if err := s.Remove(t.Context(), nodeName(gone)); err != nil {
			t.Fatal(err)
		}
		m.stop(gone)
		m.wipe(gone)
		m.start(gone)
		m.propose(leader, accept("shop", "v1"))
		ctx, cancel := context.WithCancel(t.Context())
		cut := make(chan error)
		go func() { cut <- s.Add(ctx, Member{Node: nodeName(gone), Address: string(nodeName(gone))}) }()
		for len(s.Members()) < 3 {
			time.Sleep(time.Millisecond)
		}
		m.sever(gone, true)
		cancel()
		if err := <-cut; !errors.Is(err, context.Canceled) {
			t.Skipf("it was faster than the cut: %v", err)
		}
		m.propose(leader, accept("blog", "v1"))
		m.sever(gone, false)
		m.add(gone)
		m.agree()
		for _, member := range s.Members() {
			if !member.Voter {
				t.Errorf("%+v", member)
			}
		}
	})
}

func TestAManagerThatMovedIsFoundAtItsNewAddress(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		leader, moved := m.leader(), m.follower()
		m.stop(moved)
		config := m.config(moved)
		config.Address, config.Peers = "elsewhere", &peer{m.fabric, "elsewhere"}
		s, err := Open(config)
		if err != nil {
			t.Fatal(err)
		}
		m.stores[moved] = s
		m.propose(leader, accept("shop", "v1"))
		if err := m.stores[leader].Add(t.Context(), Member{Node: nodeName(moved), Address: "elsewhere"}); err != nil {
			t.Fatal(err)
		}
		m.agree()
		if err := m.stores[leader].Add(t.Context(), Member{Node: nodeName(moved), Address: "elsewhere"}); err != nil {
			t.Errorf("added once more: %v", err)
		}
	})
}

func TestOnlyTheLeaderChangesMembers(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		s := m.stores[m.follower()]
		if err := s.Add(t.Context(), Member{Node: "m9", Address: "m9"}); !errors.Is(err, ErrNotLeader) {
			t.Errorf("add: %v", err)
		}
		if err := s.Remove(t.Context(), "m0"); !errors.Is(err, ErrNotLeader) {
			t.Errorf("remove: %v", err)
		}
	})
	s := newPlace(t).open(t)
	if err := s.Add(t.Context(), Member{Node: "m2", Address: "m2"}); err == nil || !strings.Contains(err.Error(), "no address") {
		t.Errorf("a manager without peers: %v", err)
	}
}

// TestAManagerThatWasAloneGrowsWithWhatItHas: its folder was written without
// an address.
func TestAManagerThatWasAloneGrowsWithWhatItHas(t *testing.T) {
	inCluster(t, 1, func(t *testing.T, m *managers) {
		m.stop(0)
		m.wipe(0)
		config := m.config(0)
		config.Address, config.Peers = "", nil
		s, err := Open(config)
		if err != nil {
			t.Fatal(err)
		}
		propose(t, s, putSource("main"))
		shut(t, s)
		m.start(0)
		if members := m.stores[0].Members(); len(members) != 1 || members[0].Address != "m0" {
			t.Errorf("members are %+v", members)
		}
		m.form(2)
		m.agree()
	})
}

func TestForwardedCommandsKeepTheirErrorsApart(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		m.propose(0, accept("shop", "v1"))
		s := m.stores[m.follower()]
		index, err := s.Propose(t.Context(), Command{Operate: &Operate{Stack: "blog", Retry: true}})
		if !errors.Is(err, ErrNotFound) || s.View().Index() < index || index == 0 {
			t.Errorf("index %d, view %d, %v", index, s.View().Index(), err)
		}
		if _, err := s.Propose(t.Context(), Command{PutCluster: &swarm.Cluster{ID: "c", Version: 7}}); !errors.Is(err, ErrStale) {
			t.Errorf("a stale one: %v", err)
		}
		scaled := Command{Operate: &Operate{Stack: "shop", Scale: map[string]int{"web": -1}}}
		if _, err := s.Propose(t.Context(), scaled); err == nil || errors.Is(err, ErrUncertain) || !strings.Contains(err.Error(), "less than 0") {
			t.Errorf("one that the state refuses: %v", err)
		}
		for _, own := range []Command{{Lead: &Lead{Node: "m9"}}, {Decide: &Decide{Decision: swarm.Decision{Stack: "shop"}}}} {
			if _, err := s.Propose(t.Context(), own); !errors.Is(err, ErrNotLeader) {
				t.Errorf("a leader's own: %v", err)
			}
			entry, err := encodeEntry(own)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.stores[m.leader()].Accept(t.Context(), entry); err == nil || !strings.Contains(err.Error(), "only a leader") {
				t.Errorf("a leader's own, forwarded: %v", err)
			}
		}
	})
}

// TestAWriteWithoutAMajorityEndsWithItsContext, and one that waited for a
// leader is accepted when there is one again.
func TestAWriteWithoutAMajorityEndsWithItsContext(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		leader, last := m.leader(), m.follower()
		m.stop(leader)
		m.stop(3 - leader - last)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := m.stores[last].Propose(ctx, accept("shop", "v1")); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no manager leads") {
			t.Errorf("without a majority: %v", err)
		}
		done := make(chan error)
		go func() {
			_, err := m.stores[last].Propose(t.Context(), accept("shop", "v2"))
			done <- err
		}()
		time.Sleep(5 * time.Second)
		m.start(leader)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if shop, _ := m.stores[last].View().Stack("shop"); shop.Accepted.Content != "sha256:v2" {
			t.Errorf("shop is %+v", shop)
		}
	})
}

// TestSnapshotsComeAsOftenAsTheClusterSays, on every manager, also after a
// restart.
func TestSnapshotsComeAsOftenAsTheClusterSays(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, Command{At: noon, PutCluster: &swarm.Cluster{ID: "c", Settings: swarm.ClusterSettings{SnapshotInterval: 777}}})
		m.agree()
		m.stop(2)
		m.start(2)
		time.Sleep(3 * time.Second)
		for i, s := range m.stores {
			if got := s.raft.ReloadableConfig().SnapshotThreshold; got != 777 {
				t.Errorf("m%d takes one every %d entries", i, got)
			}
		}
	})
}

// TestAManagerThatDoesNotAnswerIsToldOnceAMinute and not at each heartbeat.
func TestAManagerThatDoesNotAnswerIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told bytes.Buffer
		sink := newSlogSink(slog.New(slog.NewTextHandler(&told, nil)))
		for range 1000 {
			sink.Accept("raft", hclog.Error, "Failed to heartbeat to", "peer", "m1", "backoff time", time.Now())
			sink.Accept("raft", hclog.Error, "Failed to heartbeat to", "peer", "m2")
			time.Sleep(100 * time.Millisecond)
		}
		if n := strings.Count(told.String(), "m1"); n != 2 || strings.Count(told.String(), "m2") != 2 {
			t.Errorf("told %d times in 100 s:\n%s", n, told.String())
		}
	})
}
