package identity

import "net"

// boundedConn ends a connection that says too much before it has proved
// itself.
type boundedConn struct {
	net.Conn
	left  int  // bytes that may still be read
	heard bool // it said something
	done  bool // the handshake is over: nothing is bounded any more
}

func (c *boundedConn) Read(p []byte) (int, error) {
	if c.done {
		return c.Conn.Read(p)
	}
	if c.left == 0 {
		return 0, errTooMuch
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	c.heard = c.heard || n > 0
	return n, err
}
