package manager

import (
	"maps"
	"reflect"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// roomEvery bounds how often stacks that wait for room are looked at again
// while the cluster changes.
const roomEvery = 200 * time.Millisecond

// A round picks the stacks that a change of the cluster may concern, at a cost
// that grows with what changed. It belongs to followStacks.
type round struct {
	deadlines *alarms[swarm.StackName]
	homeless  stackSet                    // those with tasks that found no node
	followers stackSet                    // those that any change of any node concerns
	waiting   stackSet                    // those whose newest content waits to be begun
	rolling   stackSet                    // those that roll
	nodes     map[swarm.NodeID]swarm.Node // as they were looked at last
	takers    int                         // of these, those that take new tasks
	room      time.Time                   // when homeless stacks may be looked at again
	asked     bool                        // they have an alarm at room
}

type stackSet map[swarm.StackName]bool

func newRound() *round {
	return &round{
		deadlines: newAlarms[swarm.StackName](), homeless: make(stackSet), followers: make(stackSet),
		waiting: make(stackSet), rolling: make(stackSet), nodes: make(map[swarm.NodeID]swarm.Node),
	}
}

// stacks lists, sorted and once each, the stacks that news touches, those that
// are due, and those that something which changed may have made room for. A
// task that comes or goes touches its node, but only a node that is itself
// another than before concerns those that run there.
func (r *round) stacks(view *store.View, news store.Touched, now time.Time) []swarm.StackName {
	names := make(stackSet)
	for _, name := range news.Stacks {
		names[name] = true
		r.note(view, name)
	}
	for name := r.deadlines.due(now); name != ""; name = r.deadlines.due(now) {
		names[name] = true
	}

	differ := r.nodesThatDiffer(view, news)
	everyone := news.Everything
	if len(differ) > 0 || everyone {
		everyone = r.refugeTurned() || everyone
	}
	if everyone {
		r.noteAll(view, names)
	}
	for _, id := range differ {
		for _, task := range view.TasksOn(id) {
			names[task.Service.Stack()] = true
		}
	}
	if len(differ) > 0 {
		maps.Copy(names, r.followers)
	}
	r.wakeHomeless(names, len(differ) > 0, now)
	if len(r.rolling) < rollAtOnce {
		maps.Copy(names, r.waiting)
	}
	return sorted(names)
}

// note remembers what a stack's record says of its rollout.
func (r *round) note(view *store.View, name swarm.StackName) {
	record, found := view.Stack(name)
	if !found {
		for _, set := range []stackSet{r.homeless, r.followers, r.waiting, r.rolling} {
			delete(set, name)
		}
		return
	}
	r.waiting.put(name, record.Rollout.Phase == swarm.PhaseWaiting)
	r.rolling.put(name, isRolling(record))
}

func (r *round) noteAll(view *store.View, names stackSet) {
	for _, record := range view.Stacks() {
		names[record.Name] = true
		r.waiting.put(record.Name, record.Rollout.Phase == swarm.PhaseWaiting)
		r.rolling.put(record.Name, isRolling(record))
	}
}

func (s stackSet) put(name swarm.StackName, in bool) {
	if in {
		s[name] = true
	} else {
		delete(s, name)
	}
}

// wakeHomeless adds the stacks that wait for room: at once where a node
// changed, else as often as roomEvery allows, for a task that ended anywhere
// may have left some.
func (r *round) wakeHomeless(names stackSet, nodes bool, now time.Time) {
	switch {
	case nodes, len(names) > 0 && !now.Before(r.room):
		maps.Copy(names, r.homeless)
		r.room, r.asked = now.Add(roomEvery), false
	case len(names) > 0 && !r.asked:
		for name := range r.homeless {
			r.deadlines.sooner(name, r.room)
		}
		r.asked = true
	}
}

// looked notes when a stack that was looked at asks for it again, whether a
// task of it waits for a node, and whether any change of any node concerns it.
func (r *round) looked(view *store.View, name swarm.StackName, askAt time.Time, follows bool) {
	r.deadlines.set(name, askAt)
	homeless := false
	for _, task := range view.Tasks(name) {
		homeless = homeless || isHomeless(task)
	}
	_, there := view.Stack(name)
	r.homeless.put(name, homeless && there)
	if homeless && r.asked {
		r.deadlines.sooner(name, r.room)
	}
	r.followers.put(name, follows && there)
}

// isHomeless reports whether a task waits for a node.
func isHomeless(task swarm.Task) bool {
	return task.Node == "" && task.Status.State == swarm.TaskNew && task.Desired < swarm.DesiredStop
}

// nodesThatDiffer returns the nodes among news that are others than before, and
// remembers them.
func (r *round) nodesThatDiffer(view *store.View, news store.Touched) (differ []swarm.NodeID) {
	touched := news.Nodes
	if news.Everything {
		clear(r.nodes)
		touched = nil
		for _, node := range view.Nodes() {
			r.nodes[node.ID] = node
		}
	}
	for _, id := range touched {
		node, there := view.Node(id)
		switch {
		case reflect.DeepEqual(r.nodes[id], node):
			continue
		case there:
			r.nodes[id] = node
		default:
			delete(r.nodes, id)
		}
		differ = append(differ, id)
	}
	return differ
}

// refugeTurned reports whether there is a node that takes new tasks while there
// was none before, or the other way round: no task is given up for lost while
// none does.
func (r *round) refugeTurned() bool {
	takes := 0
	for _, node := range r.nodes {
		takes += number(node.State == swarm.NodeReady && node.Availability == swarm.NodeActive)
	}
	turned := (takes > 0) != (r.takers > 0)
	r.takers = takes
	return turned
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
