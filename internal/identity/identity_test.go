package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

func newAuthority(t testing.TB, cluster string) swarm.Authority {
	t.Helper()
	a, err := NewAuthority(cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issued is a key and its certificate, as a node of the authority would get it.
func issued(t testing.TB, a swarm.Authority, p Peer, life time.Duration, now time.Time) (key, chain []byte) {
	t.Helper()
	key, csr, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	chain, err = Issue(a, csr, p, life, now)
	if err != nil {
		t.Fatal(err)
	}
	return key, chain
}

func newNode(t testing.TB, a swarm.Authority, p Peer) *Node {
	t.Helper()
	key, chain := issued(t, a, p, 0, time.Now())
	n, err := Create(t.TempDir(), key, chain, a.Trust)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func manager(name string) Peer {
	return Peer{Node: swarm.NodeID(name), Role: swarm.RoleManager, Cluster: "c1"}
}

func worker(name string) Peer {
	return Peer{Node: swarm.NodeID(name), Role: swarm.RoleWorker, Cluster: "c1"}
}

// journal is a log that tests read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

var errRemoved = errors.New("the node was removed from the cluster")

// openPort serves a node's port on loopback; each protocol echoes.
func openPort(t testing.TB, n *Node) (address string, port *Port, log *journal) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log = serve(t, l, n, func(p *Port) { port = p })
	return l.Addr().String(), port, log
}

func serve(t testing.TB, l net.Listener, n *Node, set func(*Port)) (log *journal) {
	t.Helper()
	log = &journal{}
	port := Listen(l, func() *tls.Config { return n.Server(ProtocolRaft, ProtocolWire, ProtocolAPI) }, slog.New(slog.NewTextHandler(log, nil)))
	set(port)
	for _, name := range []string{ProtocolRaft, ProtocolWire, ProtocolAPI} {
		go echo(port.For(name))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- port.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return log
}

func echo(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// talk sends a word and wants it back.
func talk(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != "hello" {
		return errors.New("the echo is " + string(got))
	}
	return nil
}

// reach dials and talks.
func reach(t testing.TB, address string, config *tls.Config) error {
	t.Helper()
	conn, err := Dial(t.Context(), address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	return talk(conn)
}

func logged(t testing.TB, log *journal, cause string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), cause); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log never says %q:\n%s", cause, log)
		}
	}
}

func TestManagersReachEachOtherByEveryProtocol(t *testing.T) {
	a := newAuthority(t, "c1")
	address, _, log := openPort(t, newNode(t, a, manager("m1")))
	two := newNode(t, a, manager("m2"))
	for _, protocol := range []string{ProtocolRaft, ProtocolWire, ProtocolAPI} {
		if err := reach(t, address, two.Client(protocol, swarm.RoleManager)); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
	}
	if log.String() != "" {
		t.Errorf("the log says %s", log)
	}
}

func TestAWorkerReachesTheAgentsServiceAndNothingOfManagers(t *testing.T) {
	a := newAuthority(t, "c1")
	address, _, log := openPort(t, newNode(t, a, manager("m1")))
	w := newNode(t, a, worker("w1"))
	if err := reach(t, address, w.Client(ProtocolWire, swarm.RoleManager)); err != nil {
		t.Errorf("agents' service: %v", err)
	}
	for _, protocol := range []string{ProtocolRaft, ProtocolAPI} {
		if err := reach(t, address, w.Client(protocol, swarm.RoleManager)); err == nil {
			t.Errorf("a worker spoke %s", protocol)
		}
	}
	logged(t, log, ErrRole.Error())
}
