package sim

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// check holds the rules that look at machines.
func (s *sim) check() {
	acks := s.rules.acked()
	for _, h := range s.hosts {
		if h.running != nil {
			s.rules.has(h.name, h.running.store.View(), acks, false)
		}
	}
	leader := s.leader()
	for _, n := range s.nodes {
		if n.stop == nil || leader == nil || !s.network.reaches(string(n.id), s.addresses()) {
			n.lost = time.Now()
		}
	}
	if leader != nil {
		s.alone(leader.running.store.View())
	}
}

// alone holds that a seat has one container that runs, unless its stack starts
// the new one first, one of them is on its way to another node, or on a node
// that cannot know better.
func (s *sim) alone(view *store.View) {
	seats := make(map[swarm.Seat][]swarm.TaskID)
	excused := make(map[swarm.Seat]bool)
	for _, n := range s.nodes {
		if at, _ := view.Node(n.id); at.Availability != swarm.NodeActive {
			n.emptied = time.Now()
		}
	}
	for _, n := range s.nodes {
		for _, id := range n.runtime.Running() {
			c := n.container(id)
			seat := swarm.Seat{Service: c.Service, Slot: c.Slot}
			seats[seat] = append(seats[seat], id)
			task, _ := view.Task(id)
			first := s.library.service(c.SpecDigest).Update.Order == swarm.StartFirst
			excused[seat] = excused[seat] || first || task.Excused != "" || time.Since(n.emptied) < moving || time.Since(n.lost) < returned
		}
	}
	for seat, ids := range seats {
		if len(ids) > 1 && !excused[seat] {
			s.broke("slot %d of %s has the containers %v", seat.Slot, seat.Service, ids)
		}
	}
}

// settle ends all faults and holds that the cluster comes to rest: as one, on
// what was committed last.
func (s *sim) settle() {
	if s.isBroken() {
		return
	}
	s.say("all faults end")
	s.network.heal()
	s.network.slow(2 * time.Millisecond)
	for _, h := range s.hosts {
		s.must(h.mend())
		s.revive(h)
	}
	for _, n := range s.nodes {
		if n.stop == nil {
			n.start()
		}
	}
	s.people.Wait()
	s.until("three managers vote", time.Minute, s.whole)
	for _, n := range s.nodes {
		s.persist("activate "+string(n.id), func(ctx context.Context, p *process) error {
			return p.leader.SetAvailability(ctx, n.id, swarm.NodeActive, "ana")
		})
	}
	s.until("every rollout has ended", 3*time.Minute, s.unended)
	for _, name := range stackNames() {
		s.persist("commit "+string(name), func(ctx context.Context, p *process) error {
			return s.commit(ctx, p, draft(name, imageGood+":last", 1, 2), "last")
		})
	}
	s.until("the stacks run what was committed last", 3*time.Minute, s.unsettled)
	s.agree()
	s.clear()
}

// persist does something until a manager says that it is done.
func (s *sim) persist(what string, do func(context.Context, *process) error) {
	s.until(what, time.Minute, func() string {
		leader := s.leader()
		if leader == nil {
			return "no manager leads"
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := do(ctx, leader.running); err != nil {
			return err.Error()
		}
		return ""
	})
}

// unended returns a stack whose rollout goes on, or "".
func (s *sim) unended() string {
	leader := s.leader()
	if leader == nil {
		return "no manager leads"
	}
	for _, record := range leader.running.store.View().Stacks() {
		if phase := record.Rollout.Phase; !phase.Ended() && phase != swarm.PhasePaused && phase != swarm.PhaseWaiting {
			return fmt.Sprintf("%s is %s: %s", record.Name, phase, record.Rollout.Why)
		}
	}
	return ""
}

// unsettled returns what is not yet as the newest commits ask, or "".
func (s *sim) unsettled() string {
	leader := s.leader()
	if leader == nil {
		return "no manager leads"
	}
	view := leader.running.store.View()
	for _, node := range view.Nodes() {
		if node.State != swarm.NodeReady {
			return fmt.Sprintf("node %s is %s", node.ID, node.State)
		}
	}
	wanted := make(map[swarm.TaskID]bool)
	for _, name := range stackNames() {
		record, there := view.Stack(name)
		if !there || record.Rollout.Phase != swarm.PhaseHealthy || record.Healthy.Content != record.Head.Content {
			return fmt.Sprintf("%s is %s: %s; its head is %s", name, record.Rollout.Phase, record.Rollout.Why, record.Head.Revision)
		}
		service, _ := s.library.stack(record.Healthy.Content).Service("web")
		slots := make(map[int]bool)
		for _, task := range view.Tasks(name) {
			if !task.Status.State.Live() {
				continue
			}
			if !serves(view, task) || task.Spec != service.Spec || slots[task.Slot] {
				return fmt.Sprintf("%s is to %s and %s", task.ID, task.Desired, task.Status.State)
			}
			slots[task.Slot], wanted[task.ID] = true, true
		}
		replicas := service.Replicas
		if scaled, is := record.Scale["web"]; is {
			replicas = scaled
		}
		if len(slots) != replicas {
			return fmt.Sprintf("%s has %d of %d replicas", name, len(slots), replicas)
		}
	}
	running := 0
	for _, n := range s.nodes {
		for _, id := range n.runtime.Running() {
			if running++; !wanted[id] {
				return fmt.Sprintf("%s still runs on %s", id, n.id)
			}
		}
	}
	if running != len(wanted) {
		return fmt.Sprintf("%d of %d containers run", running, len(wanted))
	}
	return ""
}

// agree holds that all managers show one state, and that nothing which was
// acknowledged is missing in it.
func (s *sim) agree() {
	for _, h := range s.hosts {
		if s.isBroken() || h.running == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := h.running.store.Confirm(ctx); err != nil {
			s.broke("%s does not confirm its state: %v", h.name, err)
		}
		cancel()
		s.rules.has(h.name, h.running.store.View(), s.rules.acked(), true)
	}
	s.until("all managers show one state", 10*time.Second, func() string {
		var states [][]byte
		for _, h := range s.hosts {
			var state bytes.Buffer
			if _, err := h.running.store.Export(&state); err != nil {
				return err.Error()
			}
			states = append(states, state.Bytes())
		}
		if slices.ContainsFunc(states, func(b []byte) bool { return !bytes.Equal(b, states[0]) }) {
			return "they differ"
		}
		return ""
	})
}

// clear holds that no secret is in clear on any disk.
func (s *sim) clear() {
	s.must(filepath.WalkDir(s.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(secretText)) {
			s.broke("%s has a secret in clear", path)
		}
		return err
	}))
	for _, h := range s.hosts {
		for name, f := range h.disk.files {
			if bytes.Contains(f.data, []byte(secretText)) {
				s.broke("%s of %s has a secret in clear", name, h.name)
			}
		}
	}
}
