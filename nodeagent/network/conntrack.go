package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Numbers of linux/netfilter/nfnetlink_conntrack.h and, for the flags of a
// filter, net/netfilter/nf_internals.h. They are part of the kernel's interface.
const (
	ctDelete = 1<<8 | 2 // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaFilter     = 25

	ctaFilterOrigFlags  = 1
	ctaFilterReplyFlags = 2

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaIPSource   = 1
	ctaIPDest     = 2
	ctaProtoNum   = 1
	ctaProtoDest  = 3

	filterIPSource  = 1 << 0
	filterIPDest    = 1 << 1
	filterProtoNum  = 1 << 3
	filterProtoDest = 1 << 5
)

// forget deletes UDP entries of connection tracking. The kernel finds them
// itself from Linux 6.11 on; older ones list them all to us.
func (b *batch) forget(c forgetFlows) error {
	conn, err := mdnetlink.Dial(unix.NETLINK_NETFILTER, &mdnetlink.Config{NetNS: int(b.ns.Fd())})
	if err != nil {
		return fmt.Errorf("open connection tracking: %w", err)
	}
	defer func() { _ = conn.Close() }()

	for _, gone := range append(c.gone, netip.Addr{}) {
		if !gone.IsValid() && len(c.gone) > 0 {
			break
		}
		request, err := c.request(gone)
		if err != nil {
			return err
		}
		_, err = conn.Execute(request)
		switch {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
			return b.forgetOneByOne(c)
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("delete flows: %w", err)
		}
	}
	return nil
}

// request asks the kernel to delete what matches; gone is zero for any backend.
func (c forgetFlows) request(gone netip.Addr) (mdnetlink.Message, error) {
	attributes := mdnetlink.NewAttributeEncoder()
	attributes.ByteOrder = binary.BigEndian
	var orig, reply uint32 = filterProtoNum, 0

	attributes.Nested(ctaTupleOrig, func(tuple *mdnetlink.AttributeEncoder) error {
		if c.to.IsValid() {
			orig |= filterIPDest
			tuple.Nested(ctaTupleIP, address(ctaIPDest, c.to))
		}
		tuple.Nested(ctaTupleProto, func(proto *mdnetlink.AttributeEncoder) error {
			proto.Uint8(ctaProtoNum, unix.IPPROTO_UDP)
			if c.port != 0 {
				orig |= filterProtoDest
				proto.Uint16(ctaProtoDest, c.port)
			}
			return nil
		})
		return nil
	})
	if gone.IsValid() {
		reply |= filterIPSource
		attributes.Nested(ctaTupleReply, func(tuple *mdnetlink.AttributeEncoder) error {
			tuple.Nested(ctaTupleIP, address(ctaIPSource, gone))
			return nil
		})
	}
	attributes.Nested(ctaFilter, func(filter *mdnetlink.AttributeEncoder) error {
		filter.ByteOrder = binary.NativeEndian
		filter.Uint32(ctaFilterOrigFlags, orig)
		filter.Uint32(ctaFilterReplyFlags, reply)
		return nil
	})

	body, err := attributes.Encode()
	if err != nil {
		return mdnetlink.Message{}, fmt.Errorf("encode filter: %w", err)
	}
	return mdnetlink.Message{
		Header: mdnetlink.Header{Type: ctDelete, Flags: mdnetlink.Request | mdnetlink.Acknowledge},
		Data:   append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, body...),
	}, nil
}

func address(kind uint16, ip netip.Addr) func(*mdnetlink.AttributeEncoder) error {
	return func(e *mdnetlink.AttributeEncoder) error {
		e.Bytes(kind, ip.AsSlice())
		return nil
	}
}

func (b *batch) forgetOneByOne(c forgetFlows) error {
	_, err := b.link.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, c)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil // entries that came or went meanwhile were judged by the new maps
	}
	return err
}

// MatchConntrackFlow reports whether the entry is one of those to forget.
func (c forgetFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP || c.port != 0 && flow.Forward.DstPort != c.port {
		return false
	}
	to, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	if c.to.IsValid() && to.Unmap() != c.to {
		return false
	}
	answers, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	for _, a := range c.gone {
		if a == answers.Unmap() {
			return true
		}
	}
	return len(c.gone) == 0
}
