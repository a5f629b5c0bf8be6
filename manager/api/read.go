package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gitswarm/gitswarm/swarm"
)

type (
	none     struct{}
	oneStack struct {
		Stack string `path:"stack" maxLength:"255"`
	}
	oneTarget struct {
		Target string `query:"target" maxLength:"512" doc:"STACK, STACK/SERVICE, STACK/SERVICE.SLOT, a task's id, or nothing for all"`
	}
	taskQuery struct {
		Target string `query:"target" maxLength:"512" doc:"STACK, STACK/SERVICE, STACK/SERVICE.SLOT, a task's id, or nothing for all"`
		All    bool   `query:"all" doc:"ended tasks too"`
		Node   string `query:"node" maxLength:"255" doc:"id, the first letters of one, or hostname"`
	}
)

func (s *Server) readRoutes(api huma.API) {
	register(s, api, reading("version", "/v1/version", "Which build answers"), s.version)
	register(s, api, reading("status", "/v1/status", "The cluster on one page, problems first"), s.status)
	register(s, api, reading("list-stacks", "/v1/stacks", "Every stack"), s.listStacks)
	register(s, api, reading("get-stack", "/v1/stacks/{stack}", "One stack"), s.getStack)
	register(s, api, reading("history", "/v1/stacks/{stack}/history", "Rollouts of a stack, newest first"), s.history)
	register(s, api, reading("inspect", "/v1/inspect", "All that is known of a stack, service or task"), s.inspect)
	register(s, api, reading("list-services", "/v1/services", "Services"), s.listServices)
	register(s, api, reading("list-tasks", "/v1/tasks", "Tasks"), s.listTasks)
	register(s, api, reading("list-sources", "/v1/sources", "Every watched repository"), s.listSources)
	register(s, api, reading("get-source", "/v1/sources/{source}", "One watched repository"), s.getSource)
	register(s, api, reading("list-volumes", "/v1/volumes", "Named volumes and where they are"), s.listVolumes)
	register(s, api, reading("list-grants", "/v1/grants", "What stacks may do although policy refuses it"), s.listGrants)
	register(s, api, reading("stats", "/v1/stats", "What running tasks consume"), s.stats)
}

func (s *Server) version(context.Context, *none) (*body[Version], error) {
	version := s.Version
	version.API = apiVersion
	return answer(version)
}

func (s *Server) status(ctx context.Context, _ *none) (*body[Status], error) {
	if standing := s.standing(); standing.Membership != IsManager {
		place := placeOf(standing)
		return answer(Status{Now: time.Now().UTC(), Sources: []Source{}, Problems: []Problem{}, Stacks: []Stack{}, Machine: &place})
	}
	page := NewStatus(s.snapshot(ctx))
	if lost := lostQuorum(ctx); lost != nil {
		page.Leaderless, page.Managers = lost, lost.Managers
	}
	return answer(page)
}

func (s *Server) listStacks(ctx context.Context, _ *none) (*body[[]Stack], error) {
	return answer(NewStatus(s.snapshot(ctx)).Stacks)
}

func (s *Server) getStack(ctx context.Context, in *oneStack) (*body[Stack], error) {
	name := swarm.StackName(in.Stack)
	shot := s.snapshot(ctx, name)
	record, ok := shot.record(name)
	if !ok {
		return nil, shot.noStack(name)
	}
	return answer(shot.stackOf(record))
}

func (s *Server) history(ctx context.Context, in *oneStack) (*body[[]Rollout], error) {
	name := swarm.StackName(in.Stack)
	shot := s.snapshot(ctx, name)
	record, ok := shot.record(name)
	if !ok {
		return nil, shot.noStack(name)
	}

	rollouts := []Rollout{}
	if !record.Rollout.Phase.Ended() {
		content, _ := shot.content(target(record))
		rollouts = append(rollouts, *shot.rolloutOf(record, content))
	}
	for _, ended := range record.History {
		rollouts = append(rollouts, Rollout{
			ID: ended.ID, Phase: string(ended.Phase), Revision: string(ended.To.Revision),
			Author: ended.To.Author, Subject: ended.To.Subject, Operator: ended.Operator,
			Began: ended.Began, Over: optionalTime(ended.Over), Why: ended.Why,
		})
	}
	return answer(rollouts)
}

func (s *Server) listServices(ctx context.Context, in *oneTarget) (*body[[]Service], error) {
	shot, err := s.snapshotOf(ctx, in.Target)
	if err != nil {
		return nil, err
	}
	chosen, _ := parseTarget(in.Target)
	services := []Service{}
	for _, record := range shot.Stacks {
		if chosen.stack != "" && record.Name != chosen.stack {
			continue
		}
		for _, service := range shot.stackOf(record).Services {
			if chosen.service == "" || swarm.ServiceID(service.ID).Name() == chosen.service {
				services = append(services, service)
			}
		}
	}
	if len(services) == 0 {
		if err := shot.unknownTarget(chosen, in.Target); err != nil {
			return nil, err
		}
	}
	return answer(services)
}

func (s *Server) listTasks(ctx context.Context, in *taskQuery) (*body[[]Task], error) {
	shot, err := s.snapshotOf(ctx, in.Target)
	if err != nil {
		return nil, err
	}
	tasks, err := shot.tasksOf(in.Target)
	if err != nil {
		return nil, err
	}

	images := shot.images()
	views := []Task{}
	var node swarm.Node
	if in.Node != "" {
		if node, err = nodeNamed(shot.Nodes, in.Node); err != nil {
			return nil, err
		}
	}
	for _, task := range tasks {
		onNode := in.Node == "" || task.Node == node.ID
		if onNode && (in.All || task.Status.State.Live()) {
			views = append(views, shot.taskOf(task, images[task.Spec]))
		}
	}
	slices.SortStableFunc(views, func(a, b Task) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot),
			cmp.Compare(a.Hostname, b.Hostname), b.Created.Compare(a.Created))
	})
	return answer(views)
}

// images names the image of each task spec that a stack's revisions brought.
func (s Snapshot) images() map[swarm.Digest]string {
	images := map[swarm.Digest]string{}
	for _, record := range s.Stacks {
		if len(s.Tasks[record.Name]) == 0 {
			continue
		}
		revisions := []swarm.Rendered{record.Accepted, record.Healthy, record.Rollout.To, record.Rollout.From}
		for _, ended := range record.History {
			revisions = append(revisions, ended.To)
		}
		for _, rendered := range revisions {
			content, _ := s.content(rendered)
			if content == nil {
				continue
			}
			for _, service := range content.Services {
				images[service.Spec] = service.Task.Image
			}
		}
	}
	return images
}

func (s *Server) listSources(ctx context.Context, _ *none) (*body[[]Source], error) {
	view := s.View()
	sources := []Source{}
	for _, source := range view.Sources() {
		if callerOf(ctx).mine(source.ID) {
			sources = append(sources, sourceOf(source, view.Stacks()))
		}
	}
	return answer(sources)
}

type oneSource struct {
	Source string `path:"source" maxLength:"255"`
}

func (s *Server) getSource(ctx context.Context, in *oneSource) (*body[Source], error) {
	sources, err := s.listSources(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, source := range sources.Body {
		if source.ID == in.Source {
			return answer(source)
		}
	}
	return nil, NotFound(fmt.Sprintf("no source %q", in.Source), "gitswarm source ls lists them")
}

func (s *Server) listVolumes(ctx context.Context, _ *none) (*body[[]Volume], error) {
	shot := s.snapshot(ctx)
	volumes := []Volume{}
	for _, volume := range s.View().Volumes() {
		view := shot.volumeOf(volume)
		view.Pins = shot.pins(volume)
		volumes = append(volumes, view)
	}
	return answer(volumes)
}

// pins lists the slots that a volume keeps on its node.
func (s Snapshot) pins(volume swarm.KeptVolume) []string {
	id := swarm.ServiceID(volume.ID) // both are written stack/name
	record, ok := s.record(id.Stack())
	if !ok {
		return nil
	}
	content, _ := s.content(target(record))
	if content == nil {
		return nil
	}

	var pinned []string
	for _, service := range content.Services {
		mounts := slices.ContainsFunc(service.Task.Mounts, func(m swarm.Mount) bool {
			return m.Kind == swarm.MountVolume && m.Source == id.Name()
		})
		for _, task := range s.Tasks[record.Name] {
			here := task.Node == volume.Node && task.Service.Name() == service.Name && task.Status.State.Live()
			if name := swarm.SlotName(service.Name, task.Slot); mounts && here && !slices.Contains(pinned, name) {
				pinned = append(pinned, name)
			}
		}
	}
	return pinned
}

func (s *Server) listGrants(context.Context, *none) (*body[[]Grant], error) {
	grants := []Grant{}
	for _, grant := range s.View().Grants() {
		grants = append(grants, Grant{
			Stack: string(grant.Stack), Service: grant.Service, Rule: grant.Rule, Value: grant.Value,
		})
	}
	return answer(grants)
}

func (s *Server) stats(ctx context.Context, in *oneTarget) (*body[[]Usage], error) {
	shot, err := s.snapshotOf(ctx, in.Target)
	if err != nil {
		return nil, err
	}
	tasks, err := shot.tasksOf(in.Target)
	if err != nil {
		return nil, err
	}
	nodes := map[swarm.TaskID]swarm.NodeID{}
	var running []swarm.TaskID
	for _, task := range tasks {
		if task.Status.State.Running() {
			running = append(running, task.ID)
			nodes[task.ID] = task.Node
		}
	}

	views := []Usage{}
	if len(running) == 0 {
		return answer(views)
	}
	usages, err := s.Streams.Stats(ctx, running)
	if err != nil {
		return nil, Fail(http.StatusBadGateway, err.Error(), "gitswarm node ls shows which nodes answer")
	}
	for _, u := range usages {
		views = append(views, Usage{
			Task: string(u.Task), Node: shot.hostname(nodes[u.Task]), At: u.At, CPUSeconds: u.CPU.Seconds(),
			Memory: u.Memory, MemoryLimit: u.MemoryLimit, Pids: u.Pids, Received: u.Received, Sent: u.Sent,
		})
	}
	slices.SortFunc(views, func(a, b Usage) int { return cmp.Compare(a.Task, b.Task) })
	return answer(views)
}
