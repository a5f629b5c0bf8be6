package api

import (
	"net"
	"sync"
)

// Limits on connections of users. The kernel holds those beyond maxUsers.
const (
	maxUsers     = 2048
	maxOfAddress = 512 // of one address; more are closed at once
)

// crowd accepts a bounded number of connections, and of one address fewer, so
// that nobody keeps all others out.
type crowd struct {
	net.Listener
	seats  chan struct{}
	closed chan struct{}
	once   sync.Once
	mu     sync.Mutex
	taken  map[string]int
}

func newCrowd(listener net.Listener) *crowd {
	return &crowd{Listener: listener, seats: make(chan struct{}, maxUsers), closed: make(chan struct{}), taken: map[string]int{}}
}

func (c *crowd) Accept() (net.Conn, error) {
	select {
	case c.seats <- struct{}{}:
	case <-c.closed:
		return nil, net.ErrClosed
	}
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			<-c.seats
			return nil, err
		}
		address := hostOf(conn.RemoteAddr().String())
		if c.enter(address) {
			return &seat{Conn: conn, leave: sync.OnceFunc(func() { c.leave(address) })}, nil
		}
		conn.Close()
	}
}

func (c *crowd) enter(address string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken[address] >= maxOfAddress {
		return false
	}
	c.taken[address]++
	return true
}

func (c *crowd) leave(address string) {
	<-c.seats
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken[address]--; c.taken[address] == 0 {
		delete(c.taken, address)
	}
}

func (c *crowd) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Listener.Close()
}

// hostOf is the address without its port.
func hostOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	return host
}

// seat is one connection of a crowd.
type seat struct {
	net.Conn
	leave func()
}

func (s *seat) Close() error {
	defer s.leave()
	return s.Conn.Close()
}
