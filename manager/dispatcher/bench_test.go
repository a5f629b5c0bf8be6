package dispatcher

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// crowd is a dispatcher with many sessions whose streams go nowhere.
func crowd(b *testing.B, agents int) (*Dispatcher, []*session) {
	b.Helper()
	d := New(Config{Local: "m1", Log: slog.New(slog.DiscardHandler)})
	d.term = &term{roll: newRoll(defaultHeartbeat, nil, time.Now()), drains: make(map[swarm.TaskID]*drain), draining: make(map[swarm.StackName]bool), news: make(chan struct{}, 1), over: make(chan struct{})}
	sessions := make([]*session, agents)
	for i := range sessions {
		s := &session{node: swarm.NodeID(fmt.Sprintf("%016x", i)), wake: make(chan struct{}, 1), end: func(error) {}}
		d.sessions[s.node], sessions[i] = s, s
		d.hearFrom(s)
	}
	return d, sessions
}

// A heartbeat at the manager that has the session, without the wire's cost.
func BenchmarkBeatsOfAgents(b *testing.B) {
	for _, agents := range []int{100, 5000} {
		b.Run(fmt.Sprint(agents, " agents"), func(b *testing.B) {
			d, sessions := crowd(b, agents)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d.take(sessions[i%agents], wire.FromAgent{})
			}
		})
	}
}

// What a follower with a third of 5,000 agents tells in a tenth of a second.
func BenchmarkBeatsToTheLeader(b *testing.B) {
	d, sessions := crowd(b, 5000)
	full := wire.Beat{Manager: "m2", Full: true}
	for _, s := range sessions[:1667] {
		delete(d.sessions, s.node)
		full.Sessions = append(full.Sessions, s.node)
	}
	d.term.roll.take(full, time.Now())
	part := wire.Beat{Manager: "m2", Index: 1, Heard: full.Sessions[:417]}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Beat(context.Background(), part); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(part.Heard)), "ns/node")
}

// The leader's look at all nodes, eight times in a heartbeat.
func BenchmarkBeatsJudged(b *testing.B) {
	for _, nodes := range []int{100, 10_000} {
		b.Run(fmt.Sprint(nodes, " nodes"), func(b *testing.B) {
			d, _ := crowd(b, nodes)
			for b.Loop() {
				if wrong := d.term.roll.misjudged(time.Now()); len(wrong) > 0 {
					b.Fatal(len(wrong), "nodes that speak are called silent")
				}
			}
		})
	}
}

// One changed stack on its way to the nodes that it concerns, among few and
// among many others. What it costs beside the processor's cache does not grow.
func BenchmarkAChangeAmongOtherStacks(b *testing.B) {
	for _, stacks := range []int{100, 10_000} {
		b.Run(fmt.Sprint(stacks, " stacks"), func(b *testing.B) {
			d, sessions := crowd(b, 1000)
			d.view = new(store.View)
			for i := range stacks {
				d.book.replace(swarm.StackName(fmt.Sprint("s", i)), exampleSheet(i, sessions, 0))
			}
			for _, s := range sessions {
				s.cut(&d.book)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				name := swarm.StackName(fmt.Sprint("s", i%stacks))
				whom := d.book.replace(name, exampleSheet(i%stacks, sessions, i+1))
				d.mark(name, whom)
				for node := range whom.nodes {
					s := d.sessions[node]
					old, new := s.change(&d.book)
					if changes, _ := wire.Diff(old, new); changes.Empty() {
						b.Fatal("nothing changed at", node)
					}
					s.clean()
				}
			}
		})
	}
}

// exampleSheet is a stack with two tasks on nodes of their own and a network.
func exampleSheet(i int, sessions []*session, version int) sheet {
	network := swarm.NetworkID(fmt.Sprint("s", i, "/default"))
	web := swarm.ServiceID(fmt.Sprint("s", i, "/web"))
	s := sheet{
		tasks:    make(map[swarm.NodeID][]swarm.AssignedTask),
		networks: []swarm.AssignedNetwork{{ID: network, Subnet: "10.0.0.0/24"}},
	}
	s.services = []service{{on: map[swarm.NetworkID]bool{network: true}}}
	s.services[0].ID, s.services[0].VIPs = web, []swarm.Address{{Network: network, IP: "10.0.0.2"}}
	for slot := range 2 {
		node := sessions[(2*i+slot)%len(sessions)].node
		task := swarm.TaskID(fmt.Sprint(web, ".", slot, ".", version))
		s.tasks[node] = append(s.tasks[node], swarm.AssignedTask{ID: task, Service: web, Slot: slot, Desired: swarm.DesiredRun, Addresses: []swarm.Address{{Network: network, IP: "10.0.0.3"}}})
		s.services[0].Backends = append(s.services[0].Backends, swarm.Backend{Task: task, Node: node})
	}
	return s
}

// Agents and manager of one process, over gRPC: a heartbeat's cost at both
// ends, and a session's memory.
func BenchmarkBeatsThroughTheWire(b *testing.B) {
	for _, agents := range []int{100, 2000} {
		b.Run(fmt.Sprint(agents, " agents, pipes"), func(b *testing.B) {
			board := &switchboard{lines: make(map[string]*pipeline), alone: make(map[string]bool)}
			beatThroughTheWire(b, agents, board.listen("m1/wire"), func(ctx context.Context) (net.Conn, error) {
				return board.dial(ctx, "agent", "m1", "wire")
			})
		})
		b.Run(fmt.Sprint(agents, " agents, TLS"), func(b *testing.B) {
			listener, dial := loopback(b, agents)
			beatThroughTheWire(b, agents, listener, dial)
		})
	}
}

// ofOneNode is how many of the connections are by one certificate: fewer than a
// manager allows.
const ofOneNode = 10

// loopback is a manager's port and the agents' way to it, with certificates.
func loopback(b *testing.B, agents int) (net.Listener, func(context.Context) (net.Conn, error)) {
	b.Helper()
	authority, err := identity.NewAuthority("c1", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	s := &secured{cluster: swarm.Cluster{Authority: authority}}
	manager := s.issue(b, "m1", swarm.RoleManager)
	var workers []*identity.Node
	for i := range agents / ofOneNode {
		workers = append(workers, s.issue(b, swarm.NodeID(fmt.Sprint("w", i)), swarm.RoleWorker))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	port := identity.Listen(listener, func() *tls.Config { return manager.Server(identity.ProtocolWire) }, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- port.Serve(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	var dialled atomic.Int64
	return port.For(identity.ProtocolWire), func(ctx context.Context) (net.Conn, error) {
		worker := workers[int(dialled.Add(1)-1)/ofOneNode]
		return worker.Dial(ctx, listener.Addr().String(), identity.ProtocolWire)
	}
}

func beatThroughTheWire(b *testing.B, agents int, listener net.Listener, dial func(context.Context) (net.Conn, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	heard := new(counting)
	served := make(chan error, 1)
	go func() { served <- wire.Serve(ctx, listener, wire.Services{Agents: heard}) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			b.Error(err)
		}
	}()

	before := memory()
	streams := make([]wire.Stream[wire.FromAgent, wire.FromManager], agents)
	for i := range streams {
		client, err := wire.Dial(dial)
		if err != nil {
			b.Fatal(err)
		}
		defer client.Close() //nolint:errcheck // the benchmark is over
		if streams[i], err = client.Session(ctx); err != nil {
			b.Fatal(i, err)
		}
	}
	session := float64(memory()-before) / float64(agents) / 1024 // both ends of it

	b.ReportAllocs()
	sent := int64(0)
	for b.Loop() {
		var group sync.WaitGroup
		for half := range 2 {
			group.Go(func() {
				for i := half; i < agents; i += 2 {
					if err := streams[i].Send(&wire.FromAgent{}); err != nil {
						b.Error(err)
					}
				}
			})
		}
		group.Wait()
		sent += int64(agents)
	}
	for heard.messages.Load() < sent {
		runtime.Gosched()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent), "ns/beat")
	b.ReportMetric(session, "KiB/session")
}

// memory is what is in use after a collection, stacks included.
func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// counting is a manager that counts what agents say.
type counting struct{ messages atomic.Int64 }

func (c *counting) Session(s wire.Stream[wire.FromManager, wire.FromAgent]) error {
	for {
		if _, err := s.Recv(); err != nil {
			return nil
		}
		c.messages.Add(1)
	}
}

func (c *counting) Blob(context.Context, wire.BlobRequest) ([]byte, error) { return nil, nil }

func (c *counting) Attach(wire.Stream[wire.DownFrame, wire.UpFrame]) error { return nil }
