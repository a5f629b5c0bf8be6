package manager

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/gitswarm/gitswarm/manager/scheduler"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// picture is what placing and addressing need to know of the whole cluster. It
// is brought up to date with what Apply touched since it was looked at last,
// so its cost grows with what changed. A new leader finds everything touched
// and makes it anew.
type picture struct {
	store   *store.Store
	touched *store.Subscription
	claims  func(*store.View, swarm.Task) *swarm.Claims // of a task that does not say what it holds

	mu      sync.Mutex
	cluster *scheduler.Cluster
	nodes   []swarm.Node                                 // by id; never changed in place
	placed  map[swarm.StackName][]swarm.TaskID           // tasks in cluster
	leaving map[swarm.StackName]map[swarm.NodeID]int     // how many of these are on their way out
	on      map[swarm.NetworkID]map[swarm.StackName]bool // stacks with addresses there
	uses    map[swarm.StackName]map[swarm.NetworkID]bool // the same, by stack
	rolling map[swarm.StackName]bool                     // stacks whose rollout touches tasks
}

func newPicture(s *store.Store, claims func(*store.View, swarm.Task) *swarm.Claims) *picture {
	return &picture{store: s, touched: s.Subscribe(), claims: claims}
}

// place asks the scheduler, as if the tasks that leave had gone.
func (p *picture) place(wanted []scheduler.Wanted, leaving map[swarm.TaskID]bool) []scheduler.Placement {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.catchUp()
	return p.cluster.Place(wanted, slices.Sorted(maps.Keys(leaving)))
}

// allNodes returns the nodes, by id. They are read, never written.
func (p *picture) allNodes() []swarm.Node {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.catchUp()
	return p.nodes
}

// stacksOn returns, by name, the stacks that have addresses on any of the
// networks.
func (p *picture) stacksOn(networks []swarm.NetworkID) []swarm.StackName {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.catchUp()
	names := make(map[swarm.StackName]bool)
	for _, id := range networks {
		maps.Copy(names, p.on[id])
	}
	return slices.Sorted(maps.Keys(names))
}

// load returns how many tasks each node has that stay there. One that leaves
// does not count: its successor already does, elsewhere.
func (p *picture) load() map[swarm.NodeID]int {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.catchUp()
	load := p.cluster.Load()
	for _, leaving := range p.leaving {
		for node, tasks := range leaving {
			load[node] -= tasks
		}
	}
	return load
}

// rollingBeside returns how many other stacks roll.
func (p *picture) rollingBeside(stack swarm.StackName) int {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.catchUp()
	return len(p.rolling) - number(p.rolling[stack])
}

// catchUp takes in what was touched since the last time.
func (p *picture) catchUp() {
	news, _ := p.touched.Take()
	if news.Empty() {
		return
	}
	view := p.store.View()
	if news.Everything {
		p.begin(view)
		return
	}
	if slices.ContainsFunc(news.Nodes, func(id swarm.NodeID) bool { return p.another(view, id) }) {
		p.nodes = view.Nodes()
	}
	for _, id := range news.Nodes {
		if node, there := view.Node(id); there {
			p.cluster.PutNode(node)
		} else {
			p.cluster.DropNode(id)
		}
	}
	for _, stack := range news.Stacks {
		p.look(view, stack)
	}
}

// another reports whether a node is not as it was: that something of it came or
// went touches it too.
func (p *picture) another(view *store.View, id swarm.NodeID) bool {
	node, there := view.Node(id)
	at, known := slices.BinarySearchFunc(p.nodes, id, func(n swarm.Node, id swarm.NodeID) int { return cmp.Compare(n.ID, id) })
	return there != known || there && !reflect.DeepEqual(p.nodes[at], node)
}

// begin makes the picture anew.
func (p *picture) begin(view *store.View) {
	p.cluster = new(scheduler.Cluster)
	p.placed = make(map[swarm.StackName][]swarm.TaskID)
	p.leaving = make(map[swarm.StackName]map[swarm.NodeID]int)
	p.on = make(map[swarm.NetworkID]map[swarm.StackName]bool)
	p.uses = make(map[swarm.StackName]map[swarm.NetworkID]bool)
	p.rolling = make(map[swarm.StackName]bool)
	p.nodes = view.Nodes()
	for _, node := range p.nodes {
		p.cluster.PutNode(node)
	}
	for _, record := range view.Stacks() {
		p.look(view, record.Name)
	}
}

// look takes in one stack as it is now.
func (p *picture) look(view *store.View, stack swarm.StackName) {
	var placed []swarm.TaskID // sorted
	leaving := make(map[swarm.NodeID]int)
	uses := make(map[swarm.NetworkID]bool)
	for task := range view.EachTask(stack) {
		noteNetworks(uses, task.Addresses)
		if holds(task) {
			p.cluster.Put(p.occupant(view, task))
			placed = append(placed, task.ID)
			if task.Desired > swarm.DesiredRun {
				leaving[task.Node]++
			}
		}
	}
	for _, endpoint := range view.EndpointsOf(stack) {
		noteNetworks(uses, endpoint.VIPs)
	}

	for _, id := range p.placed[stack] {
		if _, stays := slices.BinarySearch(placed, id); stays {
			continue
		}
		if task, there := view.Task(id); !there || !holds(&task) { // else it is another stack's by now
			p.cluster.Drop(id)
		}
	}
	p.placed[stack], p.leaving[stack] = placed, leaving
	if len(placed) == 0 {
		delete(p.placed, stack)
	}
	if len(leaving) == 0 {
		delete(p.leaving, stack)
	}
	p.reach(stack, uses)
	if record, there := view.Stack(stack); there && isRolling(record) {
		p.rolling[stack] = true
	} else {
		delete(p.rolling, stack)
	}
}

// reach notes on which networks a stack has addresses.
func (p *picture) reach(stack swarm.StackName, uses map[swarm.NetworkID]bool) {
	for id := range p.uses[stack] {
		if delete(p.on[id], stack); len(p.on[id]) == 0 {
			delete(p.on, id)
		}
	}
	for id := range uses {
		if p.on[id] == nil {
			p.on[id] = make(map[swarm.StackName]bool)
		}
		p.on[id][stack] = true
	}
	p.uses[stack] = uses
	if len(uses) == 0 {
		delete(p.uses, stack)
	}
}

func noteNetworks(networks map[swarm.NetworkID]bool, addresses []swarm.Address) {
	for _, address := range addresses {
		networks[address.Network] = true
	}
}

// holds reports whether a task holds anything of a node.
func holds(task *swarm.Task) bool { return task.Node != "" && task.Status.State.Live() }

func (p *picture) occupant(view *store.View, task *swarm.Task) scheduler.Occupant {
	claims := task.Claims
	if claims == nil {
		claims = p.claims(view, *task)
	}
	return scheduler.Occupant{Task: task.ID, Service: task.Service, Node: task.Node, Claims: claims}
}

// claimsOf reads what a task holds from the content that it is of: builds
// before Task.Claims wrote it nowhere else.
func (m *Manager) claimsOf(view *store.View, task swarm.Task) *swarm.Claims {
	service, found := m.serviceOfTask(view, task)
	if !found {
		return nil
	}
	return &swarm.Claims{Resources: service.Reservations, Ports: service.Task.HostPorts}
}
