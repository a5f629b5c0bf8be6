package manager

import (
	"reflect"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// A round picks the stacks that a change of the cluster may concern. It
// belongs to followStacks.
type round struct {
	deadlines *alarms[swarm.StackName]
	homeless  map[swarm.StackName]bool    // those with tasks that found no node
	nodes     map[swarm.NodeID]swarm.Node // as they were looked at last
}

func newRound() *round {
	return &round{
		deadlines: newAlarms[swarm.StackName](), homeless: make(map[swarm.StackName]bool), nodes: make(map[swarm.NodeID]swarm.Node),
	}
}

// stacks lists, sorted and once each, the stacks that news touches, those that
// are due, and those that something which changed may have made room for. A
// task that comes or goes touches its node, but only a node that is itself
// another than before concerns every stack.
func (r *round) stacks(view *store.View, news store.Touched, now time.Time) []swarm.StackName {
	names := make(map[swarm.StackName]bool)
	for _, name := range news.Stacks {
		names[name] = true
	}
	for name := r.deadlines.due(now); name != ""; name = r.deadlines.due(now) {
		names[name] = true
	}
	everyone := r.nodesDiffer(view, news) || news.Everything

	rolling := 0
	var waiting []swarm.StackName
	for _, record := range view.Stacks() {
		switch {
		case everyone || r.homeless[record.Name]:
			names[record.Name] = true
		case record.Rollout.Phase == swarm.PhaseWaiting:
			waiting = append(waiting, record.Name)
		}
		rolling += number(isRolling(record))
	}
	if rolling < rollAtOnce {
		for _, name := range waiting {
			names[name] = true
		}
	}
	return sorted(names)
}

// looked notes when a stack that was looked at asks for it again, and whether
// a task of it waits for a node.
func (r *round) looked(view *store.View, name swarm.StackName, askAt time.Time) {
	r.deadlines.set(name, askAt)
	if slices.ContainsFunc(view.Tasks(name), isHomeless) {
		r.homeless[name] = true
	} else {
		delete(r.homeless, name)
	}
}

// isHomeless reports whether a task waits for a node.
func isHomeless(task swarm.Task) bool {
	return task.Node == "" && task.Status.State == swarm.TaskNew && task.Desired < swarm.DesiredStop
}

// nodesDiffer reports whether a node that news touches is another than before,
// and remembers it.
func (r *round) nodesDiffer(view *store.View, news store.Touched) bool {
	differ := false
	for _, id := range news.Nodes {
		node, _ := view.Node(id)
		if !reflect.DeepEqual(r.nodes[id], node) {
			r.nodes[id] = node
			differ = true
		}
	}
	return differ
}

func isRolling(record swarm.StackRecord) bool {
	return record.Rollout.Phase == swarm.PhaseProgressing || record.Rollout.Phase == swarm.PhaseRollingBack
}

func number(yes bool) int {
	if yes {
		return 1
	}
	return 0
}
