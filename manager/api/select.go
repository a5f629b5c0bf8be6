package api

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// selection is what a target names: "shop", "shop/web", "shop/web.2", a task's
// id, or nothing for all.
type selection struct {
	stack   swarm.StackName
	service string
	slot    int // 0 means every one
}

// parseTarget reads a target; it does not ask whether anything of that name is
// there.
func parseTarget(text string) (selection, error) {
	if text == "" {
		return selection{}, nil
	}
	stack, rest, more := strings.Cut(text, "/")
	chosen := selection{stack: swarm.StackName(stack)}
	if stack == "" || (more && rest == "") || strings.Contains(rest, "/") || len(text) > 512 {
		return selection{}, Invalid(fmt.Sprintf("%q names no stack, service or task", text),
			"write STACK, STACK/SERVICE, STACK/SERVICE.SLOT or a task's id")
	}
	if !more {
		return chosen, nil
	}

	parts := strings.Split(rest, ".")
	chosen.service = rest
	if len(parts) >= 2 {
		if slot, err := strconv.Atoi(parts[len(parts)-1]); err == nil && slot > 0 {
			chosen.service, chosen.slot = strings.Join(parts[:len(parts)-1], "."), slot
		}
	}
	return chosen, nil
}

// tasksOf lists the tasks that a target names, of any state. A name that is a
// task's id names that task alone.
func (s Snapshot) tasksOf(target string) ([]swarm.Task, error) {
	chosen, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	for _, task := range s.Tasks[chosen.stack] {
		if string(task.ID) == target {
			return []swarm.Task{task}, nil
		}
	}

	var found []swarm.Task
	for _, record := range s.Stacks {
		if chosen.stack != "" && record.Name != chosen.stack {
			continue
		}
		for _, task := range s.Tasks[record.Name] {
			if chosen.names(task) {
				found = append(found, task)
			}
		}
	}
	if len(found) == 0 {
		return nil, s.unknownTarget(chosen, target)
	}
	return found, nil
}

func (c selection) names(task swarm.Task) bool {
	return (c.service == "" || task.Service.Name() == c.service) && (c.slot == 0 || task.Slot == c.slot)
}

// unknownTarget is nil where the target is there and merely has no tasks.
func (s Snapshot) unknownTarget(chosen selection, name string) error {
	if chosen.stack == "" {
		return nil
	}
	record, ok := s.record(chosen.stack)
	if !ok {
		return s.noStack(chosen.stack)
	}
	if chosen.service == "" {
		return nil
	}

	content, _ := s.content(target(record))
	if _, ok := content.Service(chosen.service); ok && chosen.slot == 0 {
		return nil
	}
	return NotFound(fmt.Sprintf("nothing is named %q", name), "gitswarm ps "+string(chosen.stack)+" lists the stack's tasks")
}

func (s Snapshot) record(name swarm.StackName) (swarm.StackRecord, bool) {
	for _, record := range s.Stacks {
		if record.Name == name {
			return record, true
		}
	}
	return swarm.StackRecord{}, false
}

func (s Snapshot) noStack(name swarm.StackName) error {
	var names []string
	for _, record := range s.Stacks {
		names = append(names, string(record.Name))
	}
	if len(names) == 0 {
		return NotFound(fmt.Sprintf("no stack %q", name), "there is none yet: gitswarm init --repo URL, or push a folder with a compose file")
	}
	return NotFound(fmt.Sprintf("no stack %q", name), "there are: "+firstFew(names)+"; gitswarm status -a lists all")
}
