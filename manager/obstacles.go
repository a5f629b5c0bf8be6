package manager

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/gitswarm/gitswarm/manager/scheduler"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/reconciler"
	"github.com/gitswarm/gitswarm/swarm"
)

// rollAtOnce is how many stacks may roll side by side.
const rollAtOnce = 4

// obstacles says why the accepted content can't work now. It is asked before
// anything is touched: a rollout that could not end well does not begin.
func (m *Manager) obstacles(view *store.View, sight reconciler.View) []string {
	if sight.Accepted == nil || !untouched(sight.Record) {
		return nil
	}
	var found []string
	if rolling := m.picture.rollingBeside(sight.Record.Name); rolling >= rollAtOnce {
		return []string{fmt.Sprintf("%d other stacks are rolling, at most %d do at once", rolling, rollAtOnce)}
	}

	trial := store.Decide{}
	problems := m.allocateNetworks(view, sight.Record.Name, []*swarm.Stack{sight.Accepted}, &trial)
	if len(problems) == 0 {
		problems = m.allocateEndpoints(view, sight.Record.Name, reconciler.Target(sight), &trial)
	}
	found = append(found, problems...)
	found = append(found, busyPorts(view, sight)...)
	found = append(found, missingVolumes(view, sight)...)
	return append(found, m.unplaced(view, sight)...)
}

// untouched reports whether the newest accepted content waits to be begun.
func untouched(record swarm.StackRecord) bool {
	r := record.Rollout
	return r.To != record.Accepted || r.Phase == swarm.PhaseWaiting || r.Phase == swarm.PhaseNone
}

// busyPorts names published ports that a program other than gitswarm listens
// on.
func busyPorts(view *store.View, sight reconciler.View) []string {
	var found []string
	nodes := sync.OnceValue(view.Nodes) // most publish none
	for _, service := range sight.Accepted.Services {
		for _, port := range service.Ports {
			for _, node := range nodes() {
				if port.Published != 0 && slices.ContainsFunc(node.Description.BusyPorts, func(busy swarm.Port) bool {
					return busy.Published == port.Published && orTCP(busy.Protocol) == orTCP(port.Protocol)
				}) {
					found = append(found, fmt.Sprintf("publish port %d/%s of %s/%s: another program on node %s listens on it; stop that program or publish another port",
						port.Published, orTCP(port.Protocol), sight.Record.Name, service.Name, node.Description.Hostname))
				}
			}
		}
	}
	return found
}

// missingVolumes names the volumes of other stacks that services mount and
// that are not there.
func missingVolumes(view *store.View, sight reconciler.View) []string {
	own := string(sight.Record.Name) + "/"
	var found []string
	for _, service := range sight.Accepted.Services {
		for _, id := range namedVolumes(sight.Record.Name, service) {
			if kept, _ := volumesNamed(view, id); len(kept) == 0 && !strings.HasPrefix(string(id), own) {
				found = append(found, fmt.Sprintf("mount volume %s in %s: no stack has it; see `gitswarm volume ls`", id, service.Name))
			}
		}
	}
	return found
}

func orTCP(p swarm.Protocol) swarm.Protocol {
	if p == "" {
		return swarm.TCP
	}
	return p
}

// unplaced asks the scheduler for every task that the rollout would start,
// with the tasks that they replace out of the way.
func (m *Manager) unplaced(view *store.View, sight reconciler.View) []string {
	wanted, gone, _ := m.wantedSteps(view, sight, reconciler.DiffContent(sight))
	for _, placement := range m.picture.place(wanted, gone) {
		if placement.Node == "" {
			return []string{placement.Why} // the first says enough
		}
	}
	return nil
}

// wantedSteps returns the tasks that a plan would start, those that it ends,
// and for each started one the step it is of.
func (m *Manager) wantedSteps(view *store.View, sight reconciler.View, plan swarm.Plan) (wanted []scheduler.Wanted, gone map[swarm.TaskID]bool, steps []int) {
	gone = make(map[swarm.TaskID]bool)
	beside := make(map[string]int) // old tasks that run beside a new one, by service
	for i, step := range plan.Steps {
		service, found := sight.Accepted.Service(step.Service)
		switch policy := service.Update; {
		case step.Task == "":
		case step.Verb == swarm.Replace && policy.Order == swarm.StartFirst && (policy.Parallelism == 0 || beside[step.Service] < policy.Parallelism):
			beside[step.Service]++
		default:
			gone[step.Task] = true
		}
		if !found || step.Verb != swarm.Start && step.Verb != swarm.Replace {
			continue
		}
		id := swarm.NewServiceID(sight.Record.Name, service.Name)
		task := swarm.Task{ID: step.Task, Service: id, Slot: step.Slot}
		if service.Mode.PerNode() {
			task.Node = step.Node
		}
		wanted = append(wanted, wantedBy(view, sight, service, task))
		steps = append(steps, i)
	}
	return wanted, gone, steps
}

// leaving lists the tasks that make room for a decision's new tasks before
// these start.
func leaving(sight reconciler.View, decision swarm.Decision) map[swarm.TaskID]bool {
	gone := make(map[swarm.TaskID]bool)
	for _, task := range decision.Create {
		service, _ := serviceOf(sight, task)
		order := service.Update.Order
		if sight.Record.Rollout.Phase == swarm.PhaseRollingBack {
			order = service.Rollback.Order
		}
		if task.Replaces != "" && order != swarm.StartFirst {
			gone[task.Replaces] = true
		}
	}
	return gone
}
