package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// dialFrom connects from an address of this machine's loopback, as if from
// another machine.
func dialFrom(t testing.TB, from, address string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// closed waits until the other side has ended the connection.
func closed(t testing.TB, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("the connection stays open")
	}
}

// greeting is the first flight of a good client, as bytes.
func greeting(t testing.TB) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() { _ = tls.Client(near, Unverified(ProtocolRaft)).HandshakeContext(t.Context()) }()
	hello := make([]byte, 16<<10)
	n, err := far.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	return hello[:n]
}

func TestRandomAndTruncatedStreamsCostLittleAndAreLoggedOnce(t *testing.T) {
	a := newAuthority(t, "c1")
	address, _, log := openPort(t, newNode(t, a, manager("m1")))
	good := newNode(t, a, manager("m2"))
	hello := greeting(t)
	chance := rand.New(rand.NewPCG(1, 2))

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 300 {
		conn := dialFrom(t, "127.0.0.2", address)
		var stream []byte
		switch i % 3 {
		case 0: // noise
			stream = make([]byte, 1+chance.IntN(4000))
			for j := range stream {
				stream[j] = byte(chance.Uint32())
			}
		case 1: // a good beginning
			stream = hello[:1+chance.IntN(len(hello)-1)]
		case 2: // one byte is wrong
			stream = bytes.Clone(hello)
			stream[chance.IntN(len(stream))] ^= byte(1 + chance.IntN(255))
		}
		_, _ = conn.Write(stream)
		_ = conn.(*net.TCPConn).CloseWrite()
		closed(t, conn)
		conn.Close()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}

	if n := strings.Count(log.String(), "\n"); n == 0 || n > 8 {
		t.Errorf("300 bad streams make %d lines:\n%s", n, log)
	}
	for _, line := range strings.Split(strings.TrimSpace(log.String()), "\n") {
		cause, _, _ := strings.Cut(line[strings.Index(line, "cause="):], " remote=")
		if strings.Count(log.String(), cause) != 1 || !strings.Contains(line, "remote=127.0.0.2:") {
			t.Errorf("line %s", line)
		}
	}
	if err := reach(t, address, good.Client(ProtocolRaft, swarm.RoleManager)); err != nil {
		t.Errorf("a manager afterwards: %v", err)
	}
}

func waitFor(t testing.TB, claim string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never is so that %s", claim)
		}
	}
}

func TestALookWhetherThePortIsOpenIsNotLogged(t *testing.T) {
	a := newAuthority(t, "c1")
	address, port, log := openPort(t, newNode(t, a, manager("m1")))
	dialFrom(t, "127.0.0.2", address).Close()
	waitFor(t, "it was seen and forgotten", func() bool {
		port.mu.Lock()
		defer port.mu.Unlock()
		return len(port.sources) == 0
	})
	if err := reach(t, address, newNode(t, a, worker("w1")).Client(ProtocolWire, swarm.RoleManager)); err != nil {
		t.Fatal(err)
	}
	if log.String() != "" {
		t.Errorf("the log says %s", log)
	}
}

func TestTheUsersPortServesClientsThatNameNoProtocol(t *testing.T) {
	n := newNode(t, newAuthority(t, "c1"), manager("m1"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := Listen(l, func() *tls.Config { return n.Server(ProtocolHTTP) }, slog.New(slog.DiscardHandler))
	go echo(port.For(ProtocolHTTP))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- port.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for name, change := range map[string]func(*tls.Config){
		"one that names HTTP/1.1": func(*tls.Config) {},
		"one that prefers HTTP/2": func(c *tls.Config) { c.NextProtos = []string{"h2", ProtocolHTTP} },
		"one that names none":     func(c *tls.Config) { c.NextProtos = nil },
	} {
		config := Unverified(ProtocolHTTP)
		change(config)
		if err := reach(t, l.Addr().String(), config); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, protocol := range []string{ProtocolRaft, ProtocolWire} {
		if err := reach(t, l.Addr().String(), Unverified(protocol)); err == nil {
			t.Errorf("%s is served", protocol)
		}
	}
}

// pipes is a listener whose connections are in memory, so that time is the
// test's.
type pipes struct {
	conns chan net.Conn
	ended chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), ended: make(chan struct{})} }

func (p *pipes) dial() net.Conn { return p.dialFrom("192.0.2.1") }

func (p *pipes) dialFrom(address string) net.Conn {
	near, far := net.Pipe()
	p.conns <- addressed{Conn: far, from: &net.TCPAddr{IP: net.ParseIP(address), Port: 1}}
	return near
}

// addressed is a pipe that comes from an address.
type addressed struct {
	net.Conn
	from net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.from }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// inBubble serves the port of a manager over pipes and ends it before the
// bubble does.
func inBubble(t *testing.T, do func(t *testing.T, p *pipes, port *Port, log *journal)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newAuthority(t, "c1"), manager("m1"))
		p, log := newPipes(), &journal{}
		port := Listen(p, func() *tls.Config { return n.Server(ProtocolRaft, ProtocolWire) }, slog.New(slog.NewTextHandler(log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- port.Serve(ctx) }()
		do(t, p, port, log)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

func TestAHandshakeThatDripsEndsAfterFiveSeconds(t *testing.T) {
	hello := greeting(t)
	inBubble(t, func(t *testing.T, p *pipes, _ *Port, log *journal) {
		conn, begun := p.dial(), time.Now()
		defer conn.Close()
		for _, b := range hello {
			if _, err := conn.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if lived := time.Since(begun); lived < handshakeTime || lived > handshakeTime+time.Second {
			t.Errorf("it lived %s", lived)
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "its handshake took too long") {
			t.Errorf("the log says %s", log)
		}
	})
}

func TestSilentConnectionsOfOneAddressHoldUpNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pipes, port *Port, log *journal) {
		go echo(port.For(ProtocolWire))
		var flood []net.Conn
		for range maxOfSource {
			flood = append(flood, p.dialFrom("192.0.2.66"))
		}
		synctest.Wait()
		if n := len(port.shaking); n > maxHandshakes/2 {
			t.Errorf("one address takes %d of %d handshakes", n, maxHandshakes)
		}

		begun := time.Now()
		node := tls.Client(p.dialFrom("192.0.2.1"), Unverified(ProtocolWire))
		if err := talk(node); err != nil {
			t.Errorf("a node of another address: %v", err)
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("a node of another address waited %s", took)
		}
		if _, err := p.dialFrom("192.0.2.66").Read(make([]byte, 1)); err == nil {
			t.Error("one too many is served")
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("one too many was held for %s", took)
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "its address has too many connections that wait") {
			t.Errorf("the log says %s", log)
		}
		for _, conn := range append(flood, node) {
			conn.Close()
		}
	})
}

func TestAConnectionThatNobodyTakesIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pipes, port *Port, log *journal) {
		closedAfter := func() time.Duration {
			begun := time.Now()
			conn := tls.Client(p.dial(), Unverified(ProtocolWire))
			if err := conn.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("it is served")
			}
			return time.Since(begun)
		}
		if took := closedAfter(); took != 0 {
			t.Errorf("a protocol without a server: after %s", took)
		}
		_ = port.For(ProtocolWire) // a server that is busy
		if took := closedAfter(); took != handshakeTime {
			t.Errorf("a protocol whose server is busy: after %s", took)
		}
		synctest.Wait()
		if n := strings.Count(log.String(), errNobody.Error()); n != 1 {
			t.Errorf("it is logged %d times: %s", n, log)
		}
	})
}

func TestACauseIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &journal{}
		r := NewRefusals(slog.New(slog.NewTextHandler(log, nil)))
		from := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5}
		for range 100 {
			r.Note(from, "one")
			r.Note(from, "two")
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("two causes make %d lines", n)
		}
		time.Sleep(logEvery)
		r.Note(from, "one")
		if !strings.Contains(log.String(), "cause=one remote=192.0.2.1:5 more=99") {
			t.Errorf("the log says %s", log)
		}
	})
}

// BenchmarkConnection is one connection from dial to its first answer, both
// ends on this machine.
func BenchmarkConnection(b *testing.B) {
	a := newAuthority(b, "c1")
	address, _, _ := openPort(b, newNode(b, a, manager("m1")))
	n := newNode(b, a, worker("w1"))
	for b.Loop() {
		if err := reach(b, address, n.Client(ProtocolWire, swarm.RoleManager)); err != nil {
			b.Fatal(err)
		}
	}
}
