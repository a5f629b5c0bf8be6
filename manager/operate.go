package manager

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/reconciler"
	"github.com/gitswarm/gitswarm/swarm"
)

// AddSource watches one more repository.
func (m *Manager) AddSource(ctx context.Context, added api.NewSource, by string) (swarm.SourceID, error) {
	for _, source := range m.store.View().Sources() {
		if source.URL == added.URL && source.Branch == added.Branch && source.Path == added.Path && source.Environment == added.Environment {
			return "", fmt.Errorf("add source %s: source %s watches it already", added.URL, source.ID)
		}
	}
	source := swarm.Source{
		ID: newSourceID(), URL: added.URL, Branch: added.Branch, Path: added.Path, Environment: added.Environment,
		Poll: added.Poll, Approved: added.Approved, Created: m.now(),
	}
	if credential := added.Credential; credential.Password != "" || len(credential.SSHKey) > 0 || len(credential.KnownHosts) > 0 {
		data, err := codec.Encode(credential)
		if err != nil {
			return "", err
		}
		if source.Credential, err = m.blobs.PutSecret(ctx, data); err != nil {
			return "", fmt.Errorf("add source %s: keep its credential: %w", added.URL, err)
		}
	}
	return source.ID, m.propose(ctx, store.Command{By: by, PutSource: &source})
}

func newSourceID() swarm.SourceID { return swarm.SourceID("src-" + randomHex(4)) }

// newClusterID names a cluster that has no name yet.
func newClusterID() string { return randomHex(8) }

func randomHex(length int) string {
	chance := make([]byte, length)
	_, _ = rand.Read(chance) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(chance)
}

// RemoveSource stops watching a repository. Its stacks keep running.
func (m *Manager) RemoveSource(ctx context.Context, id swarm.SourceID, by string) error {
	if _, found := m.store.View().Source(id); !found {
		return fmt.Errorf("remove source %s: %w", id, errNotWatched)
	}
	return m.propose(ctx, store.Command{By: by, RemoveSource: &id})
}

// Approve lets the stacks go on that wait under a plan, and names them.
func (m *Manager) Approve(ctx context.Context, plan, by string) ([]swarm.StackName, error) {
	var names []swarm.StackName
	for _, record := range m.store.View().Stacks() {
		if record.Problem != nil && record.Problem.Plan == plan {
			names = append(names, record.Name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("approve %s: nothing waits under that plan; `gitswarm status` shows what does", plan)
	}
	return names, m.operate(ctx, by, store.Operate{Approve: plan})
}

// Retry forgets the quarantine of a stack's newest commit and tries it again.
func (m *Manager) Retry(ctx context.Context, name swarm.StackName, by string) error {
	record, err := m.record(name)
	if err != nil {
		return fmt.Errorf("retry %s: %w", name, err)
	}
	if record.Problem != nil && record.Problem.Kind == swarm.ProblemWaiting {
		return m.tryNow(ctx, record.Source)
	}
	if record.Head.Content == "" {
		return fmt.Errorf("retry %s: its newest commit %s is not a stack: %s", name, record.Head.Revision.Short(), problemText(record))
	}
	return m.operate(ctx, by, store.Operate{Stack: name, Retry: true})
}

// tryNow looks again at what waits of a source's last commit.
func (m *Manager) tryNow(ctx context.Context, source swarm.SourceID) error {
	select {
	case m.orders <- source:
	case <-ctx.Done():
		return fmt.Errorf("try what waits of source %s again: %w", source, ctx.Err())
	}
	return nil
}

func problemText(record swarm.StackRecord) string {
	if record.Problem == nil {
		return "it was removed"
	}
	return record.Problem.Text
}

// Rollback accepts an earlier revision again and quarantines the newer
// content. The empty revision means the last healthy one before the one that
// is accepted now.
func (m *Manager) Rollback(ctx context.Context, name swarm.StackName, to swarm.Revision, by string) (swarm.Revision, error) {
	record, err := m.record(name)
	if err != nil {
		return "", fmt.Errorf("roll back %s: %w", name, err)
	}
	target, err := rollbackTarget(record, to)
	if err != nil {
		return "", fmt.Errorf("roll back %s: %w", name, err)
	}
	return target.Revision, m.operate(ctx, by, store.Operate{Stack: name, Rollback: &target})
}

func rollbackTarget(record swarm.StackRecord, to swarm.Revision) (swarm.Rendered, error) {
	if to == "" && record.Healthy.Content != "" && record.Healthy.Content != record.Accepted.Content {
		return record.Healthy, nil
	}
	for _, ended := range record.History {
		wanted := ended.To.Revision == to || to == "" && ended.Phase == swarm.PhaseHealthy
		if wanted && ended.To.Content != "" && ended.To.Content != record.Accepted.Content {
			return ended.To, nil
		}
	}
	if to == "" {
		return swarm.Rendered{}, fmt.Errorf("there is no earlier healthy revision; `gitswarm history %s` shows what there is", record.Name)
	}
	return swarm.Rendered{}, fmt.Errorf("revision %s is not among those kept, or runs already; `gitswarm history %s` shows them", to.Short(), record.Name)
}

// Redeploy replaces the tasks of services; with pull, their images are
// resolved anew first. No services means all of the stack's.
func (m *Manager) Redeploy(ctx context.Context, name swarm.StackName, services []string, pull bool, by string) error {
	if !pull {
		return m.Restart(ctx, name, services, by)
	}
	record, stack, err := m.accepted(ctx, name)
	if err != nil {
		return fmt.Errorf("redeploy %s: %w", name, err)
	}
	if err := known(stack, services); err != nil {
		return fmt.Errorf("redeploy %s: %w", name, err)
	}
	head, err := m.resolveAnew(ctx, record, stack, services)
	if err != nil {
		return fmt.Errorf("redeploy %s: %w", name, err)
	}
	return m.operate(ctx, by, store.Operate{Stack: name, Accept: &head})
}

// resolveAnew renders the accepted stack again with fresh digests.
func (m *Manager) resolveAnew(ctx context.Context, record swarm.StackRecord, stack *swarm.Stack, services []string) (swarm.Rendered, error) {
	anew := *stack
	anew.Services = slices.Clone(stack.Services)
	images := make(map[string]swarm.ImageFacts)
	for _, service := range anew.Services {
		if len(services) == 0 || slices.Contains(services, service.Name) {
			images[service.Task.Image] = swarm.ImageFacts{}
			m.registry.Forget(service.Task.Image)
		}
	}
	if err := m.ask(ctx, m.store.View(), images); err != nil {
		return swarm.Rendered{}, err
	}
	for i := range anew.Services {
		service := &anew.Services[i]
		facts, asked := images[service.Task.Image]
		if !asked || facts.Manifest == service.Image.Manifest {
			continue
		}
		if fromImage := service.Task.Health; fromImage != nil && fmt.Sprint(fromImage) == fmt.Sprint(service.Image.Health) {
			service.Task.Health = nil
		}
		service.Image = facts
		applyFacts(service)
		spec, err := m.put(ctx, service.Task)
		if err != nil {
			return swarm.Rendered{}, err
		}
		service.Spec = spec
	}
	head := record.Accepted
	content, err := m.put(ctx, &anew)
	head.Content = content
	return head, err
}

// Restart replaces the tasks of services, one at a time. No services means all
// of the stack's.
func (m *Manager) Restart(ctx context.Context, name swarm.StackName, services []string, by string) error {
	_, stack, err := m.accepted(ctx, name)
	if err != nil {
		return fmt.Errorf("restart %s: %w", name, err)
	}
	if err := known(stack, services); err != nil {
		return fmt.Errorf("restart %s: %w", name, err)
	}
	if len(services) == 0 {
		for _, service := range stack.Services {
			services = append(services, service.Name)
		}
	}
	return m.operate(ctx, by, store.Operate{Stack: name, Restart: services})
}

// Scale sets the replicas of services until a revision changes them.
func (m *Manager) Scale(ctx context.Context, name swarm.StackName, replicas map[string]int, by string) error {
	_, stack, err := m.accepted(ctx, name)
	if err != nil {
		return fmt.Errorf("scale %s: %w", name, err)
	}
	for service, n := range replicas {
		found, ok := stack.Service(service)
		switch {
		case !ok:
			return fmt.Errorf("scale %s: %w", name, known(stack, []string{service}))
		case found.Mode != swarm.Replicated:
			return fmt.Errorf("scale %s/%s: its mode is %s; only replicated services have a number of replicas", name, service, found.Mode)
		case n < 0 || n > maxReplicas:
			return fmt.Errorf("scale %s/%s: %d replicas are not between 0 and %d", name, service, n, maxReplicas)
		}
	}
	return m.operate(ctx, by, store.Operate{Stack: name, Scale: replicas})
}

// maxReplicas bounds one service, as the compose loader does.
const maxReplicas = 10_000

// Rebalance asks a stack, or every one, to move replicas to emptier nodes, one
// at a time, and returns the services that it concerns.
func (m *Manager) Rebalance(ctx context.Context, name swarm.StackName, by string) ([]swarm.ServiceID, error) {
	records := m.store.View().Stacks()
	if name != "" {
		record, err := m.record(name)
		if err != nil {
			return nil, fmt.Errorf("rebalance %s: %w", name, err)
		}
		records = []swarm.StackRecord{record}
	}

	var concerned []swarm.ServiceID
	for _, record := range records {
		stack, err := m.content(ctx, record.Healthy.Content)
		if err != nil {
			return concerned, fmt.Errorf("rebalance %s: %w", record.Name, err)
		}
		services := reconciler.Movable(stack)
		if len(services) == 0 || record.Removing {
			continue
		}
		if err := m.operate(ctx, by, store.Operate{Stack: record.Name, Rebalance: true}); err != nil {
			return concerned, fmt.Errorf("rebalance %s: %w", record.Name, err)
		}
		for _, service := range services {
			concerned = append(concerned, swarm.NewServiceID(record.Name, service))
		}
	}
	return concerned, nil
}

// Suspend keeps a stack as it is: no commit is rolled out until Resume.
func (m *Manager) Suspend(ctx context.Context, name swarm.StackName, why, by string) error {
	if why == "" {
		why = "by " + by
	}
	if _, err := m.record(name); err != nil {
		return fmt.Errorf("suspend %s: %w", name, err)
	}
	return m.operate(ctx, by, store.Operate{Stack: name, Suspend: &why})
}

// Resume ends Suspend.
func (m *Manager) Resume(ctx context.Context, name swarm.StackName, by string) error {
	if _, err := m.record(name); err != nil {
		return fmt.Errorf("resume %s: %w", name, err)
	}
	none := ""
	return m.operate(ctx, by, store.Operate{Stack: name, Suspend: &none})
}

func (m *Manager) operate(ctx context.Context, by string, operate store.Operate) error {
	return m.propose(ctx, store.Command{By: by, Operate: &operate})
}

func (m *Manager) record(name swarm.StackName) (swarm.StackRecord, error) {
	record, found := m.store.View().Stack(name)
	if !found {
		return record, errNoStack
	}
	return record, nil
}

func (m *Manager) accepted(ctx context.Context, name swarm.StackName) (swarm.StackRecord, *swarm.Stack, error) {
	record, err := m.record(name)
	if err != nil {
		return record, nil, err
	}
	stack, err := m.content(ctx, record.Accepted.Content)
	if err == nil && stack == nil {
		err = fmt.Errorf("no revision of it was accepted yet: %s", problemText(record))
	}
	return record, stack, err
}

// known refuses service names that the stack does not have.
func known(stack *swarm.Stack, services []string) error {
	for _, name := range services {
		if _, found := stack.Service(name); !found {
			var names []string
			for _, service := range stack.Services {
				names = append(names, service.Name)
			}
			return fmt.Errorf("it has no service %q; it has %v", name, names)
		}
	}
	return nil
}
