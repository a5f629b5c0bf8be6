package api

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/swarm"
)

// keptContents is how many rendered stacks are kept decoded.
const keptContents = 1024

// contents reads rendered stacks and keeps some of them: content never changes
// under its digest.
type contents struct {
	blobs Blobs
	mu    sync.Mutex
	kept  map[swarm.Digest]*swarm.Stack
}

func (c *contents) load(ctx context.Context, digest swarm.Digest) (*swarm.Stack, error) {
	if digest == "" {
		return nil, fmt.Errorf("read rendered stack: it has no content")
	}
	c.mu.Lock()
	stack := c.kept[digest]
	c.mu.Unlock()
	if stack != nil {
		return stack, nil
	}

	data, err := c.blobs.Get(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("read rendered stack: %w", err)
	}
	stack = new(swarm.Stack)
	if err := codec.Decode(data, stack); err != nil {
		return nil, fmt.Errorf("read rendered stack %s: %w", digest, err)
	}
	c.keep(digest, stack)
	return stack, nil
}

func (c *contents) keep(digest swarm.Digest, stack *swarm.Stack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil {
		c.kept = map[swarm.Digest]*swarm.Stack{}
	}
	for old := range c.kept {
		if len(c.kept) < keptContents {
			break
		}
		delete(c.kept, old)
	}
	c.kept[digest] = stack
}

// snapshot takes what pages are computed from. Without stacks it takes the
// tasks of all of them.
func (s *Server) snapshot(ctx context.Context, stacks ...swarm.StackName) Snapshot {
	view := s.View()
	shot := Snapshot{
		Now: later(view.Now(), time.Now()), Index: view.Index(),
		Sources: view.Sources(), Stacks: view.Stacks(), Nodes: view.Nodes(),
		Tasks: map[swarm.StackName][]swarm.Task{},
		Ports: map[swarm.ServiceID][]swarm.Port{},
		Content: func(digest swarm.Digest) (*swarm.Stack, bool) {
			stack, err := s.contents.load(ctx, digest)
			return stack, err == nil
		},
	}
	if len(stacks) == 0 {
		for _, record := range shot.Stacks {
			stacks = append(stacks, record.Name)
		}
	}
	for _, name := range stacks {
		shot.Tasks[name] = view.Tasks(name)
	}
	for _, endpoint := range view.Endpoints() {
		shot.Ports[endpoint.Service] = endpoint.Ports
	}
	return callerOf(ctx).narrow(shot)
}

// later is the time for ages: the cluster's stands still while nothing happens.
func later(cluster, here time.Time) time.Time {
	if cluster.After(here) {
		return cluster
	}
	return here.UTC()
}

// snapshotOf takes what a target concerns.
func (s *Server) snapshotOf(ctx context.Context, target string) (Snapshot, error) {
	chosen, err := parseTarget(target)
	if err != nil {
		return Snapshot{}, err
	}
	if chosen.stack == "" {
		return s.snapshot(ctx), nil
	}
	return s.snapshot(ctx, chosen.stack), nil
}
