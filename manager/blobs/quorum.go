package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

const (
	sendFor       = time.Minute // one blob to one manager
	maxStragglers = 64 << 20    // bytes that go on to slow managers in the background
	settledFor    = young / 2   // no manager sweeps a blob for young after it was put
	maxSettled    = 20_000      // digests that are remembered
)

// delivery is one blob on its way to other managers.
type delivery struct {
	peers   int
	size    int64
	answers chan error // one for each of them
	cancel  context.CancelFunc
}

// deliver starts to send a blob to peers.
func (b *Blobs) deliver(peers []Peer, digest swarm.Digest, data []byte) *delivery {
	ctx, cancel := context.WithTimeout(b.ctx, sendFor)
	d := &delivery{peers: len(peers), size: int64(len(data)), answers: make(chan error, len(peers)), cancel: cancel}
	if len(peers) > 0 {
		data = bytes.Clone(data) // its owner may change it once Put has returned
	}
	for _, peer := range peers {
		if err := b.begin(); err != nil {
			d.answers <- err
			continue
		}
		go func() {
			defer b.running.Done()
			d.answers <- peer.PutBlob(ctx, digest, data)
		}()
	}
	return d
}

// awaitMajority waits until this manager, which has the blob, and others are a
// majority. Those that are slow go on without being waited for.
func (b *Blobs) awaitMajority(ctx context.Context, d *delivery) error {
	voters := d.peers + 1
	needed := voters/2 + 1
	have := 1
	var reasons []error
	for have < needed {
		select {
		case err := <-d.answers:
			if err == nil {
				have++
				continue
			}
			reasons = append(reasons, err)
			if voters-len(reasons) < needed {
				d.cancel()
				return fmt.Errorf("%w: %d of %d, and %d are needed: %w", ErrQuorum, have, voters, needed, errors.Join(reasons...))
			}
		case <-ctx.Done():
			d.cancel()
			return fmt.Errorf("%w: %d of %d, and %d are needed: %w", ErrQuorum, have, voters, needed, errors.Join(append(reasons, ctx.Err())...))
		}
	}
	b.leaveToStragglers(d, voters-have-len(reasons))
	return nil
}

// leaveToStragglers lets the last sends of a delivery go on, unless there are
// too many such already: then those managers ask for the blob later.
func (b *Blobs) leaveToStragglers(d *delivery, left int) {
	size := int64(left) * (d.size + 4096) // an empty blob costs something, too
	if left == 0 || !b.stragglers.take(size) {
		d.cancel()
		return
	}
	if err := b.begin(); err != nil {
		d.cancel()
		return
	}
	go func() {
		defer b.running.Done()
		defer d.cancel()
		defer b.stragglers.give(size)
		for range left {
			if err := <-d.answers; err != nil {
				b.log.Debug("blob did not reach a manager; it will ask for it", "err", err)
			}
		}
	}()
}

// budget bounds what goes on in the background.
type budget struct {
	mu   sync.Mutex
	used int64 // bytes; at most maxStragglers
}

func (b *budget) take(bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+bytes > maxStragglers {
		return false
	}
	b.used += bytes
	return true
}

func (b *budget) give(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= bytes
}

// settled remembers which blobs a majority got lately, so that putting them
// again is cheap.
type settled struct {
	mu    sync.Mutex
	peers []Peer // that there were; others void all
	when  map[swarm.Digest]time.Time
}

func (s *settled) has(digest swarm.Digest, peers []Peer, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	when, ok := s.when[digest]
	return ok && slices.Equal(s.peers, peers) && now.Sub(when) < settledFor
}

func (s *settled) note(digest swarm.Digest, peers []Peer, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.peers, peers) || s.when == nil || len(s.when) >= maxSettled {
		s.peers, s.when = peers, make(map[swarm.Digest]time.Time)
	}
	s.when[digest] = now
}
