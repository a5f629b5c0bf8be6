package manager

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/reconciler"
	"github.com/gitswarm/gitswarm/swarm"
)

// look gathers all that the reconciler needs to know of one stack.
func (m *Manager) look(ctx context.Context, view *store.View, name swarm.StackName) (reconciler.View, bool, error) {
	record, found := view.Stack(name)
	if !found {
		return reconciler.View{}, false, nil
	}
	accepted, err := m.content(ctx, record.Accepted.Content)
	if err != nil {
		return reconciler.View{}, false, fmt.Errorf("look at stack %s: %w", name, err)
	}
	healthy, err := m.content(ctx, record.Healthy.Content)
	if err != nil {
		return reconciler.View{}, false, fmt.Errorf("look at stack %s: %w", name, err)
	}
	if record.Removing {
		accepted = nil
	}
	cluster, _ := view.Cluster()
	sight := reconciler.View{
		Record: record, Accepted: accepted, Healthy: healthy,
		Tasks: view.Tasks(name), Nodes: m.picture.allNodes(), Chance: chance(),
		History: cluster.Settings.TaskHistory,
	}
	if record.Rebalance || rebalances(healthy) {
		sight.Load = m.picture.load()
	}
	return sight, true, nil
}

// rebalances reports whether replicas of the stack move to emptier nodes
// without being asked.
func rebalances(stack *swarm.Stack) bool {
	return stack != nil && slices.ContainsFunc(stack.Services, func(s swarm.Service) bool { return s.Rebalance })
}

// followsNodes reports whether any change of any node may concern the stack:
// it has something on each node, or moves to emptier ones.
func (m *Manager) followsNodes(ctx context.Context, name swarm.StackName) bool {
	record, _ := m.store.View().Stack(name)
	if record.Rebalance {
		return true
	}
	for _, digest := range []swarm.Digest{record.Accepted.Content, record.Healthy.Content} {
		stack, err := m.content(ctx, digest)
		switch {
		case err != nil: // it is tried again with the stack itself
			return true
		case stack == nil:
			continue
		case rebalances(stack), slices.ContainsFunc(stack.Services, func(s swarm.Service) bool { return s.Mode.PerNode() }):
			return true
		}
	}
	return false
}

// chance seeds the ids of new tasks.
func chance() uint64 {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails: crypto/rand ends the program instead
	return binary.NativeEndian.Uint64(seed[:])
}

// content returns the rendered stack of a digest, or nil for none. Contents
// never change, so they are kept decoded.
func (m *Manager) content(ctx context.Context, digest swarm.Digest) (*swarm.Stack, error) {
	if digest == "" {
		return nil, nil
	}
	if stack, kept := m.contents.Get(digest); kept {
		return stack, nil
	}
	data, err := m.blobs.Get(ctx, digest)
	if err != nil {
		return nil, err
	}
	stack := new(swarm.Stack)
	if err := codec.Decode(data, stack); err != nil {
		return nil, err
	}
	m.contents.Add(digest, stack)
	return stack, nil
}
