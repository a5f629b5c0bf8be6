package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
)

// event is one thing that happens to the cluster.
type event struct {
	at   time.Duration // since the cluster was formed
	what string
	do   func()
}

// disturbed is for how long things happen.
const disturbed = 25 * time.Second

// disturb plays what the seed says.
func (s *sim) disturb() {
	began := time.Now()
	plan := s.plan()
	for time.Since(began) < disturbed && !s.isBroken() {
		for len(plan) > 0 && time.Since(began) >= plan[0].at {
			s.say("%s", plan[0].what)
			do := plan[0].do
			plan = plan[1:]
			do()
		}
		s.check()
		s.step()
	}
}

// plan draws everything that will happen, so that a seed is one story.
func (s *sim) plan() (plan []event) {
	add := func(at time.Duration, what string, do func()) { plan = append(plan, event{at, what, do}) }
	for range 3 + s.chance.IntN(5) {
		s.drawFault(s.moment(), add)
	}
	for range 4 + s.chance.IntN(6) {
		s.drawAct(s.moment(), add)
	}
	for i := range 8 {
		id := fmt.Sprintf("token%d", i)
		host := s.hosts[s.chance.IntN(len(s.hosts))]
		add(s.moment(), host.name+" is asked to write "+id, func() { s.write(host, id) })
		reader := s.hosts[s.chance.IntN(len(s.hosts))]
		add(s.moment(), reader.name+" is asked what there is", func() { s.read(reader) })
	}
	slices.SortStableFunc(plan, func(a, b event) int { return int(a.at - b.at) })
	return plan
}

func (s *sim) moment() time.Duration { return time.Duration(s.chance.Int64N(int64(disturbed))) }

// lasting is how long a fault lasts: mostly short.
func (s *sim) lasting() time.Duration {
	return time.Duration(200+s.chance.IntN(1000)*s.chance.IntN(10)) * time.Millisecond
}

// drawFault draws something that breaks, and that it is mended.
func (s *sim) drawFault(at time.Duration, add func(time.Duration, string, func())) {
	host, node := s.hosts[s.chance.IntN(len(s.hosts))], s.nodes[s.chance.IntN(len(s.nodes))]
	until := at + s.lasting()
	switch s.chance.IntN(12) {
	case 0, 1:
		machine := s.chance.IntN(2) == 0
		add(at, fmt.Sprintf("%s is killed, machine %v", host.name, machine), func() { s.kill(host, machine) })
		add(until, host.name+" starts", func() { s.revive(host) })
	case 2:
		add(at, "the leader's machine is killed", func() {
			if leader := s.leader(); leader != nil {
				s.kill(leader, true)
			}
		})
		add(until, "whoever is down starts", func() {
			for _, h := range s.hosts {
				s.revive(h)
			}
		})
	case 3:
		add(at, "the disk of "+host.name+" is full", func() { s.hurt(host, (*disk).fill) })
		add(until, host.name+" has room again", func() { s.repair(host) })
	case 4:
		syncs := 1 + s.chance.IntN(8)
		add(at, fmt.Sprintf("the disk of %s breaks at fsync %d", host.name, syncs), func() {
			s.hurt(host, func(d *disk) { d.breaks(syncs) })
		})
		add(until, host.name+" has a disk again", func() { s.repair(host) })
	case 5, 6, 7:
		s.drawPartition(at, until, add)
	case 8:
		slowest := time.Duration(20+s.chance.IntN(280)) * time.Millisecond
		add(at, fmt.Sprintf("packets take up to %s", slowest), func() { s.network.slow(slowest) })
		add(until, "packets are fast again", func() { s.network.slow(2 * time.Millisecond) })
	case 9:
		reboot := s.chance.IntN(2) == 0
		add(at, fmt.Sprintf("the agent of %s dies, machine %v", node.id, reboot), func() { s.fell(node, reboot) })
		add(until, "the agent of "+string(node.id)+" starts", func() {
			if node.stop == nil {
				node.start()
			}
		})
	case 10:
		add(at, "a container of "+string(node.id)+" dies", func() {
			if running := node.runtime.Running(); len(running) > 0 {
				node.runtime.End(running[0], runtime.Exit{Code: 1})
			}
		})
	case 11:
		add(at, host.name+" is replaced by a new machine", func() { s.replaceMachine(host) })
	}
}

// replaceMachine takes a manager with all that it kept, if the others are
// there: two at once would be more than a cluster of three can lose.
func (s *sim) replaceMachine(h *host) {
	if s.replaced || s.whole() != "" || s.unreachable() {
		return
	}
	s.replaced = true
	s.must(h.kill(true))
	s.must(h.wipe())
	s.must(h.start())
	s.say("  %s is a new machine", h.name)
}

// unreachable reports whether any manager does not answer the leader.
func (s *sim) unreachable() bool {
	leader := s.leader()
	return leader == nil || slices.ContainsFunc(leader.running.store.Members(), func(m store.Member) bool { return !m.Reachable })
}

// drawPartition draws links that fail: of the leader, of some machines, or of
// one pair.
func (s *sim) drawPartition(at, until time.Duration, add func(time.Duration, string, func())) {
	h := []health{silent, severed}[s.chance.IntN(2)]
	how := map[health]string{silent: "silent", severed: "severed"}[h]
	var links []link
	if s.chance.IntN(3) == 0 {
		add(at, "the leader's links are "+how, func() {
			if leader := s.leader(); leader != nil {
				links = s.around([]string{leader.name})
				s.setLinks(links, h)
			}
		})
	} else {
		var side []string
		for _, n := range s.nodes {
			if s.chance.IntN(3) == 0 {
				side = append(side, string(n.id))
			}
		}
		links = s.around(side)
		if s.chance.IntN(3) == 0 {
			links = []link{linkOf("m1", "m2")}
		}
		add(at, fmt.Sprintf("links are %s: %v", how, links), func() { s.setLinks(links, h) })
	}
	add(until, "those links are sound", func() { s.setLinks(links, sound) })
}

func (s *sim) setLinks(links []link, h health) {
	for _, l := range links {
		s.network.set(l, h)
	}
}

// around are the links between some machines and the others.
func (s *sim) around(side []string) (links []link) {
	for _, n := range s.nodes {
		for _, in := range side {
			if !slices.Contains(side, string(n.id)) {
				links = append(links, linkOf(in, string(n.id)))
			}
		}
	}
	return links
}

func (s *sim) kill(h *host, machine bool) {
	if h.running != nil {
		s.must(h.kill(machine))
	}
}

func (s *sim) revive(h *host) {
	if h.running == nil {
		s.must(h.start())
	}
}

// hurt makes the disk of a manager that runs fail.
func (s *sim) hurt(h *host, how func(*disk)) {
	if h.running != nil {
		h.hurt = true
		how(h.disk)
	}
}

// repair gives a manager a disk that works, with what the old one had kept.
func (s *sim) repair(h *host) {
	s.must(h.mend())
	s.revive(h)
}

// fell ends an agent, and with its machine all that runs there.
func (s *sim) fell(n *node, machine bool) {
	if n.stop == nil {
		return
	}
	s.must(n.stop())
	if machine {
		for _, id := range n.runtime.Running() {
			n.runtime.End(id, runtime.Exit{Code: 137})
		}
	}
}
