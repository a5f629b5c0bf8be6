package network

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// What the fourth column of /proc/net/tcp says of a listening socket, and
// /proc/net/udp of one that nobody is connected to (include/net/tcp_states.h).
const (
	tcpListens = "0A"
	udpIsOpen  = "07"
)

// Listening returns the ports that programs of the node hold, by protocol,
// port and address. Published ports are not among them: the kernel redirects
// those, nobody listens. Sockets at 127.0.0.1 are, because a published port
// would take their connections too.
func (n *Network) Listening() ([]swarm.Port, error) {
	var all []swarm.Port
	err := inside(n.options.HostNetNS, func() error {
		for _, table := range []struct {
			file     string
			protocol swarm.Protocol
			state    string
		}{
			{"tcp", swarm.TCP, tcpListens}, {"tcp6", swarm.TCP, tcpListens},
			{"udp", swarm.UDP, udpIsOpen}, {"udp6", swarm.UDP, udpIsOpen},
		} {
			b, err := os.ReadFile("/proc/thread-self/net/" + table.file)
			if os.IsNotExist(err) {
				continue // no IPv6 here
			}
			if err != nil {
				return fmt.Errorf("list sockets: %w", err)
			}
			all = append(all, parseSockets(b, table.protocol, table.state)...)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b swarm.Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Published, b.Published), cmp.Compare(a.Address, b.Address))
	})
	return slices.Compact(all), err
}

// parseSockets reads a table of /proc/net: "0: 0100007F:0035 00000000:0000 0A …".
func parseSockets(b []byte, protocol swarm.Protocol, state string) []swarm.Port {
	var all []swarm.Port
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		columns := strings.Fields(lines.Text())
		if len(columns) < 4 || columns[3] != state {
			continue
		}
		place, number, _ := strings.Cut(columns[1], ":")
		port, err := strconv.ParseUint(number, 16, 16)
		ip, ok := parseSocketAddress(place)
		if err != nil || !ok || port == 0 {
			continue
		}
		p := swarm.Port{Published: uint16(port), Protocol: protocol, Host: true}
		if !ip.IsUnspecified() {
			p.Address = ip.String()
		}
		all = append(all, p)
	}
	return all
}

// parseSocketAddress reads an address as the kernel prints it: words of four
// bytes, each in the machine's order.
func parseSocketAddress(text string) (netip.Addr, bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	ip, ok := netip.AddrFromSlice(b)
	return ip.Unmap(), ok
}

// Busy returns which of the ports a program of the node holds. A port at every
// address collides with one at a single address.
func (n *Network) Busy(ports []swarm.Port) ([]Conflict, error) {
	held, err := n.Listening()
	if err != nil {
		return nil, err
	}
	var all []Conflict
	for _, p := range ports {
		for _, h := range held {
			sameSocket := h.Published == p.Published && h.Protocol == cmp.Or(p.Protocol, swarm.TCP)
			if sameSocket && (everyAddress(p.Address) || h.Address == "" || h.Address == p.Address) {
				all = append(all, Conflict{Port: p, By: "a program that listens at " + netipPort(h)})
				break
			}
		}
	}
	return all, nil
}

func netipPort(p swarm.Port) string {
	return fmt.Sprintf("%s:%d/%s", cmp.Or(p.Address, "*"), p.Published, p.Protocol)
}
