package api

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/swarm"
)

// council is three managers on loopback, over real TLS with real certificates.
// Scripts say who leads.
type council struct {
	t         *testing.T
	authority swarm.Authority
	mu        sync.Mutex
	leader    swarm.NodeID
	contact   time.Time
	members   []Member
	managers  map[swarm.NodeID]*councillor
}

// councillor is one manager of a council, as its API sees it.
type councillor struct {
	*council
	small
	id     swarm.NodeID
	server *Server
	stop   func()

	log     sync.Mutex
	acts    []string      // "m1: drain w1 by ana"
	unsure  bool          // it cannot confirm that it leads
	asked   chan struct{} // closed once it was asked to confirm
	askOnce sync.Once
	emitted chan swarm.LogLine
}

func newCouncil(t *testing.T) *council {
	a, err := identity.NewAuthority("c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := &council{t: t, authority: a, contact: time.Now(), managers: map[swarm.NodeID]*councillor{}}
	for _, id := range []swarm.NodeID{"m1", "m2", "m3"} {
		c.open(id)
	}
	return c
}

func (c *council) papers(id swarm.NodeID, role string) *identity.Node {
	key, csr, err := identity.NewRequest()
	if err != nil {
		c.t.Fatal(err)
	}
	chain, err := identity.Issue(c.authority, csr, identity.Peer{Node: id, Role: role, Cluster: "c1"}, time.Hour, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	node, err := identity.Create(c.t.TempDir(), key, chain, c.authority.Trust)
	if err != nil {
		c.t.Fatal(err)
	}
	return node
}

func (c *council) open(id swarm.NodeID) {
	node := c.papers(id, swarm.RoleManager)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	m := &councillor{council: c, id: id, emitted: make(chan swarm.LogLine), asked: make(chan struct{})}
	m.nodes = []swarm.Node{
		{ID: "m1", Role: swarm.RoleManager, State: swarm.NodeReady, Description: swarm.NodeDescription{Hostname: "alpha"}},
		{ID: "m2", Role: swarm.RoleManager, State: swarm.NodeReady, Description: swarm.NodeDescription{Hostname: "beta"}},
		{ID: "m3", Role: swarm.RoleManager, State: swarm.NodeReady, Description: swarm.NodeDescription{Hostname: "gamma"}},
		{ID: "w1", Role: swarm.RoleWorker, State: swarm.NodeReady, Description: swarm.NodeDescription{Hostname: "delta"}},
	}
	m.server = New(Config{
		View: func() View { return m }, Changes: func() Changes { return still{} }, Nodes: m, Streams: m, Upkeep: m,
		Node: id, Managers: m, Version: Version{Version: string(id)}, Scratch: c.t.TempDir(),
		Pass: NewPass(func(ctx context.Context, address string) (net.Conn, error) {
			return node.Dial(ctx, address, identity.ProtocolAPI)
		}),
	})
	port := identity.Listen(listener, func() *tls.Config { return node.Server(identity.ProtocolAPI, identity.ProtocolWire) }, slog.New(slog.DiscardHandler))
	managers, agents := port.For(identity.ProtocolAPI), port.For(identity.ProtocolWire)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = port.Serve(ctx) })
	running.Go(func() { _ = m.server.ServeManagers(ctx, managers) })
	running.Go(func() { _ = m.server.ServeManagers(ctx, agents) }) // wired wrongly, on purpose
	m.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	c.t.Cleanup(m.stop)
	c.members = append(c.members, Member{Node: id, Address: listener.Addr().String(), Voter: true})
	c.managers[id] = m
}

func (c *council) lead(id swarm.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = id
}

// silent is how long ago every manager began and heard of a leader.
func (c *council) silent(d time.Duration) {
	c.contact = time.Now().Add(-d)
	for _, m := range c.managers {
		m.server.opened = c.contact
	}
}

func (c *council) Members() []Member { return c.members }
func (c *council) Leader() (Member, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, member := range c.members {
		if member.Node == c.leader {
			return member, true
		}
	}
	return Member{}, false
}
func (c *council) LastContact() time.Time { return c.contact }

func (m *councillor) Confirm(context.Context) error {
	m.askOnce.Do(func() { close(m.asked) })
	if m.unsure {
		return errors.New("lost leadership")
	}
	return nil
}

func (m *councillor) act(format string, args ...any) error {
	m.log.Lock()
	defer m.log.Unlock()
	m.acts = append(m.acts, fmt.Sprintf("%s: ", m.id)+fmt.Sprintf(format, args...))
	return nil
}

func (m *councillor) done() string {
	m.log.Lock()
	defer m.log.Unlock()
	return strings.Join(m.acts, "; ")
}

func (m *councillor) SetAvailability(_ context.Context, node swarm.NodeID, a swarm.Availability, by string) error {
	return m.act("%s %s by %s", a, node, by)
}
func (m *councillor) SetRole(context.Context, swarm.NodeID, string, string) error { return nil }
func (m *councillor) Label(context.Context, swarm.NodeID, map[string]string, []string, string) error {
	return nil
}
func (m *councillor) RemoveNode(context.Context, swarm.NodeID, bool, string) error { return nil }

func (m *councillor) Configure(context.Context, Change, string) (string, error) { return "", nil }
func (m *councillor) Backup(_ context.Context, to io.Writer, key string) error {
	_, err := io.WriteString(to, strings.Repeat(key, 100_000))
	return err
}
func (m *councillor) Upgrade(_ context.Context, _ Upgrading, by string, emit func(string) error) error {
	return emit("upgraded by " + by)
}
func (m *councillor) Rebalance(context.Context, swarm.StackName, string) ([]swarm.ServiceID, error) {
	return nil, nil
}

func (m *councillor) Tasks(swarm.StackName) []swarm.Task {
	return []swarm.Task{{ID: "shop/web.1.t1", Service: "shop/web", Slot: 1, Node: "w1", Status: swarm.TaskStatus{State: swarm.TaskHealthy}}}
}

func (m *councillor) Logs(ctx context.Context, _ swarm.LogQuery, emit func(swarm.LogLine) error) error {
	for {
		select {
		case <-ctx.Done():
			return m.act("reader left")
		case line := <-m.emitted:
			if err := emit(line); err != nil {
				return err
			}
		}
	}
}
func (m *councillor) Stats(context.Context, []swarm.TaskID) ([]swarm.Usage, error) { return nil, nil }
func (m *councillor) Exec(context.Context, swarm.ExecRequest) (Conversation, error) {
	return &echo{frames: make(chan swarm.ExecFrame, 8)}, nil
}

// echo is a process that says what it hears, and ends with its input.
type echo struct{ frames chan swarm.ExecFrame }

func (e *echo) Send(frame swarm.ExecFrame) error {
	if frame.EOF {
		code := 7
		e.frames <- swarm.ExecFrame{Exit: &code}
		return nil
	}
	e.frames <- swarm.ExecFrame{Stdout: frame.Stdin}
	return nil
}
func (e *echo) Recv() (swarm.ExecFrame, error) { return <-e.frames, nil }
func (e *echo) Close() error                   { return nil }

// at serves a manager's socket's API and returns where.
func (m *councillor) at(t *testing.T) string {
	front := httptest.NewServer(m.server.Handler())
	t.Cleanup(front.Close)
	return front.URL
}

func post(t *testing.T, url, body string) (int, string, http.Header) {
	t.Helper()
	answer, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text), answer.Header
}

func get(t *testing.T, url string, into any) (int, http.Header) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header
}
