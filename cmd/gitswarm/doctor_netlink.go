package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// The doctor asks the kernel itself, in a network namespace that is gone
// afterwards. It writes netlink messages by hand: two questions need no
// library, and a command that only asks links none.

// checkLink tries to make a network device of a kind.
func checkLink(kind, module string) finding {
	if os.Geteuid() != 0 {
		if _, err := os.Stat("/sys/module/" + module); err == nil {
			return ok("the kernel has it")
		}
		return warn("run it again with sudo", "whether the kernel has it was not tried")
	}
	err := inNewNamespace(func() error { return netlinkAsk(unix.NETLINK_ROUTE, newLink(kind)) })
	if err != nil {
		return fail("modprobe "+module, "make a %s device: %v", kind, err)
	}
	return ok("the kernel makes them")
}

// checkNftables asks nftables for its generation.
func checkNftables() finding {
	if os.Geteuid() != 0 {
		if _, err := os.Stat("/sys/module/nf_tables"); err == nil {
			return ok("the kernel has it")
		}
		return warn("run it again with sudo", "whether the kernel has it was not tried")
	}
	const getGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN
	message := netlinkMessage(getGeneration, unix.NLM_F_REQUEST|unix.NLM_F_ACK, []byte{unix.AF_UNSPEC, 0, 0, 0})
	if err := inNewNamespace(func() error { return netlinkAsk(unix.NETLINK_NETFILTER, message) }); err != nil {
		return fail("modprobe nf_tables", "ask nftables: %v", err)
	}
	return ok("the kernel answers")
}

// inNewNamespace runs f on a thread with a network namespace of its own. The
// thread ends with its goroutine, and the namespace with the thread.
func inNewNamespace(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not used again
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("make network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// newLink asks for a device of a kind; the namespace takes it away again.
func newLink(kind string) []byte {
	name := netlinkAttribute(unix.IFLA_IFNAME, []byte("doctor0\x00"))
	info := netlinkAttribute(unix.IFLA_LINKINFO, netlinkAttribute(unix.IFLA_INFO_KIND, []byte(kind)))
	body := append(make([]byte, unix.SizeofIfInfomsg), append(name, info...)...)
	return netlinkMessage(unix.RTM_NEWLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, body)
}

func netlinkAttribute(kind uint16, value []byte) []byte {
	attribute := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	attribute = binary.NativeEndian.AppendUint16(attribute, kind)
	return padded(append(attribute, value...))
}

func netlinkMessage(kind, flags uint16, body []byte) []byte {
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, flags)
	message = binary.NativeEndian.AppendUint64(message, 1) // sequence 1, port 0
	return padded(append(message, body...))
}

func padded(b []byte) []byte {
	for len(b)%unix.NLMSG_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

// netlinkAsk sends one message and returns the error that the kernel
// acknowledges it with.
func netlinkAsk(family int, message []byte) error {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer unix.Close(socket)
	timeout := unix.Timeval{Sec: 2}
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return fmt.Errorf("bound netlink: %w", err)
	}
	if err := unix.Sendto(socket, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to kernel: %w", err)
	}

	buffer := make([]byte, 8<<10)
	for {
		n, _, err := unix.Recvfrom(socket, buffer, 0)
		if err != nil {
			return fmt.Errorf("hear from kernel: %w", err)
		}
		if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(buffer[4:]) != unix.NLMSG_ERROR {
			continue
		}
		if code := int32(binary.NativeEndian.Uint32(buffer[unix.SizeofNlMsghdr:])); code != 0 {
			return unix.Errno(-code)
		}
		return nil
	}
}
