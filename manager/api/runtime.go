package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// tally is how the seats of a service are taken.
type tally struct {
	wanted  int
	floor   int // seats that must be taken now: those that a rollout adds may be on their way
	healthy int // seats with a replica that is well, or is done
	current int // of those, with the wanted spec
	unseen  int // seats whose replica was well when its node last answered
	message string
}

// serviceOf computes what people see of a service.
func (s Snapshot) serviceOf(r swarm.StackRecord, service swarm.Service, tasks []swarm.Task) Service {
	id := swarm.NewServiceID(r.Name, service.Name)
	count := s.count(r, service, tasks)
	_, scaled := r.Scale[service.Name]

	return Service{
		ID: string(id), Mode: string(service.Mode),
		Image: service.Task.Image, Manifest: string(service.Task.Manifest),
		Runtime:  count.runtime(),
		Replicas: Count{count.healthy, count.wanted},
		Current:  Count{count.current, count.wanted},
		Ports:    s.portsOf(id, service), Scaled: scaled, Message: count.message,
	}
}

func (t tally) runtime() Runtime {
	switch {
	case t.healthy >= t.floor:
		return RuntimeHealthy
	case t.healthy+t.unseen >= t.floor:
		return RuntimeUnknown
	case t.healthy == 0:
		return RuntimeDown
	}
	return RuntimeDegraded
}

func (s Snapshot) count(r swarm.StackRecord, service swarm.Service, tasks []swarm.Task) tally {
	lines := seats(tasks, swarm.NewServiceID(r.Name, service.Name))
	wanted := s.wantedSeats(r, service, lines)
	sum := tally{wanted: len(wanted), floor: len(wanted)}
	if !r.Rollout.Phase.Ended() && r.Healthy.Content != "" {
		sum.floor = min(sum.floor, s.before(r, service))
	}
	var missing []string

	for _, seat := range wanted {
		well, unseen := s.wellest(service, lines[seat])
		switch {
		case well != nil:
			sum.healthy++
			if well.Spec == service.Spec && well.Generation == r.Generation[service.Name] {
				sum.current++
			}
			continue
		case unseen:
			sum.unseen++
		}
		if text := s.complaint(lines[seat]); text != "" {
			missing = append(missing, text)
		}
	}
	sum.message = firstFew(missing)
	return sum
}

// before is how many replicas the last healthy revision wants of a service.
func (s Snapshot) before(r swarm.StackRecord, service swarm.Service) int {
	content, _ := s.content(r.Healthy)
	old, ok := content.Service(service.Name)
	if ok && old.Mode.PerNode() {
		return len(s.Nodes)
	}
	return old.Replicas
}

// wantedSeats lists the seats that a service should have taken, in order.
func (s Snapshot) wantedSeats(r swarm.StackRecord, service swarm.Service, lines map[swarm.Seat][]swarm.Task) []swarm.Seat {
	id := swarm.NewServiceID(r.Name, service.Name)
	if r.Removing {
		return nil
	}
	if service.Mode.PerNode() {
		return s.wantedNodes(id, lines)
	}

	replicas := service.Replicas
	if scaled, ok := r.Scale[service.Name]; ok {
		replicas = scaled
	}
	wanted := make([]swarm.Seat, 0, replicas)
	for slot := 1; slot <= replicas; slot++ {
		wanted = append(wanted, swarm.Seat{Service: id, Slot: slot})
	}
	return wanted
}

// wantedNodes are those where the reconciler put a task of a global service,
// or every node that may take one while it has put none.
func (s Snapshot) wantedNodes(id swarm.ServiceID, lines map[swarm.Seat][]swarm.Task) []swarm.Seat {
	var wanted []swarm.Seat
	for seat, line := range lines {
		if newest := line[len(line)-1]; newest.Desired <= swarm.DesiredRun {
			wanted = append(wanted, seat)
		}
	}
	if len(wanted) == 0 {
		for _, node := range s.Nodes {
			if node.State == swarm.NodeReady && node.Availability == swarm.NodeActive {
				wanted = append(wanted, swarm.Seat{Service: id, Node: node.ID})
			}
		}
	}
	slices.SortFunc(wanted, func(a, b swarm.Seat) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return wanted
}

// wellest returns the newest task of a seat that is well or rightly done, and
// whether one would be but for a node that has not answered.
func (s Snapshot) wellest(service swarm.Service, line []swarm.Task) (well *swarm.Task, unseen bool) {
	endsWell := service.Mode.Job() || service.Restart.Condition == swarm.RestartNone ||
		service.Restart.Condition == swarm.RestartOnFailure

	for i := len(line) - 1; i >= 0; i-- {
		task := &line[i]
		state := task.Status.State
		done := state == swarm.TaskComplete && endsWell && i == len(line)-1
		if !done && (state != swarm.TaskHealthy || task.Desired > swarm.DesiredRun) {
			continue
		}
		if done {
			return task, false
		}
		switch s.nodeState(task.Node) {
		case swarm.NodeReady:
			return task, false
		case swarm.NodeUnknown:
			unseen = true
		}
	}
	return nil, unseen
}

// complaint says why a seat is empty: "web.2 exited 1 after 2s".
func (s Snapshot) complaint(line []swarm.Task) string {
	for i := len(line) - 1; i >= 0; i-- {
		task := line[i]
		name := swarm.SlotName(task.Service.Name(), task.Slot)
		switch {
		case task.Status.Pulled > 0 && task.Status.Pulled < 100 && task.Status.State == swarm.TaskPreparing:
			return fmt.Sprintf("%s %s pulling %d%%", name, s.hostname(task.Node), task.Status.Pulled)
		case task.Status.Message != "" && task.Excused == "":
			return name + " " + task.Status.Message
		}
	}
	return ""
}

// firstFew joins texts and counts what it leaves out.
func firstFew(texts []string) string {
	const shown = 2
	if len(texts) <= shown {
		return strings.Join(texts, "; ")
	}
	return fmt.Sprintf("%s (+%d more)", strings.Join(texts[:shown], "; "), len(texts)-shown)
}

// runtimeOf sums up a stack's services.
func runtimeOf(services []Service, known bool) Runtime {
	kinds := map[Runtime]int{}
	well := 0
	for _, service := range services {
		kinds[service.Runtime]++
		well += service.Replicas.Well
	}

	switch {
	case !known:
		return RuntimeUnknown
	case kinds[RuntimeHealthy] == len(services):
		return RuntimeHealthy
	case kinds[RuntimeDown] == 0 && kinds[RuntimeDegraded] == 0:
		return RuntimeUnknown
	case well == 0:
		return RuntimeDown
	}
	return RuntimeDegraded
}

// portsOf lists a service's published ports: "8080->80/tcp".
func (s Snapshot) portsOf(id swarm.ServiceID, service swarm.Service) []string {
	published, ok := s.Ports[id]
	if !ok {
		published = service.Ports
	}

	texts := map[string]bool{}
	for _, port := range slices.Concat(published, service.Task.HostPorts) {
		text := fmt.Sprintf("%d->%d/%s", port.Published, port.Target, port.Protocol)
		if port.Published == 0 {
			text = fmt.Sprintf("?->%d/%s", port.Target, port.Protocol)
		}
		if port.Host {
			text += " (host)"
		}
		texts[text] = true
	}
	return slices.Sorted(maps.Keys(texts))
}
