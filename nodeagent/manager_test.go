package nodeagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/nodeagent/agenttest"
	"github.com/gitswarm/gitswarm/swarm"
)

// manager is a fake on the other end of the real wire. It sends what the test
// says and notes what the agent answers.
type manager struct {
	t    *testing.T
	pipe *agenttest.Pipe

	welcome  wire.Welcome
	mu       sync.Mutex
	blobs    map[swarm.Digest][]byte
	sessions []*session
	index    uint64
	asked    []swarm.Digest
}

// session is one that the agent opened.
type session struct {
	hello  wire.Hello
	stream wire.Stream[wire.FromManager, wire.FromAgent]

	mu     sync.Mutex
	status map[swarm.TaskID]swarm.TaskStatus
	counts
}

// counts is what else the agent said.
type counts struct {
	applied uint64
	resends int
	beats   int
	removed []swarm.VolumeID
	papers  *wire.Papers
	over    bool
}

func (s *session) said() counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

func newManager(t *testing.T) *manager {
	m := &manager{t: t, pipe: agenttest.NewPipe(), blobs: make(map[swarm.Digest][]byte), welcome: wire.Welcome{Session: "s", Heartbeat: time.Second}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- wire.Serve(ctx, m.pipe, wire.Services{Agents: m}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *manager) Session(stream wire.Stream[wire.FromManager, wire.FromAgent]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	s := &session{hello: *first.Hello, stream: stream, status: make(map[swarm.TaskID]swarm.TaskStatus)}
	if err := stream.Send(&wire.FromManager{Welcome: &m.welcome}); err != nil {
		return err
	}
	m.mu.Lock()
	m.sessions = append(m.sessions, s)
	m.mu.Unlock()
	defer s.note(func() { s.over = true })
	for {
		from, err := stream.Recv()
		if err != nil {
			return err
		}
		s.note(func() {
			for _, r := range from.Reports {
				s.status[r.Task] = r.Status
			}
			s.applied = max(s.applied, from.Applied)
			s.removed = append(s.removed, from.Removed...)
			if from.Papers != nil {
				s.papers = from.Papers
			}
			if from.Resend {
				s.resends++
			}
			s.beats++
		})
	}
}

func (s *session) note(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (m *manager) Blob(_ context.Context, r wire.BlobRequest) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, r.Digest)
	data, ok := m.blobs[r.Digest]
	if !ok {
		return nil, errors.New("blob is missing: restore a backup")
	}
	return data, nil
}

// Attach sends "one" and the end of input to whatever comes, and logs what it
// hears.
func (m *manager) Attach(stream wire.Stream[wire.DownFrame, wire.UpFrame]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if strings.HasPrefix(first.Stream, "exec") {
		for _, frame := range []swarm.ExecFrame{{Stdin: []byte("one")}, {EOF: true}} {
			if err := stream.Send(&wire.DownFrame{Exec: &frame}); err != nil {
				return err
			}
		}
	}
	heard := first.Stream + ":"
	defer func() {
		m.latest().note(func() { m.latest().status[swarm.TaskID(first.Stream)] = swarm.TaskStatus{Message: heard} })
	}()
	for {
		up, err := stream.Recv()
		if err != nil {
			return nil
		}
		for _, line := range up.Lines {
			heard += fmt.Sprintf(" %s %s", line.Task, line.Text)
		}
		for _, usage := range up.Usage {
			heard += fmt.Sprintf(" %s %d", usage.Task, usage.Memory)
		}
		if up.Upgrade != nil {
			heard += " " + up.Upgrade.Version + up.Upgrade.Refused
		}
		if up.Exec != nil && up.Exec.Exit != nil {
			heard += fmt.Sprintf(" exit %d", *up.Exec.Exit)
		} else if up.Exec != nil {
			heard += " " + string(up.Exec.Stdout)
		}
		heard += up.Error
	}
}

// latest is the newest session, once there is one.
func (m *manager) latest() *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.sessions) == 0 {
		m.t.Fatal("the agent has opened no session")
	}
	return m.sessions[len(m.sessions)-1]
}

func (m *manager) opened() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sessions)
}

// spec stores a spec and returns its digest.
func (m *manager) spec(spec swarm.TaskSpec) swarm.Digest {
	data, err := codec.Encode(spec)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.blob(data)
}

func (m *manager) blob(data []byte) swarm.Digest {
	m.mu.Lock()
	defer m.mu.Unlock()
	digest := codec.DigestBytes(data)
	m.blobs[digest] = data
	return digest
}

// assign sends a whole assignment and waits until the agent has done what it
// can at once.
func (m *manager) assign(a swarm.Assignment) {
	m.t.Helper()
	m.index++
	m.send(wire.FromManager{Delta: new(wire.Everything(m.index, a))})
}

func (m *manager) send(message wire.FromManager) {
	m.t.Helper()
	if err := m.latest().stream.Send(&message); err != nil {
		m.t.Fatal(err)
	}
	synctest.Wait()
}

// state is what the agent last said of a task in this session.
func (s *session) state(task swarm.TaskID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	status, said := s.status[task]
	if !said {
		return "unsaid"
	}
	return strings.TrimSuffix(status.State.String()+", "+status.Message, ", ")
}

// node is an agent and what it acts on.
type node struct {
	t       *testing.T
	manager *manager
	others  map[string]*manager // by address
	renew   func(context.Context) error
	renewAt func() time.Time
	upgrade Upgrade
	reboot  bool
	begins  atomic.Int32 // how often the daemon was to begin anew
	own     string
	issuer  atomic.Value // string: of its certificate
	dir     string
	runtime *agenttest.Runtime
	network *agenttest.Network
	log     bytes.Buffer
	stop    func()
}

// bubble runs a test in virtual time with a node that has met its manager.
func bubble(t *testing.T, test func(*node)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := &node{t: t, dir: dir, manager: newManager(t), runtime: agenttest.NewRuntime(), network: &agenttest.Network{}}
		n.start()
		test(n)
		n.stop()
	})
}

func (n *node) papers() (role, issuer string) {
	issuer, _ = n.issuer.Load().(string)
	return swarm.RoleWorker, issuer
}

// dial reaches the manager at an address; there is one unless others says.
func (n *node) dial(ctx context.Context, address string) (net.Conn, error) {
	if other := n.others[address]; other != nil {
		return other.pipe.Dial(ctx)
	}
	return n.manager.pipe.Dial(ctx)
}

// start runs an agent until stop.
func (n *node) start() {
	ctx, cancel := context.WithCancel(n.t.Context())
	agent := New(Config{
		Node: "n1", Dir: n.dir, Runtime: n.runtime, Network: n.network, Dial: n.dial, Managers: []string{"m1"},
		Describe: func() swarm.NodeDescription { return swarm.NodeDescription{Hostname: "n1"} },
		Log:      slog.New(slog.NewTextHandler(&n.log, nil)), Renew: n.renew, RenewAt: n.renewAt,
		Own: func() string { return n.own }, Papers: n.papers, Upgrade: n.upgrade, Rebooted: n.reboot, Restart: func() { n.begins.Add(1) },
	})
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
		synctest.Wait()
	}
	synctest.Wait()
}

// told compares what the runtime was asked.
func (n *node) told(want ...string) {
	n.t.Helper()
	if got := n.runtime.Told(); !slices.Equal(got, want) {
		n.t.Errorf("the runtime was asked:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// is compares what the manager was told of a task.
func (n *node) is(task swarm.TaskID, want string) {
	n.t.Helper()
	if got := n.manager.latest().state(task); got != want {
		n.t.Errorf("%s is %q, want %q", task, got, want)
	}
}

// one is the assignment of a single task.
func one(id swarm.TaskID, spec swarm.Digest, desired swarm.Desired) swarm.Assignment {
	return swarm.Assignment{Tasks: []swarm.AssignedTask{{ID: id, Service: "shop/web", Slot: 1, Spec: spec, Desired: desired}}}
}
