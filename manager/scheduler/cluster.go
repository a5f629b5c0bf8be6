package scheduler

import (
	"cmp"
	"reflect"
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// Occupant is a task that already holds its node.
type Occupant struct {
	Task    swarm.TaskID
	Service swarm.ServiceID
	Node    swarm.NodeID
	Claims  *swarm.Claims // nil holds nothing; it is never changed in place
}

// Cluster is what there is to place on: nodes, and what their tasks hold. It
// is kept up to date change by change, so that a placement costs what it needs
// and not what exists. The zero value is a cluster without nodes. It is for
// one caller at a time.
type Cluster struct {
	rooms    map[swarm.NodeID]*room // those that only tasks name are among them
	tasks    map[swarm.TaskID]*holding
	services map[swarm.ServiceID]population

	// Made by settle from the nodes alone, and from how many tasks they have.
	settled bool
	order   []*room // the nodes by id; a room's rank is its place here
	levels  levels
	matches map[string]ranks   // nodes that take new tasks and meet these constraints and platforms
	trees   map[string]*branch // by the keys of a spread
}

// population is how many tasks of one service are in which rooms; never 0.
type population map[*room]int

// holding is an occupant in its room.
type holding struct {
	Occupant
	room *room
}

// matchesKept is how many different sets of constraints are remembered.
const matchesKept = 256

// PutNode makes a node known, or known as it is now.
func (c *Cluster) PutNode(node swarm.Node) {
	r := c.room(node.ID)
	if r.known && reflect.DeepEqual(r.node, node) {
		return
	}
	if !r.known {
		c.settled = false
	}
	r.node, r.known = node, true
	clear(c.matches)
	clear(c.trees)
}

// DropNode forgets a node. What tasks hold there counts again if it returns.
func (c *Cluster) DropNode(id swarm.NodeID) {
	if r := c.rooms[id]; r != nil && r.known {
		r.node, r.known = swarm.Node{ID: id}, false
		c.settled = false
		c.vacate(r)
	}
}

// Put writes what a task holds; it replaces what it held before.
func (c *Cluster) Put(o Occupant) {
	if old := c.tasks[o.Task]; old != nil {
		if old.Occupant == o {
			return
		}
		c.Drop(o.Task)
	}
	if c.tasks == nil {
		c.tasks = make(map[swarm.TaskID]*holding)
	}
	task := &holding{Occupant: o, room: c.room(o.Node)}
	c.tasks[o.Task] = task
	c.take(task)
}

// Drop forgets a task: it holds nothing any more.
func (c *Cluster) Drop(id swarm.TaskID) {
	if task := c.tasks[id]; task != nil {
		delete(c.tasks, id)
		c.leave(task)
		c.vacate(task.room)
	}
}

// Load returns how many tasks each node has.
func (c *Cluster) Load() map[swarm.NodeID]int {
	load := make(map[swarm.NodeID]int, len(c.rooms))
	for id, r := range c.rooms {
		if r.known {
			load[id] = r.tasks
		}
	}
	return load
}

// room returns the room of a node, which may be unknown so far.
func (c *Cluster) room(id swarm.NodeID) *room {
	if r := c.rooms[id]; r != nil {
		return r
	}
	if c.rooms == nil {
		c.rooms = make(map[swarm.NodeID]*room)
	}
	r := &room{node: swarm.Node{ID: id}}
	c.rooms[id] = r
	return r
}

// vacate forgets a room that is no node's and holds no task.
func (c *Cluster) vacate(r *room) {
	if !r.known && r.tasks == 0 {
		delete(c.rooms, r.node.ID)
	}
}

func (c *Cluster) take(task *holding) {
	c.move(task.room, +1)
	task.room.take(task)
	if c.services == nil {
		c.services = make(map[swarm.ServiceID]population)
	}
	if c.services[task.Service] == nil {
		c.services[task.Service] = make(population)
	}
	c.services[task.Service][task.room]++
}

func (c *Cluster) leave(task *holding) {
	c.move(task.room, -1)
	task.room.leave(task)
	here := c.services[task.Service]
	if here[task.room]--; here[task.room] == 0 {
		delete(here, task.room)
	}
	if len(here) == 0 {
		delete(c.services, task.Service)
	}
}

// move counts a task into or out of a room.
func (c *Cluster) move(r *room, by int) {
	if c.settled && r.known {
		c.levels.move(r.rank, r.tasks, r.tasks+by)
	}
	r.tasks += by
}

// settle ranks the nodes, after some came or went.
func (c *Cluster) settle() {
	if c.settled {
		return
	}
	c.order = c.order[:0]
	for _, r := range c.rooms {
		if r.known {
			c.order = append(c.order, r)
		}
	}
	slices.SortFunc(c.order, func(a, b *room) int { return cmp.Compare(a.node.ID, b.node.ID) })

	c.levels = levels{size: len(c.order)}
	for rank, r := range c.order {
		r.rank = rank
		c.levels.enter(rank, r.tasks)
	}
	c.matches, c.trees = make(map[string]ranks), make(map[string]*branch)
	c.settled = true
}
