package blobs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/swarm"
)

const (
	askFor    = time.Minute            // one blob, all managers
	askNext   = 300 * time.Millisecond // without an answer, the next manager is asked as well
	fillWidth = 4                      // blobs at once
)

// fetch gets a blob from other managers and keeps it. However many ask for it
// here, it comes once; it goes on for the others if one of them gives up.
func (b *Blobs) fetch(ctx context.Context, digest swarm.Digest) ([]byte, error) {
	coming := b.asking.DoChan(string(digest), func() (any, error) {
		if err := b.begin(); err != nil {
			return nil, err
		}
		defer b.running.Done()
		ctx, cancel := context.WithTimeout(b.ctx, askFor)
		defer cancel()
		data, err := b.ask(ctx, digest)
		if err != nil {
			return nil, err
		}
		if err := b.keep(digest, data); err != nil {
			b.log.Warn("blob of another manager was not kept here", "blob", digest, "err", err)
		}
		return data, nil
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case came := <-coming:
		if came.Err != nil {
			return nil, came.Err
		}
		data := came.Val.([]byte)
		if came.Shared {
			data = slices.Clone(data)
		}
		return data, nil
	}
}

type answer struct {
	data []byte
	err  error
}

// ask returns the first answer that is what its name says. Managers are asked
// in random order, the next one when one fails or is slow.
func (b *Blobs) ask(ctx context.Context, digest swarm.Digest) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	peers := slices.Clone(b.peers())
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })

	answers := make(chan answer, len(peers))
	waiting, reasons := 0, []error(nil)
	for {
		if len(peers) > 0 {
			peer := peers[0]
			peers, waiting = peers[1:], waiting+1
			go func() { answers <- b.hear(ctx, peer, digest) }() // ends with ctx
		}
		if waiting == 0 {
			return nil, errors.Join(reasons...)
		}

		var slow <-chan time.Time
		if len(peers) > 0 {
			slow = time.After(askNext)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-slow:
		case a := <-answers:
			waiting--
			if a.err == nil {
				return a.data, nil
			}
			reasons = append(reasons, a.err)
		}
	}
}

// hear asks one manager, and believes it only what it can verify.
func (b *Blobs) hear(ctx context.Context, peer Peer, digest swarm.Digest) answer {
	data, err := peer.GetBlob(ctx, digest)
	if err == nil && (len(data) > MaxSize || b.name(digest, data) != digest) {
		err = fmt.Errorf("another manager's answer: %w: its content has another name here", ErrDamaged)
	}
	return answer{data, err}
}

// Fill gets from other managers what of digests is not here, as a manager does
// that joined, was wiped or was away. It returns how many came; its error names
// the first of those that nobody has. Empty digests are passed over.
func (b *Blobs) Fill(ctx context.Context, digests []swarm.Digest) (int, error) {
	var came, missing atomic.Int64
	var group errgroup.Group // goes on with the others when one fails
	group.SetLimit(fillWidth)
	for _, digest := range digests {
		if digest == "" || b.Has(digest) {
			continue
		}
		group.Go(func() error {
			if _, err := b.Get(ctx, digest); err != nil {
				missing.Add(1)
				return err
			}
			came.Add(1)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return int(came.Load()), fmt.Errorf("fill blobs: %d are missing: %w", missing.Load(), err)
	}
	return int(came.Load()), nil
}
