package api

import (
	"context"
	"fmt"

	"github.com/gitswarm/gitswarm/swarm"
)

// Inspection is all that is known of a stack, service or task. Record and
// content are the nouns of the cluster: their fields may grow from release to
// release, those of the views do not change.
type Inspection struct {
	Kind    string         `json:"kind" enum:"stack,service,task"`
	Stack   *Stack         `json:"stack,omitempty"`
	Service *Service       `json:"service,omitempty"`
	Tasks   []Task         `json:"tasks,omitempty"`
	Record  map[string]any `json:"record,omitempty" doc:"as the cluster keeps it"`
	Content map[string]any `json:"content,omitempty" doc:"as it was rendered from the repository"`
}

type inspectQuery struct {
	Target   string `query:"target" required:"true" minLength:"1" maxLength:"512" doc:"STACK, STACK/SERVICE, STACK/SERVICE.SLOT or a task's id"`
	Revision string `query:"revision" maxLength:"255" doc:"of the content: what runs unless set"`
}

func (s *Server) inspect(ctx context.Context, in *inspectQuery) (*body[Inspection], error) {
	shot, err := s.snapshotOf(ctx, in.Target)
	if err != nil {
		return nil, err
	}
	tasks, err := shot.tasksOf(in.Target)
	if err != nil {
		return nil, err
	}
	chosen, _ := parseTarget(in.Target)
	record, ok := shot.record(chosen.stack)
	if !ok {
		return nil, shot.noStack(chosen.stack)
	}

	content, err := s.contentAt(ctx, record, in.Revision)
	if err != nil {
		return nil, err
	}

	var found Inspection
	switch {
	case len(tasks) == 1 && string(tasks[0].ID) == in.Target:
		found = Inspection{Kind: "task", Record: plainStructOf(tasks[0])}
	case chosen.service != "":
		found = shot.inspectService(record, content, chosen.service)
	default:
		found = shot.inspectStack(record, content)
	}
	images := shot.images()
	for _, task := range tasks {
		found.Tasks = append(found.Tasks, shot.taskOf(task, images[task.Spec]))
	}
	return answer(found)
}

func (s Snapshot) inspectService(record swarm.StackRecord, content *swarm.Stack, name string) Inspection {
	found := Inspection{Kind: "service"}
	if service, ok := content.Service(name); ok {
		view := s.serviceOf(record, service, s.Tasks[record.Name])
		found.Service, found.Content = &view, plainStructOf(service)
	}
	return found
}

func (s Snapshot) inspectStack(record swarm.StackRecord, content *swarm.Stack) Inspection {
	view := s.stackOf(record)
	found := Inspection{Kind: "stack", Stack: &view, Record: plainStructOf(record)}
	if content != nil {
		found.Content = plainStructOf(*content)
	}
	return found
}

func plainStructOf(value any) map[string]any {
	fields, _ := plain(value).(map[string]any)
	return fields
}

// contentAt reads the stack as a revision rendered it; nil means that nothing
// was accepted yet.
func (s *Server) contentAt(ctx context.Context, record swarm.StackRecord, revision string) (*swarm.Stack, error) {
	rendered := target(record)
	if revision != "" {
		found, ok := revisionOf(record, revision)
		if !ok {
			return nil, NotFound(fmt.Sprintf("stack %s has no revision %q", record.Name, revision),
				fmt.Sprintf("gitswarm history %s lists those that are kept", record.Name))
		}
		rendered = found
	}
	if rendered.Content == "" {
		return nil, nil
	}
	return s.contents.load(ctx, rendered.Content)
}

// revisionOf finds a revision that the stack remembers.
func revisionOf(record swarm.StackRecord, text string) (swarm.Rendered, bool) {
	known := []swarm.Rendered{record.Head, record.Accepted, record.Healthy, record.Rollout.To}
	for _, ended := range record.History {
		known = append(known, ended.To)
	}
	for _, rendered := range known {
		if rendered.Content != "" && Matches(rendered.Revision, text) {
			return rendered, true
		}
	}
	return swarm.Rendered{}, false
}
