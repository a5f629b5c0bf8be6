package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Peers is a store's way to the stores of other managers.
type Peers interface {
	// Listener gives the connections that other managers make with Dial, each
	// known to be a manager's. The store closes it.
	Listener() net.Listener
	// Dial connects to the manager at that address.
	Dial(ctx context.Context, address string) (net.Conn, error)
	// Forward calls Accept of the manager at that address. An index comes
	// through also beside an error: then the entry is in the log and the state
	// refused it. ErrStale, ErrNotFound, ErrLevel and ErrNotLeader stay what
	// they are; ErrNotLeader is also right where the entry surely did not get
	// there. Any other error without an index means that the command may have
	// been accepted.
	Forward(ctx context.Context, address string, entry []byte) (index uint64, err error)
	// ReadIndex calls ReadIndex of the manager at that address.
	ReadIndex(ctx context.Context, address string) (uint64, error)
}

// A manager that lost its disk must not vote as the one it was: it would help
// a manager to lead that lacks what it had acknowledged. So every folder has an
// incarnation, which is part of the address in raft's member list, and each
// connection begins with a greeting that names the one it is meant for. The
// new incarnation takes part once Add has put it in the place of the old one.
const (
	incarnationMark = "#" // between a manager's address and its incarnation
	greetingFormat  = 1
	greetingLimit   = 64 // bytes of an incarnation
	greetingTimeout = 3 * time.Second
)

// errAnother means that a manager answered which is not the one meant.
var errAnother = errors.New("another incarnation of that manager answers there")

func fullAddress(address, incarnation string) raft.ServerAddress {
	return raft.ServerAddress(address + incarnationMark + incarnation)
}

func splitAddress(full raft.ServerAddress) (address, incarnation string) {
	address, incarnation, _ = strings.Cut(string(full), incarnationMark)
	return address, incarnation
}

// streams carries raft's messages over Peers. It implements raft.StreamLayer.
type streams struct {
	peers       Peers
	listener    net.Listener
	local       raft.ServerAddress
	incarnation string
	accepted    chan net.Conn
	done        chan struct{}
	running     sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]bool // nil once it is closed
}

func newStreams(peers Peers, address, incarnation string) *streams {
	s := &streams{
		peers: peers, listener: peers.Listener(), local: fullAddress(address, incarnation), incarnation: incarnation,
		accepted: make(chan net.Conn), done: make(chan struct{}), open: map[net.Conn]bool{},
	}
	s.running.Go(s.listen)
	return s
}

// listen greets whoever comes, each in a goroutine of its own.
func (s *streams) listen() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			select {
			case <-s.done:
				return
			case <-time.After(50 * time.Millisecond):
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
		}
		if conn, ok := s.track(conn); ok {
			s.running.Go(func() { s.welcome(conn) })
		}
	}
}

// welcome answers a greeting and gives the connection to raft.
func (s *streams) welcome(conn net.Conn) {
	meant, err := s.greeted(conn)
	if err != nil || meant == "" { // whoever only asks for the incarnation leaves again
		conn.Close()
		return
	}
	select {
	case s.accepted <- conn:
	case <-s.done:
		conn.Close()
	}
}

// greeted reads whom a connection is meant for and says who is here.
func (s *streams) greeted(conn net.Conn) (meant string, err error) {
	if err := conn.SetDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return "", err
	}
	meant, err = readGreeting(conn)
	if err != nil {
		return "", err
	}
	if err := writeGreeting(conn, s.incarnation); err != nil {
		return "", err
	}
	if meant != "" && meant != s.incarnation {
		return "", errAnother
	}
	return meant, conn.SetDeadline(time.Time{})
}

// Dial implements raft.StreamLayer.
func (s *streams) Dial(full raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	address, incarnation := splitAddress(full)
	conn, found, err := s.greet(ctx, address, incarnation)
	if err != nil {
		return nil, fmt.Errorf("dial manager at %s: %w", address, err)
	}
	if found != incarnation {
		conn.Close()
		return nil, fmt.Errorf("dial manager at %s: %w", address, errAnother)
	}
	return conn, nil
}

// incarnationAt asks which incarnation of a manager is at that address.
func (s *streams) incarnationAt(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, greetingTimeout)
	defer cancel()
	conn, found, err := s.greet(ctx, address, "")
	if err != nil {
		return "", err
	}
	return found, conn.Close()
}

// greet connects, says whom it wants ("" is whoever is there), and returns who
// is there.
func (s *streams) greet(ctx context.Context, address, meant string) (net.Conn, string, error) {
	raw, err := s.peers.Dial(ctx, address)
	if err != nil {
		return nil, "", err
	}
	conn, ok := s.track(raw)
	if !ok {
		return nil, "", net.ErrClosed
	}
	deadline, _ := ctx.Deadline()
	err = conn.SetDeadline(deadline)
	if err == nil {
		err = writeGreeting(conn, meant)
	}
	found := ""
	if err == nil {
		found, err = readGreeting(conn)
	}
	if err == nil && meant != "" { // who only asks is done
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, "", errors.Join(err, conn.Close())
	}
	return conn, found, nil
}

// A greeting is: format (1 byte) | length (1 byte) | incarnation.
func writeGreeting(to io.Writer, incarnation string) error {
	_, err := to.Write(append([]byte{greetingFormat, byte(len(incarnation))}, incarnation...))
	return err
}

func readGreeting(from io.Reader) (string, error) {
	var head [2]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return "", err
	}
	if head[0] != greetingFormat || head[1] > greetingLimit {
		return "", fmt.Errorf("read greeting: format %d with %d bytes is not this build's", head[0], head[1])
	}
	incarnation := make([]byte, head[1])
	_, err := io.ReadFull(from, incarnation)
	return string(incarnation), err
}

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) {
	select {
	case conn := <-s.accepted:
		return conn, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (s *streams) Addr() net.Addr { return streamAddr(s.local) }

// Close implements net.Listener. It ends every connection.
func (s *streams) Close() error {
	s.mu.Lock()
	open := s.open
	s.open = nil
	s.mu.Unlock()
	if open == nil {
		return nil
	}
	close(s.done)
	err := s.listener.Close()
	for conn := range open {
		conn.Close()
	}
	s.running.Wait()
	return err
}

// track remembers a connection until it is closed. It reports false, and
// closes the connection, once all are.
func (s *streams) track(conn net.Conn) (net.Conn, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		conn.Close()
		return nil, false
	}
	s.open[conn] = true
	return &tracked{Conn: conn, of: s}, true
}

// tracked is a connection that is forgotten once it is closed.
type tracked struct {
	net.Conn
	of *streams
}

// Close implements net.Conn.
func (t *tracked) Close() error {
	t.of.mu.Lock()
	delete(t.of.open, t.Conn)
	t.of.mu.Unlock()
	return t.Conn.Close()
}

// streamAddr is a manager's address with its incarnation.
type streamAddr raft.ServerAddress

// Network implements net.Addr.
func (streamAddr) Network() string { return "tcp" }

// String implements net.Addr.
func (a streamAddr) String() string { return string(a) }
