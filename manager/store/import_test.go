package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// exported is what a store exports, and its index.
func exported(t testing.TB, s *Store) ([]byte, uint64) {
	t.Helper()
	var b bytes.Buffer
	index, err := s.Export(&b)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), index
}

func TestAnotherMachineGoesOnWithAnExportedState(t *testing.T) {
	s := newPlace(t).open(t)
	propose(t, s, Command{At: noon, Lead: &Lead{Node: "m1", Cluster: "c1"}})
	propose(t, s, putSource("main"))
	propose(t, s, accept("shop", "v1"))
	for _, node := range []swarm.Node{{ID: "m1", Role: swarm.RoleManager}, {ID: "m2", Role: swarm.RoleManager}, {ID: "w1", Role: swarm.RoleWorker}} {
		propose(t, s, Command{At: noon, PutNode: &node})
	}
	state, index := exported(t, s)
	for range 100 { // that the export does not know, and agents may have seen
		propose(t, s, accept("shop", "v2"))
	}

	to := newPlace(t)
	config := to.config()
	config.Node = "new"
	now := noon.Add(time.Hour)
	imported, err := Import(config, bytes.NewReader(state), now)
	if err != nil {
		t.Fatal(err)
	}
	if imported.Index < s.View().Index()+1_000_000 || imported.Index > 1<<53 {
		t.Errorf("from index %d on to %d, while the old cluster is at %d", index, imported.Index, s.View().Index())
	}

	for round := range 3 { // and after restarts
		back, err := Open(config)
		if err != nil {
			t.Fatal(err)
		}
		view := back.View()
		record, _ := view.Stack("shop")
		if view.ClusterID() != "c1" || record.Accepted.Content != rendered("v1").Content || len(view.Sources()) != 1+round {
			t.Errorf("round %d: cluster %q, shop %q, %d sources", round, view.ClusterID(), record.Accepted.Content, len(view.Sources()))
		}
		if got := propose(t, back, putSource(fmt.Sprint("later-", round))); got <= imported.Index || got > imported.Index+100 {
			t.Errorf("round %d: the next index is %d", round, got)
		}
		if round == 1 {
			if err := back.Snapshot(); err != nil {
				t.Error(err)
			}
		}
		for id, role := range map[swarm.NodeID]string{"m1": swarm.RoleWorker, "m2": swarm.RoleWorker, "w1": swarm.RoleWorker} {
			if node, _ := view.Node(id); node.Role != role {
				t.Errorf("%s is a %s", id, node.Role)
			}
		}
		if events := view.Events(0, 1000); round == 0 && !strings.Contains(events[len(events)-1].Text, "goes on alone") {
			t.Errorf("the newest event is %q", events[len(events)-1].Text)
		}
		shut(t, back)
	}
}

// TestALaterRestoreOfTheSameBackupIsAheadOfTheEarlierOne: agents have seen
// indexes of the cluster that the first restore began.
func TestALaterRestoreOfTheSameBackupIsAheadOfTheEarlierOne(t *testing.T) {
	s := newPlace(t).open(t)
	propose(t, s, putSource("main"))
	state, index := exported(t, s)
	last := index
	for _, after := range []time.Duration{-80 * 365 * 24 * time.Hour, 0, time.Hour, 24 * 365 * 50 * time.Hour} {
		imported, err := Import(newPlace(t).config(), bytes.NewReader(state), noon.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		if imported.Index < last+3_600_000_000 || imported.Index > 1<<53 {
			t.Errorf("after %v: index %d, before it %d", after, imported.Index, last)
		}
		last = imported.Index
	}
}

func TestManagersJoinOneThatBeganFromABackup(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		state, index := exported(t, m.stores[0])
		for i := range m.stores {
			m.stop(i)
			if err := os.RemoveAll(m.config(i).Dir); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Import(m.config(0), bytes.NewReader(state), noon); err != nil {
			t.Fatal(err)
		}
		for i := range m.stores {
			m.start(i)
			if i > 0 {
				m.add(i)
			}
		}
		m.propose(1, accept("shop", "v1"))
		m.agree()
		view := m.stores[2].View()
		if _, ok := view.Source("main"); !ok || view.Index() < index+1_000_000 {
			t.Errorf("a manager that joined is at index %d and knows the source: %v", view.Index(), ok)
		}
		leader := m.leader()
		m.stop(leader)
		m.propose((leader+1)%3, accept("shop", "v2"))
	})
}

func TestImportRefusesWhatItCannotGoOnWith(t *testing.T) {
	s := newPlace(t).open(t)
	propose(t, s, putSource("main"))
	state, _ := exported(t, s)

	used := newPlace(t)
	shut(t, used.open(t))
	if _, err := Import(used.config(), bytes.NewReader(state), noon); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a folder in use: %v", err)
	}
	for name, broken := range map[string][]byte{
		"nothing": nil, "half": state[:len(state)/2], "more": append(bytes.Clone(state), 0), "noise": bytes.Repeat([]byte{7}, 500),
	} {
		to := newPlace(t)
		if _, err := Import(to.config(), bytes.NewReader(broken), noon); err == nil {
			t.Errorf("%s was taken", name)
		}
		if _, err := os.Stat(to.dir); err == nil {
			t.Errorf("%s: a folder was made", name)
		}
	}
}

func TestTheKeysOfLogAndSnapshotsAreKnown(t *testing.T) {
	p := newPlace(t)
	s, err := Open(Config{Dir: p.dir, Node: "m1", Keyring: p.keyring, TrailingLogs: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	old := p.keyring.Current()
	propose(t, s, putSource("main"))
	if err := p.keyring.Rotate(); err != nil {
		t.Fatal(err)
	}
	propose(t, s, putSource("other"))
	check := func(when string, needsOld bool) {
		t.Helper()
		keys, err := s.Keys()
		if err != nil || !keys[p.keyring.Current()] || keys[old] != needsOld {
			t.Errorf("%s: %v, %v", when, keys, err)
		}
	}
	check("two keys in the log", true)

	for range 3 { // the old snapshot goes, and the log's beginning
		propose(t, s, putSource("main"))
		if err := s.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	check("snapshots under the new key", false)
	if n, err := p.keyring.Retire(time.Now().Add(2*time.Hour), s.Keys); err != nil || n != 1 {
		t.Errorf("%d keys went, %v", n, err)
	}
	want := state(t, s)
	shut(t, s)
	again, err := seal.Open(filepath.Join(filepath.Dir(p.dir), "keyring"), nil)
	if err != nil {
		t.Fatal(err)
	}
	p.keyring = again
	if !bytes.Equal(state(t, p.open(t)), want) {
		t.Error("the state is another without the old key")
	}
}
