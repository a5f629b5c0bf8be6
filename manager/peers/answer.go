package peers

import (
	"context"
	"errors"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

var _ wire.ManagerServer = Answers{}

// Sessions are the agents' here; the dispatcher has them.
type Sessions interface {
	Beat(context.Context, wire.Beat) (wire.BeatReply, error)
	Relay(wire.Stream[wire.UpFrame, wire.RelayFrame]) error
}

// Answers is what this manager does for the others.
type Answers struct {
	Sessions              // required
	Store    *store.Store // required
	Content  *blobs.Blobs // required
}

// Propose puts another manager's entry into the log.
func (a Answers) Propose(ctx context.Context, entry []byte) (wire.ProposeReply, error) {
	index, err := a.Store.Accept(ctx, entry)
	return reply(index, err)
}

// ReadIndex tells where the log is, if this manager leads.
func (a Answers) ReadIndex(ctx context.Context) (wire.ProposeReply, error) {
	index, err := a.Store.ReadIndex(ctx)
	return reply(index, err)
}

// PutBlob keeps another manager's content.
func (a Answers) PutBlob(ctx context.Context, digest swarm.Digest, data []byte) error {
	return a.Content.PutBlob(ctx, digest, data)
}

// GetBlob gives content to another manager.
func (a Answers) GetBlob(ctx context.Context, digest swarm.Digest) ([]byte, error) {
	return a.Content.GetBlob(ctx, digest)
}

// causes are the errors that keep their meaning on the way.
func causes() map[wire.Refusal]error {
	return map[wire.Refusal]error{
		wire.RefusedStale: store.ErrStale, wire.RefusedNotFound: store.ErrNotFound,
		wire.RefusedNotLeader: store.ErrNotLeader, wire.RefusedLevel: store.ErrLevel,
	}
}

// reply says what became of an entry. An error without an index that is none of
// the causes is the call's: the entry may be in the log yet.
func reply(index uint64, err error) (wire.ProposeReply, error) {
	if err == nil {
		return wire.ProposeReply{Index: index}, nil
	}
	r := wire.ProposeReply{Index: index, Reason: err.Error()}
	if !errors.Is(err, store.ErrUncertain) {
		for kind, cause := range causes() {
			if errors.Is(err, cause) {
				r.Refusal = kind
			}
		}
	}
	switch {
	case r.Refusal != 0:
		return r, nil
	case index > 0:
		r.Refusal = wire.RefusedOther
		return r, nil
	}
	return wire.ProposeReply{}, err
}

// refusal is the error that reply was made from.
func refusal(r wire.ProposeReply) error {
	if r.Refusal == 0 {
		return nil
	}
	return refused{reason: r.Reason, cause: causes()[r.Refusal]}
}

// refused is another manager's error, in its words.
type refused struct {
	reason string
	cause  error
}

func (r refused) Error() string { return r.reason }
func (r refused) Unwrap() error { return r.cause }
