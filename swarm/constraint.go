package swarm

import (
	"fmt"
	"net/netip"
	"strings"
)

// Constraint is one entry of deploy.placement.constraints, read: Key Op Value.
type Constraint struct {
	Key   string // "node.role", "node.labels.zone"
	Not   bool   // the operator is !=
	Value string

	addresses netip.Prefix // Value of node.ip
}

// constraintKeys is what people are told to write.
const constraintKeys = "node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, node.labels.NAME or engine.labels.NAME"

// ParseConstraint reads "node.labels.zone==eu". Space around the operator is
// allowed.
func ParseConstraint(text string) (Constraint, error) {
	at := strings.IndexAny(text, "=!")
	if at < 0 || len(text) < at+2 || text[at+1] != '=' {
		return Constraint{}, fmt.Errorf("constraint %q is not KEY==VALUE or KEY!=VALUE", text)
	}
	op := text[at : at+2]
	key, value := strings.TrimSpace(text[:at]), strings.TrimSpace(text[at+2:])
	if key == "" || value == "" || strings.ContainsAny(value, "=!") {
		return Constraint{}, fmt.Errorf("constraint %q is not KEY==VALUE or KEY!=VALUE", text)
	}

	c := Constraint{Key: key, Not: op == "!=", Value: value}
	if key == "node.ip" {
		addresses, err := parseAddresses(value)
		if err != nil {
			return Constraint{}, fmt.Errorf("constraint %q: %q is neither an address nor a CIDR; write 10.0.0.7 or 10.0.0.0/24", text, value)
		}
		c.addresses = addresses
		return c, nil
	}
	if _, known := NodeValue(Node{}, key); !known {
		return Constraint{}, fmt.Errorf("constraint %q: key %q is unknown; use %s", text, key, constraintKeys)
	}
	return c, nil
}

// parseAddresses reads a CIDR, or an address as a CIDR of its own.
func parseAddresses(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		return prefix.Masked(), err
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(address, address.BitLen()), nil
}

// String writes the constraint as ParseConstraint reads it.
func (c Constraint) String() string {
	op := "=="
	if c.Not {
		op = "!="
	}
	return c.Key + op + c.Value
}

// Holds reports whether the node meets the constraint. Values compare without
// regard to case, as in Docker Swarm; label names do not. A node whose address
// is not known is in no network.
func (c Constraint) Holds(node Node) bool {
	if c.addresses.IsValid() {
		address := node.Description.IP()
		return (address.IsValid() && c.addresses.Contains(address)) != c.Not
	}
	value, _ := NodeValue(node, c.Key)
	return strings.EqualFold(value, c.Value) != c.Not
}

// NodeValue returns what the node has under a key of constraints and spread
// preferences, and whether the key is one that nodes have. A label that the
// node lacks is empty.
func NodeValue(node Node, key string) (value string, known bool) {
	if label, ok := strings.CutPrefix(key, "node.labels."); ok {
		return node.Labels[label], label != ""
	}
	if label, ok := strings.CutPrefix(key, "engine.labels."); ok {
		return node.Description.Labels[label], label != ""
	}
	switch key {
	case "node.id":
		return string(node.ID), true
	case "node.hostname":
		return node.Description.Hostname, true
	case "node.role":
		return node.Role, true
	case "node.platform.os":
		return node.Description.OS, true
	case "node.platform.arch":
		return node.Description.Arch, true
	}
	return "", false
}

// IP is where other nodes reach this one: its advertised address, else that of
// its containers' traffic. It is not valid where neither is known.
func (d NodeDescription) IP() netip.Addr {
	for _, text := range []string{d.Address, d.DataPath} {
		if both, err := netip.ParseAddrPort(text); err == nil {
			return both.Addr().Unmap()
		}
		if address, err := netip.ParseAddr(text); err == nil {
			return address.Unmap()
		}
	}
	return netip.Addr{}
}
