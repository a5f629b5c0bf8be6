package network

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rule is one nftables rule: the text that nft(8) would take, and the same in
// the kernel's terms. A rule that was observed has only its Sum.
type rule struct {
	Text string
	Sum  string // of Text; the rule carries it as its comment
	in   []expr.Any
}

// clause is a part of a rule. Clauses share no registers but where one says so.
type clause struct {
	text string
	in   []expr.Any
}

func newRule(clauses ...clause) rule {
	var r rule
	texts := make([]string, len(clauses))
	for i, c := range clauses {
		texts[i] = c.text
		r.in = append(r.in, c.in...)
	}
	r.Text = strings.Join(texts, " ")
	sum := sha256.Sum256([]byte(r.Text))
	r.Sum = hex.EncodeToString(sum[:8])
	return r
}

// Registers of four bytes; names of links take four of them.
const register = unix.NFT_REG32_00

// field is something of a packet that can be loaded into registers.
type field struct {
	text  string
	words uint32 // registers that it takes
	load  func(into uint32) expr.Any
}

func header(text string, base expr.PayloadBase, offset, length uint32) field {
	return field{text: text, words: (length + 3) / 4, load: func(into uint32) expr.Any {
		return &expr.Payload{DestRegister: into, Base: base, Offset: offset, Len: length}
	}}
}

func meta(text string, key expr.MetaKey, words uint32) field {
	return field{text: text, words: words, load: func(into uint32) expr.Any {
		return &expr.Meta{Key: key, Register: into}
	}}
}

func saddr() field   { return header("ip saddr", expr.PayloadBaseNetworkHeader, 12, 4) }
func daddr() field   { return header("ip daddr", expr.PayloadBaseNetworkHeader, 16, 4) }
func dport() field   { return header("th dport", expr.PayloadBaseTransportHeader, 2, 2) }
func l4proto() field { return meta("meta l4proto", expr.MetaKeyL4PROTO, 1) }
func iifname() field { return meta("iifname", expr.MetaKeyIIFNAME, 4) }
func oifname() field { return meta("oifname", expr.MetaKeyOIFNAME, 4) }

// turn is a number that grows with each use, modulo k: round robin.
func turn(k int) field {
	return field{text: fmt.Sprintf("numgen inc mod %d", k), words: 1, load: func(into uint32) expr.Any {
		return &expr.Numgen{Register: into, Modulus: uint32(k), Type: unix.NFT_NG_INCREMENTAL}
	}}
}

// concat loads fields one after the other.
func concat(fields []field) clause {
	var c clause
	texts, at := make([]string, len(fields)), uint32(register)
	for i, f := range fields {
		texts[i] = f.text
		c.in = append(c.in, f.load(at))
		at += f.words
	}
	c.text = strings.Join(texts, " . ")
	return c
}

// in matches packets whose fields are in the set.
func in(set string, fields ...field) clause {
	c := concat(fields)
	c.text += " @" + set
	c.in = append(c.in, &expr.Lookup{SourceRegister: register, SetName: set})
	return c
}

// notIn matches packets whose fields are not in the set.
func notIn(set string, fields ...field) clause {
	c := concat(fields)
	c.text += " != @" + set
	c.in = append(c.in, &expr.Lookup{SourceRegister: register, SetName: set, Invert: true})
	return c
}

// dispatch goes where the map says for the packet's fields, if anywhere.
func dispatch(verdicts string, fields ...field) clause {
	c := concat(fields)
	c.text += " vmap @" + verdicts
	c.in = append(c.in, &expr.Lookup{SourceRegister: register, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: verdicts})
	return c
}

// dnat sends the packet to what the map says for its fields: an address, and a
// port if the map has one.
func dnat(backends string, port bool, fields ...field) clause {
	c := concat(fields)
	c.text = "dnat to " + c.text + " map @" + backends
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: register}
	if port {
		c.text = strings.Replace(c.text, "dnat", "dnat ip", 1)
		nat.RegProtoMin = register + 1
		nat.Specified = true
	}
	c.in = append(c.in, &expr.Lookup{SourceRegister: register, DestRegister: register, IsDestRegSet: true, SetName: backends}, nat)
	return c
}

// within matches packets whose address lies in the prefix.
func within(f field, p netip.Prefix) clause {
	mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - p.Bits()))
	base := p.Masked().Addr().As4()
	in := []expr.Any{f.load(register)}
	text := p.Masked().Addr().String()
	if p.Bits() < 32 {
		text = p.Masked().String()
		in = append(in, &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: mask, Xor: make([]byte, 4)})
	}
	in = append(in, &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: base[:]})
	return clause{text: f.text + " " + text, in: in}
}

// is matches packets whose one-word field has the value.
func is(f field, text string, value []byte) clause {
	return clause{text: f.text + " " + text, in: []expr.Any{
		f.load(register), &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: value},
	}}
}

func isPort(port uint16) clause {
	return is(dport(), fmt.Sprint(port), binaryutil.BigEndian.PutUint16(port))
}

// tracked matches packets whose connection has one of the bits.
func tracked(text string, key expr.CtKey, bits uint32) clause {
	return clause{text: text, in: []expr.Any{
		&expr.Ct{Key: key, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}}
}

func established() clause {
	return tracked("ct state established,related", expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// published matches connections that a published port has redirected
// (IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h).
func published() clause { return tracked("ct status dnat", expr.CtKeySTATUS, 1<<5) }

// toThisNode matches packets to an address of the node.
func toThisNode() clause {
	return clause{text: "fib daddr type local", in: []expr.Any{
		&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}}
}

// toResolver redirects to the port that the map has for the packet's protocol,
// at the address it went to.
func toResolver(ports string, at netip.Addr) clause {
	address := at.As4()
	return clause{text: fmt.Sprintf("dnat to %s:meta l4proto map @%s", at, ports), in: []expr.Any{
		&expr.Immediate{Register: register, Data: address[:]},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register + 1},
		&expr.Lookup{SourceRegister: register + 1, DestRegister: register + 1, IsDestRegSet: true, SetName: ports},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: register, RegProtoMin: register + 1, Specified: true},
	}}
}

func accept() clause {
	return clause{text: "accept", in: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
}

func drop() clause {
	return clause{text: "drop", in: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}
}

func jump(chain string) clause {
	return clause{text: "jump " + chain, in: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

func masquerade() clause { return clause{text: "masquerade", in: []expr.Any{&expr.Masq{}}} }

// prohibited refuses and says so (ICMP type 3 code 13, RFC 1812): a drop would
// cost the client its time-out.
func prohibited() clause {
	return clause{text: "reject with icmp admin-prohibited", in: []expr.Any{
		&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 13},
	}}
}

func unreachable() clause {
	return clause{text: "reject", in: []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}}}
}

// reset refuses TCP packets only, which is said by its words.
func reset() clause {
	in := is(l4proto(), "tcp", []byte{unix.IPPROTO_TCP}).in
	return clause{text: "reject with tcp reset", in: append(in, &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})}
}
