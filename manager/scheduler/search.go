package scheduler

import (
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// search places tasks that ask for the same, one after the other. It lives for
// one call of Place, in which rooms only fill up: a room that refused once is
// not asked again.
type search struct {
	cluster *Cluster
	asked   *Wanted // the first of them, as the caller wrote it
	wanted  *Wanted // the same, with what tasks before it in this call brought
	demand  demand
	begun   bool
	grounds []ranks // still to be searched: nodes where the service does well, then those where it keeps failing
	ground  *ground // that is searched; nil before the first, and behind the last
	why     string  // why no room fits, once that is so
}

func (c *Cluster) search(w *Wanted, t *trial) *search {
	s := &search{cluster: c, asked: w, wanted: w}
	if made := t.made(w); len(made) > 0 {
		follows := *w
		follows.Volumes = slices.Concat(w.Volumes, made)
		s.wanted = &follows
	}
	s.demand = newDemand(s.wanted)
	return s
}

// place answers on one task, and takes what it gives.
func (s *search) place(w *Wanted, t *trial) Placement {
	r, why := s.pick(w)
	if r == nil {
		return Placement{Task: w.Task, Why: "no node fits " + seatName(w) + ": " + why}
	}

	task := &holding{Occupant: Occupant{Task: w.Task, Service: w.Service, Node: r.node.ID}, room: r}
	given := r.give(w.Reservations.Generic)
	if w.Reservations.NanoCPUs > 0 || w.Reservations.Memory > 0 || len(given) > 0 || len(w.HostPorts) > 0 {
		task.Claims = &swarm.Claims{Resources: w.Reservations, Ports: w.HostPorts}
		task.Claims.Resources.Generic = given
	}
	t.take(task)
	for _, id := range w.NewVolumes {
		t.volumes = append(t.volumes, newVolume{swarm.KeptVolume{ID: id, Node: r.node.ID}, w.Service})
	}
	return Placement{Task: w.Task, Node: r.node.ID, Generic: given}
}

// pick returns the best room for the task, or why there is none.
func (s *search) pick(w *Wanted) (*room, string) {
	if w.Node != "" {
		return s.own(w)
	}
	if !s.begun {
		s.begin()
	}
	for s.why == "" {
		if s.ground != nil {
			if r := s.ground.next(); r != nil {
				return r, ""
			}
		}
		if len(s.grounds) == 0 {
			s.why = s.explain()
			break
		}
		s.ground, s.grounds = newGround(s, s.grounds[0]), s.grounds[1:]
	}
	return nil, s.why
}

// own returns the room that is the task's seat.
func (s *search) own(w *Wanted) (*room, string) {
	r := s.cluster.rooms[w.Node]
	if r == nil || !r.known {
		return nil, "node " + string(w.Node) + " has left the cluster"
	}
	there := s.cluster.services[w.Service][r]
	if why := s.demand.refuses(r, there); why.text != "" {
		return nil, tally{why, 1}.String() + ", where it belongs"
	}
	return r, ""
}

// begin splits the nodes that suit the tasks.
func (s *search) begin() {
	suited := s.pinned(s.cluster.match(s.demand))
	failing := newRanks(len(s.cluster.order))
	for _, id := range s.wanted.Failing {
		if r := s.cluster.rooms[id]; r != nil && r.known && suited.has(r.rank) {
			failing.add(r.rank)
			suited.drop(r.rank)
		}
	}
	s.begun = true
	s.grounds = append(s.grounds, suited)
	if len(s.wanted.Failing) > 0 {
		s.grounds = append(s.grounds, failing)
	}
}

// pinned returns, of some nodes, those that the task's volumes let it have.
func (s *search) pinned(nodes ranks) ranks {
	left := slices.Clone(nodes)
	if len(s.wanted.Volumes) == 0 && len(s.wanted.Dropped) == 0 {
		return left
	}
	for rank, r := range s.cluster.order {
		if left.has(rank) && s.demand.apart(r).text != "" {
			left.drop(rank)
		}
	}
	return left
}

// match returns the nodes that take new tasks and are what the tasks ask for.
func (c *Cluster) match(d demand) ranks {
	key := strings.Join(d.Constraints, "\x00") + "\x01" + strings.Join(d.Platforms, "\x00")
	if found := c.matches[key]; found != nil {
		return found
	}
	found := newRanks(len(c.order))
	for rank, r := range c.order {
		if d.unsuited(r).text == "" {
			found.add(rank)
		}
	}
	if len(c.matches) >= matchesKept {
		clear(c.matches)
	}
	c.matches[key] = found
	return found
}

func (s *search) explain() string {
	refusals := make([]refusal, 0, len(s.cluster.order))
	here := s.cluster.services[s.wanted.Service]
	for _, r := range s.cluster.order {
		refusals = append(refusals, s.demand.refuses(r, here[r]))
	}
	return explain(refusals)
}
