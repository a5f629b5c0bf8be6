package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Group may use the socket, where the machine has a group of that name.
const Group = "gitswarm"

// Listen makes the control socket, readable and writable by its owner and by
// the group gitswarm. A socket that nobody listens on any more is replaced.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make folder of control socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}

	// A socket is made with what the umask leaves: bind under a name that is
	// not known yet, restrict it, then give it its name.
	temporary := path + ".new"
	_ = os.Remove(temporary)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on control socket %s: %w", path, err)
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(restrict(temporary), os.Rename(temporary, path)); err != nil {
		listener.Close()
		os.Remove(temporary)
		return nil, fmt.Errorf("restrict control socket %s: %w", path, err)
	}
	return &namedListener{UnixListener: listener, path: path}, nil
}

// namedListener removes its socket when it closes.
type namedListener struct {
	*net.UnixListener
	path string
}

func (l *namedListener) Close() error {
	if err := l.UnixListener.Close(); err != nil {
		return err
	}
	if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove control socket: %w", err)
	}
	return nil
}

func (l *namedListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at control socket: %w", err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("make control socket: %s is there and no socket; move it away or choose another --run-dir", path)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return fmt.Errorf("make control socket: another gitswarm daemon listens on %s; stop it or choose another --run-dir", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale control socket: %w", err)
	}
	return nil
}

func restrict(path string) error {
	if err := os.Chmod(path, 0o660); err != nil {
		return err
	}
	group, err := user.LookupGroup(Group)
	if err != nil {
		return nil // without the group only the owner may use the socket
	}
	id, err := strconv.Atoi(group.Gid)
	if err != nil {
		return fmt.Errorf("group %s has id %q", Group, group.Gid)
	}
	return os.Chown(path, -1, id)
}

type peerKey struct{}

// withPeer remembers who is at the other end of a connection.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if name := peerName(conn); name != "" {
		return context.WithValue(ctx, peerKey{}, name)
	}
	return ctx
}

// peerOf is the user at the other end of the socket.
func peerOf(ctx context.Context) string {
	name, _ := ctx.Value(peerKey{}).(string)
	return name
}

func peerName(conn net.Conn) string {
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return ""
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return ""
	}
	var peer *unix.Ucred
	if control.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}) != nil || err != nil || peer == nil {
		return ""
	}
	id := strconv.FormatUint(uint64(peer.Uid), 10)
	if account, err := user.LookupId(id); err == nil {
		return account.Username
	}
	return "uid " + id
}
