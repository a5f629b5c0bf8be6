package wire

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// unheard is how long what was sent may wait for the other machine's word that
// it arrived. The kernels settle this between themselves, so that a process
// that stands still, or is slow, is not taken for a machine that is gone.
const unheard = 800 * time.Millisecond

// watch makes the kernel end a TCP connection whose other end is gone.
func watch(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	raw := conn
	if secured, ok := conn.(*tls.Conn); ok {
		raw = secured.NetConn()
	}
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	control, err := tcp.SyscallConn()
	if err == nil {
		var refused error
		err = control.Control(func(fd uintptr) {
			refused = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unheard.Milliseconds()))
		})
		if err == nil {
			err = refused
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("watch over connection with %s: %w", conn.RemoteAddr(), err)
	}
	return conn, nil
}
