package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The types of sets and maps, as nft(8) calls them. TypeMark stands in for
// numbers: nft cannot list concatenations with TypeInteger in them.
const (
	typeAddress = "ipv4_addr"
	typeProto   = "inet_proto"
	typePort    = "inet_service"
	typeNumber  = "mark"
	typeLink    = "ifname"
	typeVerdict = "verdict"
)

const linkNameSize = 16 // IFNAMSIZ of linux/if.h

var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// datatype returns the kernel's type of a concatenation.
func datatype(types []string) nftables.SetDatatype {
	known := map[string]nftables.SetDatatype{
		typeAddress: nftables.TypeIPAddr, typeProto: nftables.TypeInetProto, typePort: nftables.TypeInetService,
		typeNumber: nftables.TypeMark, typeLink: nftables.TypeIFName, typeVerdict: nftables.TypeVerdict,
	}
	parts := make([]nftables.SetDatatype, len(types))
	for i, t := range types {
		parts[i] = known[t]
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return nftables.MustConcatSetType(parts...)
}

// encode turns "10.0.0.1 . tcp . 80" into the bytes of the types. In a
// concatenation each part is padded to four bytes.
func encode(types []string, text string) ([]byte, error) {
	parts := strings.Split(text, " . ")
	if len(parts) != len(types) {
		return nil, fmt.Errorf("element %q: want %s", text, strings.Join(types, " . "))
	}

	var all []byte
	for i, t := range types {
		b, err := encodePart(t, parts[i])
		if err != nil {
			return nil, fmt.Errorf("element %q: %w", text, err)
		}
		for len(types) > 1 && len(b)%4 != 0 {
			b = append(b, 0)
		}
		all = append(all, b...)
	}
	return all, nil
}

func encodePart(kind, text string) ([]byte, error) {
	switch kind {
	case typeAddress:
		a, err := netip.ParseAddr(text)
		if err != nil || !a.Is4() {
			return nil, fmt.Errorf("%q is no IPv4 address", text)
		}
		return a.AsSlice(), nil
	case typeProto:
		if p, ok := protocols[text]; ok {
			return []byte{p}, nil
		}
		return nil, fmt.Errorf("protocol %q is unknown", text)
	case typePort:
		n, err := strconv.ParseUint(text, 10, 16)
		return binary.BigEndian.AppendUint16(nil, uint16(n)), err
	case typeNumber:
		n, err := strconv.ParseUint(text, 0, 32)
		return binary.NativeEndian.AppendUint32(nil, uint32(n)), err
	case typeLink:
		if len(text) >= linkNameSize {
			return nil, fmt.Errorf("link name %q is too long", text)
		}
		return append([]byte(text), make([]byte, linkNameSize-len(text))...), nil
	}
	return nil, fmt.Errorf("type %s is unknown", kind)
}

// decode is the inverse of encode.
func decode(types []string, b []byte) (string, error) {
	sizes := map[string]int{typeAddress: 4, typeProto: 1, typePort: 2, typeNumber: 4, typeLink: linkNameSize}
	parts := make([]string, len(types))
	for i, t := range types {
		size := sizes[t]
		padded := size
		if len(types) > 1 {
			padded = (size + 3) / 4 * 4
		}
		if len(b) < size || len(b) < padded {
			return "", fmt.Errorf("element of %s is cut short", strings.Join(types, " . "))
		}
		parts[i] = decodePart(t, b[:size])
		b = b[padded:]
	}
	return strings.Join(parts, " . "), nil
}

func decodePart(kind string, b []byte) string {
	switch kind {
	case typeAddress:
		return netip.AddrFrom4([4]byte(b)).String()
	case typeProto:
		for name, number := range protocols {
			if number == b[0] {
				return name
			}
		}
		return strconv.Itoa(int(b[0]))
	case typePort:
		return strconv.Itoa(int(binary.BigEndian.Uint16(b)))
	case typeNumber:
		return number(int(binary.NativeEndian.Uint32(b)))
	default:
		return strings.TrimRight(string(b), "\x00")
	}
}

// number is how nft(8) prints a mark.
func number(n int) string { return fmt.Sprintf("0x%08x", n) }

// verdict is "goto CHAIN" in the kernel's terms.
func verdict(text string) *expr.Verdict {
	return &expr.Verdict{Kind: expr.VerdictGoto, Chain: strings.TrimPrefix(text, "goto ")}
}

// decodeVerdict reads the chain out of the attributes of a goto
// (NFTA_VERDICT_CHAIN of linux/netfilter/nf_tables.h).
func decodeVerdict(b []byte) string {
	for len(b) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if size < unix.SizeofNlAttr || size > len(b) {
			break
		}
		if kind == unix.NFTA_VERDICT_CHAIN {
			return "goto " + strings.TrimRight(string(b[unix.SizeofNlAttr:size]), "\x00")
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return "?"
}
