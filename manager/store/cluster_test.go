package store

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// inCluster runs a story on that many managers in virtual time.
func inCluster(t *testing.T, n int, story func(t *testing.T, m *managers)) {
	root := t.TempDir() // its removal waits for nothing in the bubble
	synctest.Test(t, func(t *testing.T) {
		m := &managers{t: t, root: root, fabric: newFabric()}
		defer m.stopAll()
		m.form(n)
		story(t, m)
	})
}

// agree waits until all managers that run show the same state.
func (m *managers) agree() {
	m.t.Helper()
	var want []byte
	for i, s := range m.stores {
		if s == nil {
			continue
		}
		if err := s.Confirm(m.t.Context()); err != nil {
			m.t.Fatal(err)
		}
		got := state(m.t, s)
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			m.t.Errorf("m%d has another state: %d bytes, %d", i, len(got), len(want))
		}
		select {
		case err := <-s.Failed():
			m.t.Error(err)
		default:
		}
	}
}

// TestThreeManagersAgreeWhileLeadersComeAndGo: a manager that comes back is
// brought up from the log or a snapshot, with keys of its own.
func TestThreeManagersAgreeWhileLeadersComeAndGo(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		wanted := 0
		for round := range 6 {
			leader := m.leader()
			m.stop(leader)
			other := (leader + 1) % 3
			for i := range 10 + 15*round { // beyond what the log keeps, later on
				m.propose(other, accept(fmt.Sprintf("stack-%d-%d", round, i), "v1"))
			}
			wanted += 10 + 15*round
			time.Sleep(30 * time.Second)
			m.start(leader)
		}
		m.agree()
		if n := len(m.stores[0].View().Stacks()); n != wanted {
			t.Errorf("%d of %d stacks", n, wanted)
		}
	})
}

func TestAnyManagerTakesCommands(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		m.propose(0, putSource("main"))
		for i, s := range m.stores {
			index, err := s.Propose(t.Context(), accept(fmt.Sprint("stack", i), "v1"))
			if err != nil {
				t.Fatal(err)
			}
			if _, there := s.View().Stack(swarm.StackName(fmt.Sprint("stack", i))); !there || s.View().Index() < index {
				t.Errorf("m%d does not show what it proposed itself", i)
			}
		}
	})
}
