package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

// factsKept bounds the specs that are remembered.
const factsKept = 20_000

// specs remembers what assignments need of specs.
type specs struct {
	mu    sync.Mutex
	facts map[swarm.Digest]Facts
}

func (s *specs) known(digest swarm.Digest) (Facts, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	facts, known := s.facts[digest]
	return facts, known
}

func (s *specs) keep(digest swarm.Digest, facts Facts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.facts == nil || len(s.facts) >= factsKept {
		s.facts = make(map[swarm.Digest]Facts)
	}
	s.facts[digest] = facts
}

// facts reads a spec's blob, once; a manager that does not have it asks the
// others, so this may take its time. A spec that cannot be read has none: its
// tasks' agents report why.
func (d *Dispatcher) facts(ctx context.Context, digest swarm.Digest) Facts {
	if facts, known := d.specs.known(digest); known {
		return facts
	}
	var spec swarm.TaskSpec
	data, err := d.config.Blobs.Get(ctx, digest)
	if err == nil {
		err = codec.Decode(data, &spec)
	}
	if err != nil {
		if ctx.Err() == nil {
			d.log.Error("spec was not read", "digest", digest, "error", err)
		}
		return Facts{}
	}

	facts := Facts{Hostname: spec.Hostname, Networks: spec.Networks}
	for _, file := range spec.Files {
		facts.Files = append(facts.Files, file.Content)
	}
	d.specs.keep(digest, facts)
	return facts
}

// Blob gives a session the content of a digest that a task of its node names.
func (d *Dispatcher) Blob(ctx context.Context, request wire.BlobRequest) ([]byte, error) {
	node, live := d.nodeOf(request.Session)
	if !live {
		return nil, errors.New("the session is over: open another")
	}
	if err := d.authorize(ctx, node); err != nil {
		return nil, err
	}
	if !d.names(ctx, node, request.Digest) {
		return nil, fmt.Errorf("no task of node %s names it", node)
	}
	return d.config.Blobs.Get(ctx, request.Digest)
}

// names reports whether a task on the node names the digest.
func (d *Dispatcher) names(ctx context.Context, node swarm.NodeID, digest swarm.Digest) bool {
	for _, task := range d.config.Store.View().TasksOn(node) {
		if task.Spec == digest {
			return true
		}
		for _, file := range d.facts(ctx, task.Spec).Files {
			if file == digest {
				return true
			}
		}
	}
	return false
}
