package sim

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// Kinds of images, by the first part of their names.
const (
	imageGood  = "good"
	imageSlow  = "slow"  // takes long to pull, then works
	imageCrash = "crash" // ends soon after it began
	imageSick  = "sick"  // its health check never passes
	imageGone  = "gone"  // cannot be pulled
)

const secretText = "hunter2-of-"

// library is every content that people ever committed, as they meant it.
type library struct {
	mu     sync.Mutex
	stacks map[swarm.Digest]*swarm.Stack
	specs  map[swarm.Digest]swarm.Service
}

func newLibrary() *library {
	return &library{stacks: make(map[swarm.Digest]*swarm.Stack), specs: make(map[swarm.Digest]swarm.Service)}
}

func (l *library) keep(digest swarm.Digest, stack *swarm.Stack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stacks[digest] = stack
	for _, service := range stack.Services {
		l.specs[service.Spec] = service
	}
}

// service returns what a task of that spec is of.
func (l *library) service(spec swarm.Digest) swarm.Service {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.specs[spec]
}

func (l *library) stack(content swarm.Digest) *swarm.Stack {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stacks[content]
}

// draft is a stack as its author writes it: shop replaces its web servers one
// or two at a time, blog starts the new before it stops the old and has a
// secret.
func draft(name swarm.StackName, image string, parallelism, replicas int) *swarm.Stack {
	policy := swarm.RolloutPolicy{Parallelism: parallelism, OnFailure: swarm.FailureRollback, Monitor: 2 * time.Second, Order: swarm.StopFirst}
	service := swarm.Service{
		Name: "web", Mode: swarm.Replicated, Replicas: replicas, Deadline: 20 * time.Second,
		Task:    swarm.TaskSpec{Image: image, StopGrace: time.Second},
		Restart: swarm.RestartPolicy{Condition: swarm.RestartAny, Delay: time.Second},
	}
	if name == "blog" {
		policy.Order = swarm.StartFirst
		service.Task.Files = []swarm.File{{Kind: swarm.FileSecret, Name: "db", Target: "/run/secrets/db"}}
	}
	if kindOf(image) == imageSick {
		service.Task.Health = &swarm.Healthcheck{Test: []string{"check"}, Interval: time.Second, Retries: 1}
	}
	service.Update, service.Rollback = policy, policy
	service.Rollback.OnFailure = swarm.FailurePause
	return &swarm.Stack{Name: name, Services: []swarm.Service{service}}
}

// kindOf is the first part of an image's name.
func kindOf(image string) string {
	kind, _, _ := strings.Cut(image, ":")
	return kind
}

// commit carries a stack to the cluster through one manager, as the manager
// does with what a repository gave.
func (s *sim) commit(ctx context.Context, p *process, stack *swarm.Stack, revision string) error {
	for i := range stack.Services {
		service := &stack.Services[i]
		for j := range service.Task.Files {
			digest, err := p.blobs.PutSecret(ctx, []byte(secretText+string(stack.Name)))
			if err != nil {
				return err
			}
			service.Task.Files[j].Content = digest
		}
		spec, err := put(ctx, p, service.Task)
		if err != nil {
			return err
		}
		service.Spec = spec
	}
	content, err := put(ctx, p, stack)
	if err != nil {
		return err
	}
	s.library.keep(content, stack)
	record, _ := p.store.View().Stack(stack.Name)
	_, err = p.store.Propose(ctx, store.Command{At: time.Now().UTC(), AcceptStacks: &store.AcceptStacks{Stacks: []store.AcceptStack{{
		Name: stack.Name, Path: string(stack.Name), Version: record.Version,
		Head: swarm.Rendered{Revision: swarm.NewRevision("main", revision), Content: content},
	}}}})
	return err
}

func put(ctx context.Context, p *process, v any) (swarm.Digest, error) {
	data, err := codec.Encode(v)
	if err != nil {
		return "", err
	}
	return p.blobs.Put(ctx, data)
}
