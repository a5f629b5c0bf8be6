package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	describeEvery  = 10 * time.Second
	leastHeartbeat = 20 * time.Millisecond // whatever a manager asks for
	silenceLooks   = 10                    // in the time that a manager may say nothing
)

// session talks to the manager at address until the connection or ctx ends. It
// reports whether the manager let the agent in, which it must within patience.
func (a *Agent) session(ctx context.Context, address string, patience time.Duration) (welcomed bool, err error) {
	client, err := wire.Dial(func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialPatience)
		defer cancel()
		return a.config.Dial(ctx, address)
	})
	if err != nil {
		return false, err
	}
	defer client.Close() //nolint:errcheck // nothing can be done about it
	late := time.AfterFunc(patience, func() { _ = client.Close() })
	defer late.Stop()

	group, ctx := errgroup.WithContext(ctx)
	stream, err := client.Session(ctx)
	if err != nil {
		return false, err
	}
	description := a.config.Describe()
	welcome, err := a.greet(stream, description)
	if err != nil {
		return false, err
	}
	if !late.Stop() {
		return false, errors.New("the manager's welcome came too late")
	}
	if err := a.managers.meet(a.keep, welcome); err != nil {
		return false, err
	}

	a.link.up(client, welcome.Session)
	defer a.link.down()
	a.outbox.repeat()
	var heard atomic.Uint64
	group.Go(func() error { return a.speak(ctx, stream, max(welcome.Heartbeat, leastHeartbeat), description) })
	group.Go(func() error { return a.hear(ctx, stream, client, &heard) })
	group.Go(func() error { return endOfSilence(ctx, welcome.Silence, &heard) })
	return true, group.Wait()
}

// endOfSilence returns once nothing was heard for the time of silence. It
// counts looks and not time: if this process stood still, the manager did not.
func endOfSilence(ctx context.Context, silence time.Duration, heard *atomic.Uint64) error {
	if silence <= 0 {
		return nil
	}
	tick := time.NewTicker(max(silence, leastHeartbeat) / silenceLooks)
	defer tick.Stop()
	var last uint64
	for quiet := 0; quiet <= silenceLooks; quiet++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if now := heard.Load(); now != last {
			last, quiet = now, 0
		}
	}
	return fmt.Errorf("the manager said nothing for %s", silence)
}

// greet says hello and waits for the welcome.
func (a *Agent) greet(stream wire.Stream[wire.FromAgent, wire.FromManager], description swarm.NodeDescription) (wire.Welcome, error) {
	a.mu.Lock()
	hello := wire.Hello{Node: a.config.Node, Description: description, Index: a.held.Index, Hash: a.held.Hash, Papers: a.papers()}
	a.mu.Unlock()
	if err := stream.Send(&wire.FromAgent{Hello: &hello}); err != nil && !errors.Is(err, io.EOF) { // EOF: it was refused, and Recv says why
		return wire.Welcome{}, fmt.Errorf("say hello: %w", err)
	}

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

// hear takes deltas, opens streams and heeds notices, until the session ends.
func (a *Agent) hear(ctx context.Context, stream wire.Stream[wire.FromAgent, wire.FromManager], client *wire.Client, heard *atomic.Uint64) error {
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
		heard.Add(1)
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
		if m.Renew {
			poke(a.renew)
		}
		if err := a.managers.learn(a.keep, m.Managers); err != nil {
			a.log.Error("managers' addresses were not kept", "error", err)
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
