package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	backoffFirst   = 50 * time.Millisecond
	backoffLast    = 8 * time.Second
	welcomeTimeout = 5 * time.Second
	describeEvery  = 10 * time.Second
	leastHeartbeat = 100 * time.Millisecond // whatever a manager asks for
)

// keepSession keeps a session with a manager, and opens another when it ends.
func (a *Agent) keepSession(ctx context.Context) error {
	backoff := backoffFirst
	said := ""
	for {
		welcomed, err := a.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if welcomed {
			backoff, said = backoffFirst, ""
		}
		if text := fmt.Sprint(err); text != said {
			a.log.Warn("session ended; the node goes on by its last assignment", "error", err)
			said = text
		}

		jitter := time.Duration(rand.Int64N(int64(backoff) / 2))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(backoff - jitter):
		}
		backoff = min(2*backoff, backoffLast)
	}
}

// session talks to one manager until the connection or ctx ends. It reports
// whether the manager let the agent in.
func (a *Agent) session(ctx context.Context) (welcomed bool, err error) {
	client, err := wire.Dial(a.config.Dial)
	if err != nil {
		return false, err
	}
	defer client.Close() //nolint:errcheck // nothing can be done about it

	group, ctx := errgroup.WithContext(ctx)
	stream, err := client.Session(ctx)
	if err != nil {
		return false, err
	}
	description := a.config.Describe()
	welcome, err := a.greet(stream, client, description)
	if err != nil {
		return false, err
	}

	a.link.up(client, welcome.Session)
	defer a.link.down()
	a.outbox.repeat()
	group.Go(func() error { return a.speak(ctx, stream, max(welcome.Heartbeat, leastHeartbeat), description) })
	group.Go(func() error { return a.hear(ctx, stream, client) })
	return true, group.Wait()
}

// greet says hello and waits for the welcome.
func (a *Agent) greet(stream wire.Stream[wire.FromAgent, wire.FromManager], client *wire.Client, description swarm.NodeDescription) (wire.Welcome, error) {
	a.mu.Lock()
	hello := wire.Hello{Node: a.config.Node, Description: description, Index: a.held.Index, Hash: a.held.Hash}
	a.mu.Unlock()
	if err := stream.Send(&wire.FromAgent{Hello: &hello}); err != nil {
		return wire.Welcome{}, fmt.Errorf("say hello: %w", err)
	}

	late := time.AfterFunc(welcomeTimeout, func() { _ = client.Close() })
	defer late.Stop()
	m, err := stream.Recv()
	if err != nil {
		return wire.Welcome{}, fmt.Errorf("wait for welcome: %w", err)
	}
	if m.Welcome == nil {
		return wire.Welcome{}, errors.New("wait for welcome: the manager's first message is another")
	}
	return *m.Welcome, nil
}

// speak sends what there is to say, at once, and something at each heartbeat.
func (a *Agent) speak(ctx context.Context, stream wire.Stream[wire.FromAgent, wire.FromManager], heartbeat time.Duration, was swarm.NodeDescription) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	describe := time.NewTicker(describeEvery)
	defer describe.Stop()
	for {
		for {
			m, some := a.outbox.take()
			if !some {
				break
			}
			if err := stream.Send(&m); err != nil {
				return fmt.Errorf("send to manager: %w", err)
			}
		}

		var m *wire.FromAgent
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.outbox.news:
		case <-beat.C:
			m = &wire.FromAgent{}
		case <-describe.C:
			if now := a.config.Describe(); !reflect.DeepEqual(now, was) {
				was, m = now, &wire.FromAgent{Describe: &now}
			}
		}
		if m != nil {
			if err := stream.Send(m); err != nil {
				return fmt.Errorf("send to manager: %w", err)
			}
		}
	}
}

// hear takes deltas and opens streams, until the session ends.
func (a *Agent) hear(ctx context.Context, stream wire.Stream[wire.FromAgent, wire.FromManager], client *wire.Client) error {
	var open sync.WaitGroup
	defer open.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	room := make(chan struct{}, maxAttached)

	for {
		m, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("hear from manager: %w", err)
		}
		if m.Delta != nil {
			err := a.take(*m.Delta)
			if errors.Is(err, wire.ErrMisfit) {
				a.log.Warn("delta did not fit; the whole assignment was asked for", "error", err)
				a.outbox.askResend()
			} else if err != nil {
				return err
			}
		}
		if m.Open != nil {
			open.Go(func() { a.attach(ctx, client, *m.Open, room) })
		}
	}
}

// link is the agent's way to a manager, for whoever needs one.
type link struct {
	mu      sync.Mutex
	client  *wire.Client
	session string
	changed chan struct{}
}

func newLink() *link { return &link{changed: make(chan struct{})} }

func (l *link) up(client *wire.Client, session string) { l.set(client, session) }
func (l *link) down()                                  { l.set(nil, "") }

func (l *link) set(client *wire.Client, session string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client, l.session = client, session
	close(l.changed)
	l.changed = make(chan struct{})
}

// use waits for a manager and calls f with it, again with the next one where
// the connection was lost.
func (l *link) use(ctx context.Context, f func(client *wire.Client, session string) error) error {
	for {
		l.mu.Lock()
		client, session, changed := l.client, l.session, l.changed
		l.mu.Unlock()
		if client != nil {
			err := f(client, session)
			if err == nil || !wire.Lost(err) || ctx.Err() != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// blob returns content by digest: from disk, or from a manager as soon as
// there is one. Content that may be kept is kept.
func (a *Agent) blob(ctx context.Context, digest swarm.Digest, keep bool) ([]byte, error) {
	if data, ok := a.keep.blob(digest); ok && keep {
		return data, nil
	}
	fetched := a.flight.DoChan(string(digest), func() (any, error) {
		var data []byte
		err := a.link.use(a.life, func(client *wire.Client, session string) (err error) {
			data, err = client.Blob(a.life, session, digest)
			return err
		})
		if err == nil && keep {
			if err := a.keep.saveBlob(digest, data); err != nil {
				a.log.Error("blob was not kept", "error", err)
			}
		}
		return data, err
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-fetched:
		data, _ := result.Val.([]byte)
		return data, result.Err
	}
}
