package store

import (
	"iter"
	"slices"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/gitswarm/gitswarm/swarm"
)

// View is the whole state at one raft index. It never changes and costs
// nothing to keep but memory. The values it returns are copies, but the maps,
// slices and pointers within them are shared: they are to be read only.
type View struct {
	txn  *memdb.Txn
	meta meta
}

func newView(db *memdb.MemDB) *View {
	txn := db.Txn(false)
	m, _ := get[meta](txn, tableMeta, tableMeta)
	return &View{txn: txn, meta: m}
}

// Index is that of the last command in the view.
func (v *View) Index() uint64 { return v.meta.Index }

// Now is the cluster's time: the latest that any command carried.
func (v *View) Now() time.Time { return v.meta.Now }

// ClusterID is the cluster's random id, or "" before its first leader.
func (v *View) ClusterID() string { return v.meta.Cluster }

// Cluster returns what all nodes share; there is nothing before the first
// PutCluster.
func (v *View) Cluster() (swarm.Cluster, bool) {
	return get[swarm.Cluster](v.txn, tableCluster, tableCluster)
}

// Tokens returns all tokens of users, by id.
func (v *View) Tokens() []swarm.UserToken {
	return list[swarm.UserToken](v.txn, tableTokens, byID)
}

// Token returns the token of that id.
func (v *View) Token(id string) (swarm.UserToken, bool) {
	return get[swarm.UserToken](v.txn, tableTokens, id)
}

// Removed reports whether a node of that id was removed within the last two
// years. What such a node says, and its certificate, are worth nothing.
func (v *View) Removed(id swarm.NodeID) bool {
	_, was := get[removed](v.txn, tableRemoved, string(id))
	return was
}

// Source returns the source of that id.
func (v *View) Source(id swarm.SourceID) (swarm.Source, bool) {
	return get[swarm.Source](v.txn, tableSources, string(id))
}

// Sources returns all sources, by id.
func (v *View) Sources() []swarm.Source { return list[swarm.Source](v.txn, tableSources, byID) }

// Stack returns the record of that name.
func (v *View) Stack(name swarm.StackName) (swarm.StackRecord, bool) {
	return get[swarm.StackRecord](v.txn, tableStacks, string(name))
}

// Stacks returns all records, by name.
func (v *View) Stacks() []swarm.StackRecord {
	return list[swarm.StackRecord](v.txn, tableStacks, byID)
}

// Task returns the task of that id.
func (v *View) Task(id swarm.TaskID) (swarm.Task, bool) {
	return get[swarm.Task](v.txn, tableTasks, string(id))
}

// AllTasks returns every task, ended ones included, by id.
func (v *View) AllTasks() []swarm.Task { return list[swarm.Task](v.txn, tableTasks, byID) }

// Tasks returns the tasks of a stack, by id.
func (v *View) Tasks(stack swarm.StackName) []swarm.Task {
	return list[swarm.Task](v.txn, tableTasks, byStack, string(stack))
}

// EachTask yields the tasks of a stack, by id, as Tasks returns them but
// without a copy: they are to be read only.
func (v *View) EachTask(stack swarm.StackName) iter.Seq[*swarm.Task] {
	return func(yield func(*swarm.Task) bool) {
		found, err := v.txn.Get(tableTasks, byStack, string(stack))
		if err != nil {
			panic("store: " + err.Error()) // no such table
		}
		for row := found.Next(); row != nil && yield(row.(*swarm.Task)); row = found.Next() {
		}
	}
}

// TasksOn returns the tasks of a node, by id.
func (v *View) TasksOn(node swarm.NodeID) []swarm.Task {
	return list[swarm.Task](v.txn, tableTasks, byNode, string(node))
}

// Node returns the node of that id.
func (v *View) Node(id swarm.NodeID) (swarm.Node, bool) {
	return get[swarm.Node](v.txn, tableNodes, string(id))
}

// Nodes returns all nodes, by id.
func (v *View) Nodes() []swarm.Node { return list[swarm.Node](v.txn, tableNodes, byID) }

// Network returns the network of that id.
func (v *View) Network(id swarm.NetworkID) (swarm.AllocatedNetwork, bool) {
	return get[swarm.AllocatedNetwork](v.txn, tableNetworks, string(id))
}

// Networks returns all networks, by id.
func (v *View) Networks() []swarm.AllocatedNetwork {
	return list[swarm.AllocatedNetwork](v.txn, tableNetworks, byID)
}

// NetworksOf returns the networks of a stack, by id.
func (v *View) NetworksOf(stack swarm.StackName) []swarm.AllocatedNetwork {
	return list[swarm.AllocatedNetwork](v.txn, tableNetworks, byIDPrefix, string(stack)+"/")
}

// Endpoint returns the endpoint of a service.
func (v *View) Endpoint(service swarm.ServiceID) (swarm.Endpoint, bool) {
	return get[swarm.Endpoint](v.txn, tableEndpoints, string(service))
}

// Endpoints returns all endpoints, by service.
func (v *View) Endpoints() []swarm.Endpoint {
	return list[swarm.Endpoint](v.txn, tableEndpoints, byID)
}

// EndpointsOf returns the endpoints of a stack, by service.
func (v *View) EndpointsOf(stack swarm.StackName) []swarm.Endpoint {
	return list[swarm.Endpoint](v.txn, tableEndpoints, byIDPrefix, string(stack)+"/")
}

// Volumes returns all volumes, by id and node; those that were dropped but
// still lie on their node are among them.
func (v *View) Volumes() []swarm.KeptVolume {
	return list[swarm.KeptVolume](v.txn, tableVolumes, byID)
}

// VolumesOf returns the volumes of a stack, by id and node.
func (v *View) VolumesOf(stack swarm.StackName) []swarm.KeptVolume {
	return list[swarm.KeptVolume](v.txn, tableVolumes, byIDPrefix, string(stack)+"/")
}

// Grants returns all grants in the operator's order.
func (v *View) Grants() []swarm.Grant {
	row, _ := get[grants](v.txn, tableGrants, tableGrants)
	return row.Grants
}

// Events returns, oldest first, the events whose Index is greater than since;
// at most the last limit of them, or all that are kept if limit is 0.
func (v *View) Events(since uint64, limit int) []swarm.Event {
	found, err := v.txn.GetReverse(tableEvents, byID)
	if err != nil {
		panic("store: " + err.Error()) // no such table
	}
	var events []swarm.Event
	for row := found.Next(); row != nil; row = found.Next() {
		event := row.(*numbered).Event
		if event.Index <= since || (limit > 0 && len(events) == limit) {
			break
		}
		events = append(events, event)
	}
	slices.Reverse(events)
	return events
}
