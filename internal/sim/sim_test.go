package sim

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/manager/registry"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "play this seed alone, and print what happened")
	seedsFlag = flag.Int("seeds", 8, "how many seeds to play")
	firstFlag = flag.Uint64("first", 1, "the first of them")
)

// TestSeeds plays clusters that are disturbed as each seed says.
func TestSeeds(t *testing.T) {
	first, n := *firstFlag, *seedsFlag
	if *seedFlag != 0 {
		first, n = *seedFlag, 1
	}
	for seed := first; seed < first+uint64(n); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			play(t, seed, *seedFlag != 0)
		})
	}
}

// sim is one cluster in a bubble of virtual time.
type sim struct {
	t        *testing.T
	seed     uint64
	root     string
	chance   *rand.Rand // for faults and people, in the order of the plan
	began    time.Time
	network  *network
	library  *library
	rules    *rules
	hosts    []*host
	nodes    []*node
	registry *registry.Client
	syncer   *gitsync.Syncer
	people   sync.WaitGroup
	replaced bool // a manager's machine was, with all that it kept

	mu     sync.Mutex
	told   bytes.Buffer
	broken string // the first rule that did not hold
}

// scratch is a folder in memory where there is one: fsync costs nothing there.
func scratch(t *testing.T) string {
	for _, parent := range []string{"/dev/shm", ""} {
		if dir, err := os.MkdirTemp(parent, "gitswarm-sim-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	t.Fatal("there is no folder for what the cluster keeps")
	return ""
}

func play(t *testing.T, seed uint64, verbose bool) {
	root := scratch(t)
	images, err := registry.New(registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	syncer := gitsync.New(gitsync.Config{Dir: root + "/git"})
	var s *sim
	synctest.Test(t, func(t *testing.T) {
		s = &sim{
			t: t, seed: seed, root: root, chance: rand.New(rand.NewPCG(seed, 0)), began: time.Now(),
			network: newNetwork(seed), library: newLibrary(), registry: images, syncer: syncer,
		}
		s.rules = newRules(s)
		defer s.end()
		s.form()
		s.disturb()
		s.settle()
	})
	if s.broken != "" {
		t.Errorf("%s\nrepeat: go test ./internal/sim -run TestSeeds -seed %d\n%s", s.broken, seed, s.told.String())
	} else if verbose {
		t.Log(s.told.String())
	}
	t.Logf("%d views judged, %d after a single command; %d writes acknowledged", s.rules.views, s.rules.single, len(s.rules.acks))
}

// say notes what happens.
func (s *sim) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.told, "%8.3f  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// broke notes that a rule does not hold.
func (s *sim) broke(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	if s.broken == "" {
		s.broken = fmt.Sprintf("after %s: %s", time.Since(s.began), text)
	}
	s.mu.Unlock()
	s.say("BROKEN %s", text)
}

func (s *sim) isBroken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken != ""
}

func (s *sim) must(err error) {
	if err != nil {
		s.broke("the simulation itself: %v", err)
	}
}

// wait lets everything happen that takes no time.
func (s *sim) wait() { synctest.Wait() }

// log takes what a part of the cluster logs into what is told.
func (s *sim) log(who string) *slog.Logger {
	if *seedFlag == 0 {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(writer(func(line string) { s.say("  %s: %s", who, line) }), nil))
}

type writer func(string)

func (w writer) Write(p []byte) (int, error) {
	w(strings.TrimSpace(string(p)))
	return len(p), nil
}

// addresses are the managers', as a joining node is told them.
func (s *sim) addresses() []string {
	var all []string
	for _, h := range s.hosts {
		all = append(all, h.name)
	}
	return all
}

// form makes a cluster of three managers and two workers, with two stacks.
func (s *sim) form() {
	for i := range 3 {
		h, err := newHost(s, fmt.Sprint("m", i+1))
		s.must(err)
		s.hosts = append(s.hosts, h)
	}
	for _, h := range s.hosts {
		s.must(h.start())
	}
	for _, id := range []swarm.NodeID{"m1", "m2", "m3", "w1", "w2"} {
		n, err := newNode(s, id)
		s.must(err)
		s.nodes = append(s.nodes, n)
		role := swarm.RoleWorker
		if n.manages() {
			role = swarm.RoleManager
		}
		_, err = s.hosts[0].running.store.Propose(context.Background(), store.Command{At: time.Now(), PutNode: &swarm.Node{
			ID: id, Role: role, State: swarm.NodeUnknown, Description: n.describe(),
		}})
		s.must(err)
		n.start()
	}
	s.until("three managers vote", time.Minute, func() string { return s.whole() })
	for _, name := range stackNames() {
		s.must(s.commit(context.Background(), s.hosts[0].running, draft(name, imageGood+":0", 1, 3), "c0"))
	}
	s.until("the stacks run", time.Minute, func() string { return s.unsettled() })
	s.say("formed")
}

func stackNames() []swarm.StackName { return []swarm.StackName{"blog", "shop"} }

// until waits for a claim; holds returns why it does not hold yet, or "".
func (s *sim) until(claim string, limit time.Duration, holds func() string) {
	began := time.Now()
	for !s.isBroken() {
		s.check()
		why := holds()
		if why == "" {
			return
		}
		if time.Since(began) > limit {
			s.broke("after %s it is still not so that %s: %s", limit, claim, why)
			return
		}
		s.step()
	}
}

// stepTime is how often the plan and the rules that look at machines are
// looked at.
const stepTime = 250 * time.Millisecond

func (s *sim) step() {
	time.Sleep(stepTime)
	s.wait()
	for _, h := range s.hosts {
		s.must(h.tend())
	}
}

// whole returns why the managers are not all there, or "".
func (s *sim) whole() string {
	leaders := 0
	for _, h := range s.hosts {
		if h.running == nil {
			return h.name + " is down"
		}
		members := h.running.store.Members()
		if len(members) != len(s.hosts) || slices.ContainsFunc(members, func(m store.Member) bool { return !m.Voter }) {
			return fmt.Sprintf("%s has the members %v", h.name, members)
		}
		if leader, known := h.running.store.Leader(); known && leader.Node == swarm.NodeID(h.name) {
			leaders++
		}
	}
	if leaders != 1 {
		return fmt.Sprintf("%d managers lead", leaders)
	}
	return ""
}

// leader returns the manager that leads, as it says itself.
func (s *sim) leader() *host {
	for _, h := range s.hosts {
		if h.running == nil {
			continue
		}
		if leader, known := h.running.store.Leader(); known && leader.Node == swarm.NodeID(h.name) {
			return h
		}
	}
	return nil
}

// end stops everything.
func (s *sim) end() {
	s.network.heal()
	s.people.Wait()
	for _, n := range s.nodes {
		if n.stop != nil {
			s.must(n.stop())
		}
	}
	for _, h := range s.hosts {
		if h.running != nil {
			h.running.stop()
			<-h.running.ended
		}
	}
	s.wait()
}
