package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// change is one thing to do to a namespace. It prints itself as the command of
// ip(8), nft(8), sysctl(8) or conntrack(8) that would do it, and it can be done
// to a world in place of a kernel.
type change interface {
	String() string
	on(w world, space string)
}

type addBridge struct {
	name string
	link link
}

func (c addBridge) String() string {
	return fmt.Sprintf("ip link add %s address %s mtu %d up type bridge", c.name, c.link.MAC, c.link.MTU)
}

func (c addBridge) on(w world, space string) {
	made := c.link
	made.Addresses = nil
	w.space(space).Links[c.name] = made
}

// addPair makes a veth pair: outer in the host, inner in the namespace, both up.
type addPair struct {
	outerName, innerName string
	outer, inner         link
}

func (c addPair) String() string {
	return fmt.Sprintf("ip link add %s mtu %d master %s up netns host type veth peer name %s address %s up",
		c.outerName, c.outer.MTU, c.outer.Master, c.innerName, c.inner.MAC)
}

func (c addPair) on(w world, space string) {
	made := c.inner
	made.Addresses = nil
	w.space(space).Links[c.innerName] = made
	w.space("").Links[c.outerName] = c.outer
}

// setLink gives a link its MTU and its master, and sets it up.
type setLink struct {
	name string
	link link
}

func (c setLink) String() string {
	s := fmt.Sprintf("ip link set %s mtu %d", c.name, c.link.MTU)
	if c.link.Master != "" {
		s += " master " + c.link.Master
	}
	return s + " up"
}

func (c setLink) on(w world, space string) {
	l := w.space(space).Links[c.name]
	l.MTU, l.Master, l.Up = c.link.MTU, c.link.Master, true
	w.space(space).Links[c.name] = l
}

type delLink struct{ name string }

func (c delLink) String() string { return "ip link del " + c.name }

func (c delLink) on(w world, space string) { delLinks{[]string{c.name}}.on(w, space) }

// delLinks removes links in one go: the kernel waits for other processors once.
type delLinks struct{ names []string }

func (c delLinks) String() string {
	lines := make([]string, len(c.names))
	for i, name := range c.names {
		lines[i] = delLink{name}.String()
	}
	return strings.Join(lines, "\n")
}

func (c delLinks) on(w world, space string) {
	links := w.space(space).Links
	for _, name := range c.names {
		delete(links, name)
	}
	for name, l := range links {
		if slices.Contains(c.names, l.Master) {
			l.Master = ""
			links[name] = l
		}
	}
}

type addAddress struct {
	link    string
	address netip.Prefix
}

func (c addAddress) String() string { return fmt.Sprintf("ip addr add %s dev %s", c.address, c.link) }

func (c addAddress) on(w world, space string) {
	l := w.space(space).Links[c.link]
	l.Addresses = append(slices.Clone(l.Addresses), c.address)
	slices.SortFunc(l.Addresses, netip.Prefix.Compare)
	w.space(space).Links[c.link] = l
}

type delAddress struct {
	link    string
	address netip.Prefix
}

func (c delAddress) String() string { return fmt.Sprintf("ip addr del %s dev %s", c.address, c.link) }

func (c delAddress) on(w world, space string) {
	l := w.space(space).Links[c.link]
	l.Addresses = slices.DeleteFunc(slices.Clone(l.Addresses), func(a netip.Prefix) bool { return a == c.address })
	w.space(space).Links[c.link] = l
}

// setDefault replaces the default route; the zero gateway removes it.
type setDefault struct{ gateway netip.Addr }

func (c setDefault) String() string {
	if !c.gateway.IsValid() {
		return "ip route del default"
	}
	return "ip route replace default via " + c.gateway.String()
}

func (c setDefault) on(w world, space string) { w.space(space).Default = c.gateway }

type setForwarding struct{ off bool }

func (c setForwarding) String() string { return "sysctl -w net.ipv4.ip_forward=" + c.value() }

func (c setForwarding) value() string {
	if c.off {
		return "0"
	}
	return "1"
}

func (c setForwarding) on(w world, space string) { w.space(space).Forwarding = !c.off }

// addTable adds an empty table. All changes of a table that follow one another
// are one transaction.
type addTable struct{ table string }

func (c addTable) String() string { return "nft add table ip " + c.table }

func (c addTable) on(w world, space string) { w.space(space).Table = newTable() }

type delTable struct{ table string }

func (c delTable) String() string { return "nft delete table ip " + c.table }

func (c delTable) on(w world, space string) { w.space(space).Table = nil }

type addSet struct {
	table, name string
	set         set
}

func (c addSet) String() string {
	kind, types := "set", strings.Join(c.set.Key, " . ")
	if len(c.set.Value) > 0 {
		kind, types = "map", types+" : "+strings.Join(c.set.Value, " . ")
	}
	return fmt.Sprintf("nft add %s ip %s %s { type %s; }", kind, c.table, c.name, types)
}

func (c addSet) on(w world, space string) {
	w.space(space).Table.Sets[c.name] = set{Key: c.set.Key, Value: c.set.Value, Elements: map[string]string{}}
}

type delSet struct{ table, name string }

func (c delSet) String() string { return fmt.Sprintf("nft delete set ip %s %s", c.table, c.name) }

func (c delSet) on(w world, space string) { delete(w.space(space).Table.Sets, c.name) }

type addChain struct {
	table, name string
	chain       chain
}

func (c addChain) String() string {
	s := fmt.Sprintf("nft add chain ip %s %s", c.table, c.name)
	if c.chain.Hook != "" {
		s += fmt.Sprintf(" { type %s hook %s priority %d; }", c.chain.Type, c.chain.Hook, c.chain.Priority)
	}
	return s
}

func (c addChain) on(w world, space string) {
	made := c.chain
	made.Rules = nil
	w.space(space).Table.Chains[c.name] = made
}

type delChain struct{ table, name string }

func (c delChain) String() string { return fmt.Sprintf("nft delete chain ip %s %s", c.table, c.name) }

func (c delChain) on(w world, space string) { delete(w.space(space).Table.Chains, c.name) }

// setRules replaces all rules of a chain.
type setRules struct {
	table, chain string
	rules        []rule
	flush        bool // there may be older ones
}

func (c setRules) String() string {
	var lines []string
	if c.flush {
		lines = append(lines, fmt.Sprintf("nft flush chain ip %s %s", c.table, c.chain))
	}
	for _, r := range c.rules {
		lines = append(lines, fmt.Sprintf("nft add rule ip %s %s %s", c.table, c.chain, r.Text))
	}
	return strings.Join(lines, "\n")
}

func (c setRules) on(w world, space string) {
	t := w.space(space).Table
	ch := t.Chains[c.chain]
	ch.Rules = c.rules
	t.Chains[c.chain] = ch
}

// element is one entry of a set or map.
type element struct{ key, value string }

func (e element) String() string {
	if e.value == "" {
		return e.key
	}
	return e.key + " : " + e.value
}

type addElements struct {
	table, name string
	set         set // for its types
	elements    []element
}

func (c addElements) String() string {
	return fmt.Sprintf("nft add element ip %s %s { %s }", c.table, c.name, join(c.elements))
}

func (c addElements) on(w world, space string) {
	for _, e := range c.elements {
		w.space(space).Table.Sets[c.name].Elements[e.key] = e.value
	}
}

type delElements struct {
	table, name string
	set         set
	elements    []element
}

func (c delElements) String() string {
	return fmt.Sprintf("nft delete element ip %s %s { %s }", c.table, c.name, join(c.elements))
}

func (c delElements) on(w world, space string) {
	for _, e := range c.elements {
		delete(w.space(space).Table.Sets[c.name].Elements, e.key)
	}
}

func join(elements []element) string {
	parts := make([]string, len(elements))
	for i, e := range elements {
		parts[i] = e.String()
	}
	return strings.Join(parts, ", ")
}

// forgetFlows deletes what connection tracking remembers of UDP conversations
// with a front, so that their next datagram finds a backend that is there. TCP
// connections are left to finish.
type forgetFlows struct {
	to   netip.Addr   // the front's address; zero means any
	port uint16       // the front's port; 0 means any
	gone []netip.Addr // backends that left; empty means every flow: the front is new
}

func (c forgetFlows) String() string {
	s := "conntrack -D -p udp"
	if c.to.IsValid() {
		s += " --orig-dst " + c.to.String()
	}
	if c.port != 0 {
		s += fmt.Sprintf(" --orig-port-dst %d", c.port)
	}
	if len(c.gone) == 0 {
		return s
	}
	parts := make([]string, len(c.gone))
	for i, a := range c.gone {
		parts[i] = a.String()
	}
	return s + " --reply-src " + strings.Join(parts, ",")
}

func (forgetFlows) on(world, string) {}
