package api

import (
	"bufio"
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

func TestAnyManagerHasTheLeaderDoWhatItIsAsked(t *testing.T) {
	c := newCouncil(t)
	c.lead("m2")
	for _, id := range []swarm.NodeID{"m1", "m2", "m3"} {
		status, text, _ := post(t, c.managers[id].at(t)+"/v1/nodes/delta/availability", `{"availability":"drained"}`)
		if status != http.StatusOK || !strings.Contains(text, "delta is drained") {
			t.Errorf("asked at %s: %d %s", id, status, text)
		}
	}
	if done := c.managers["m2"].done(); strings.Count(done, "m2: drained w1") != 3 {
		t.Errorf("the leader did %q", done)
	}
	if done := c.managers["m1"].done() + c.managers["m3"].done(); done != "" {
		t.Errorf("followers did %q", done)
	}

	var nodes []Node
	get(t, c.managers["m1"].at(t)+"/v1/nodes", &nodes)
	for _, node := range nodes {
		if node.Leader != (node.ID == "m2") {
			t.Errorf("%s leads: %v", node.ID, node.Leader)
		}
	}
}

func TestTheLeaderLearnsWhoAskedAtAnotherManager(t *testing.T) {
	c := newCouncil(t)
	c.lead("m2")
	follower, leader := c.managers["m1"], c.managers["m2"]
	token := follower.user("ana", swarm.UserOperator, "", time.Now().Add(time.Hour))
	leader.tokens = append(leader.tokens, follower.tokens...)

	drain := func() int {
		request := httptest.NewRequest(http.MethodPost, "/v1/nodes/w1/availability", strings.NewReader(`{"availability":"drained"}`))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", "Bearer "+token)
		// A user who claims to be passed on by a manager is not believed.
		request.Header.Set(callerHeader, caller{Name: "root", Role: swarm.UserAdmin}.header())
		recorder := httptest.NewRecorder()
		follower.server.UsersHandler().ServeHTTP(recorder, request)
		return recorder.Code
	}
	if status := drain(); status != http.StatusOK || leader.done() != "m2: drained w1 by ana" {
		t.Errorf("status %d; the leader did %q", status, leader.done())
	}

	// The leader knows already that the token is gone.
	leader.tokens = nil
	if status := drain(); status != http.StatusUnauthorized || leader.done() != "m2: drained w1 by ana" {
		t.Errorf("with a removed token: status %d; the leader did %q", status, leader.done())
	}
}

func TestStreamsAndUpgradesPassThroughAFollower(t *testing.T) {
	c := newCouncil(t)
	c.lead("m3")
	front := c.managers["m1"].at(t)

	answer, err := http.Get(front + "/v1/logs?target=shop&follow=true")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(answer.Body)
	for _, text := range []string{"one", "two"} { // each arrives before the next is written
		c.managers["m3"].emitted <- swarm.LogLine{Task: "shop/web.1.t1", Text: []byte(text)}
		if !lines.Scan() || !strings.Contains(lines.Text(), text) {
			t.Fatalf("got %q, %v; want %s", lines.Text(), lines.Err(), text)
		}
	}
	answer.Body.Close()
	for until := time.Now().Add(10 * time.Second); !strings.Contains(c.managers["m3"].done(), "reader left"); {
		if time.Now().After(until) {
			t.Fatal("the leader goes on with a stream whose reader left")
		}
		time.Sleep(5 * time.Millisecond)
	}

	request, err := http.NewRequest(http.MethodPost, front+"/v1/exec", strings.NewReader(`{"target":"shop/web","args":["cat"],"stdin":true}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Content-Type": {"application/json"}, "Connection": {"Upgrade"}, "Upgrade": {ExecProtocol}}
	upgraded, err := http.DefaultTransport.RoundTrip(request)
	if err != nil || upgraded.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("exec: %v, %v", upgraded, err)
	}
	conn := upgraded.Body.(io.ReadWriteCloser)
	defer conn.Close()
	frames := NewFrames(conn, conn)
	if err := errors.Join(frames.Write(swarm.ExecFrame{Stdin: []byte("hello")})); err != nil {
		t.Fatal(err)
	}
	if frame, err := frames.Read(); err != nil || string(frame.Stdout) != "hello" {
		t.Fatalf("echo: %q, %v", frame.Stdout, err)
	}
	if err := frames.Write(swarm.ExecFrame{EOF: true}); err != nil {
		t.Fatal(err)
	}
	if frame, err := frames.Read(); err != nil || frame.Exit == nil || *frame.Exit != 7 {
		t.Fatalf("exit: %+v, %v", frame, err)
	}

	status, backup, _ := post(t, front+"/v1/cluster/backup", `{"key":"correct horse"}`)
	if status != http.StatusOK || len(backup) != 100_000*len("correct horse") {
		t.Errorf("backup: %d with %d bytes", status, len(backup))
	}
}

func TestARequestWaitsForTheNextLeader(t *testing.T) {
	c := newCouncil(t)
	c.lead("m2")
	c.managers["m2"].stop() // killed: m1 does not know it yet
	answered := make(chan string, 1)
	front := c.managers["m1"].at(t)
	go func() {
		status, text, _ := post(t, front+"/v1/nodes/w1/availability", `{"availability":"paused"}`)
		answered <- fmt.Sprint(status, " ", text)
	}()
	select {
	case text := <-answered:
		t.Fatalf("answered without a leader: %s", text)
	case <-time.After(4 * lookAgain):
	}
	c.lead("") // an election
	c.lead("m3")
	if text := <-answered; !strings.HasPrefix(text, "200") {
		t.Errorf("after the election: %s", text)
	}
	if done := c.managers["m3"].done(); done != "m3: paused w1 by " {
		t.Errorf("the new leader did %q", done)
	}
}

// Two managers that take each other for the leader would pass a request back
// and forth for ever.
func TestARequestIsPassedOnOnce(t *testing.T) {
	c := newCouncil(t)
	c.lead("m2")
	c.managers["m2"].unsure = true // it was deposed and does not know by whom
	front := c.managers["m1"].at(t)
	answered := make(chan string, 1)
	go func() {
		status, text, _ := post(t, front+"/v1/nodes/w1/availability", `{"availability":"paused"}`)
		answered <- fmt.Sprint(status, " ", text)
	}()
	<-c.managers["m2"].asked
	c.lead("m1")
	if text := <-answered; !strings.HasPrefix(text, "200") {
		t.Errorf("answered %s", text)
	}
	if done := c.managers["m1"].done() + c.managers["m2"].done(); done != "m1: paused w1 by " {
		t.Errorf("done: %q, want once, by the manager that leads", done)
	}
}

func TestWithoutAQuorumStatusSaysWhoIsMissingAndWhatToDo(t *testing.T) {
	c := newCouncil(t)
	c.silent(time.Minute)
	c.managers["m2"].stop()
	c.managers["m3"].stop()
	front := c.managers["m1"].at(t)

	var page Status
	status, header := get(t, front+"/v1/status", &page)
	lost := page.Leaderless
	if status != http.StatusOK || header.Get(StaleHeader) == "" || lost == nil {
		t.Fatalf("status %d, header %v, page %+v", status, header, page)
	}
	if lost.Quorum || lost.Managers != (Count{1, 3}) || len(lost.Unreachable) != 2 {
		t.Errorf("what is lost: %+v", lost)
	}
	for _, want := range []string{"quorum lost", "2 of 3 managers do not answer", "beta (127.0.0.1:", "gamma (127.0.0.1:"} {
		if !strings.Contains(lost.Text, want) {
			t.Errorf("%q does not say %q", lost.Text, want)
		}
	}
	if !strings.Contains(lost.Remedy, "docs/recovery.md") {
		t.Errorf("remedy %q", lost.Remedy)
	}

	var nodes []Node
	if status, header := get(t, front+"/v1/nodes", &nodes); status != http.StatusOK || header.Get(StaleHeader) == "" || len(nodes) != 4 {
		t.Errorf("nodes: %d, %v, %d of them", status, header, len(nodes))
	}
	var failed Failure
	if status, _ := get(t, front+"/v1/logs?target=shop", &failed); status != http.StatusServiceUnavailable || failed.Code != CodeNoQuorum {
		t.Errorf("logs: %d %+v", status, failed)
	}
	recorder := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodPost, "/v1/nodes/w1/availability", strings.NewReader(`{"availability":"paused"}`))
	waiting, cancel := context.WithTimeout(t.Context(), 20*lookAgain)
	defer cancel()
	c.managers["m1"].server.Handler().ServeHTTP(recorder, request.WithContext(waiting))
	if done := c.managers["m1"].done(); done != "" {
		t.Errorf("without a quorum it did %q", done)
	}
}

func TestAnElectionIsNoLossOfQuorum(t *testing.T) {
	c := newCouncil(t)
	c.silent(time.Minute)
	c.managers["m3"].stop()
	var page Status
	get(t, c.managers["m1"].at(t)+"/v1/status", &page)
	if page.Leaderless == nil || !page.Leaderless.Quorum || !strings.Contains(page.Leaderless.Text, "2 of 3") {
		t.Errorf("page: %+v", page.Leaderless)
	}
}

func TestOnlyManagersSpeakForOthers(t *testing.T) {
	c := newCouncil(t)
	c.lead("m1")
	address := c.members[0].Address
	worker := c.papers("w1", swarm.RoleWorker)
	for _, protocol := range []string{identity.ProtocolAPI, identity.ProtocolWire} {
		conn, err := worker.Dial(t.Context(), address, protocol)
		if err != nil {
			continue // refused by the port
		}
		fmt.Fprintf(conn, "POST /v1/nodes/w1/availability HTTP/1.1\r\nHost: m1\r\n%s: %s\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n%s",
			callerHeader, caller{Name: "root", Role: swarm.UserAdmin}.header(), `{"availability":"paused"}`)
		if answer, err := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("a worker by %s got %q, %v", protocol, answer, err)
		}
		conn.Close()
	}
	if done := c.managers["m1"].done(); done != "" {
		t.Errorf("for a worker it did %q", done)
	}
}

func TestADoorOutlivesWhatIsBehindIt(t *testing.T) {
	path := t.TempDir() + "/api.sock"
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	unjoined := New(Config{Machine: place{InNone}})
	door := NewDoor(unjoined)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- door.Serve(ctx, listener) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	ask := func(path string) (int, string) {
		answer, err := client.Get("http://door" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}

	if status, text := ask("/v1/nodes"); status != http.StatusConflict || !strings.Contains(text, CodeNoCluster) {
		t.Errorf("in no cluster: %d %s", status, text)
	}
	for _, path := range []string{"/v1/version", "/v1/status", "/v1/machine", "/openapi.json", "/v1/authority"} {
		if status, text := ask(path); status != http.StatusOK {
			t.Errorf("in no cluster GET %s: %d %s", path, status, text)
		}
	}
	manager, _ := newSmall(t, nil)
	door.Open(manager)
	if status, text := ask("/v1/nodes"); status != http.StatusOK {
		t.Errorf("as a manager: %d %s", status, text)
	}
	door.Open(New(Config{Machine: place{IsLocked}}))
	if status, text := ask("/v1/stacks"); status != http.StatusConflict || !strings.Contains(text, "gitswarm unlock") {
		t.Errorf("locked: %d %s", status, text)
	}
}

// place is a machine that stands where it stands.
type place struct{ membership Membership }

func (p place) Standing() Standing                                            { return Standing{Membership: p.membership} }
func (p place) Begin(context.Context, Beginning, string) (b Begun, err error) { return b, nil }
func (p place) Join(context.Context, Joining, string) error                   { return nil }
func (p place) Leave(context.Context, bool, string) error                     { return nil }
func (p place) Unlock(context.Context, string, string) error                  { return nil }
func (p place) Restore(context.Context, Restoring, string) (b Begun, err error) {
	return b, nil
}
