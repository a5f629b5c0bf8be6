package network

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// diffBridges lists, bridge by bridge, what makes have's bridges those of want.
// Bridges that go are last: they lose their ports first.
func diffBridges(want, have *space) [][]change {
	var all [][]change
	for _, name := range sorted(want.Links) {
		all = append(all, diffLink(name, want.Links[name], have))
	}
	for _, name := range sorted(have.Links) {
		if _, ok := want.Links[name]; !ok && have.Links[name].Kind == "bridge" {
			all = append(all, []change{delLink{name}})
		}
	}
	return slices.DeleteFunc(all, func(c []change) bool { return len(c) == 0 })
}

func diffLink(name string, want link, have *space) []change {
	var all []change
	there, ok := have.Links[name]
	switch {
	case !ok:
		all = append(all, addBridge{name, want})
	case there.Kind != want.Kind || there.MAC != want.MAC:
		all = append(all, delLink{name}, addBridge{name, want})
		there = link{}
	case there.MTU != want.MTU || !there.Up:
		all = append(all, setLink{name, want})
	}
	return append(all, diffAddresses(name, want.Addresses, there.Addresses)...)
}

func diffAddresses(name string, want, have []netip.Prefix) []change {
	var all []change
	for _, a := range have {
		if !slices.Contains(want, a) {
			all = append(all, delAddress{name, a})
		}
	}
	for _, a := range want {
		if !slices.Contains(have, a) {
			all = append(all, addAddress{name, a})
		}
	}
	return all
}

// diffSeat lists what makes a namespace and its ends in the host those of the
// seat. Changes to the host's ends come apart: they are done there.
func diffSeat(want seat, have, host *space) (inside, outside []change) {
	routed := want.inner.Default == have.Default
	for _, outer := range sorted(want.outer) {
		inner := want.ends[outer]
		out, in := want.outer[outer], want.inner.Links[inner]
		haveOut, okOut := host.Links[outer]
		haveIn, okIn := have.Links[inner]

		if !okOut || !okIn || haveIn.MAC != in.MAC {
			if okOut {
				outside = append(outside, delLink{outer})
			} else if okIn {
				inside = append(inside, delLink{inner})
			}
			inside = append(inside, addPair{outer, inner, out, in})
			haveIn, haveOut, routed = link{MTU: in.MTU, Up: true}, out, false
		}
		if haveOut.MTU != out.MTU || haveOut.Master != out.Master || !haveOut.Up {
			outside = append(outside, setLink{outer, out})
		}
		addresses := diffAddresses(inner, in.Addresses, haveIn.Addresses)
		inside = append(inside, addresses...)
		routed = routed && len(addresses) == 0
		if haveIn.MTU != in.MTU || !haveIn.Up {
			inside = append(inside, setLink{inner, in})
		}
	}
	if !routed && (want.inner.Default.IsValid() || have.Default.IsValid()) { // a route goes with its link or address
		inside = append(inside, setDefault{want.inner.Default})
	}
	return inside, outside
}

// diffTable lists what makes table have that of want: one transaction.
func diffTable(name string, want, have *table) []change {
	var all []change
	if have == nil {
		all = append(all, addTable{name})
		have = newTable()
	}

	for _, s := range sorted(want.Sets) {
		if _, ok := have.Sets[s]; !ok {
			all = append(all, addSet{name, s, want.Sets[s]})
		}
	}
	for _, c := range sorted(want.Chains) {
		if _, ok := have.Chains[c]; !ok {
			all = append(all, addChain{name, c, want.Chains[c]})
		}
	}
	for _, s := range sorted(want.Sets) {
		all = append(all, diffElements(name, s, want.Sets[s], have.Sets[s])...)
	}
	for _, c := range sorted(want.Chains) {
		_, old := have.Chains[c]
		if !old || !sameRules(want.Chains[c].Rules, have.Chains[c].Rules) {
			all = append(all, setRules{name, c, want.Chains[c].Rules, old})
		}
	}
	for _, c := range sorted(have.Chains) {
		if _, ok := want.Chains[c]; !ok {
			all = append(all, setRules{name, c, nil, true}, delChain{name, c})
		}
	}
	for _, s := range sorted(have.Sets) {
		if _, ok := want.Sets[s]; !ok {
			all = append(all, delSet{name, s})
		}
	}
	return append(all, diffFlows(want, have)...)
}

func sameRules(a, b []rule) bool {
	return slices.EqualFunc(a, b, func(a, b rule) bool { return a.Sum == b.Sum })
}

func diffElements(name, s string, want, have set) []change {
	gone, come := missing(have.Elements, want.Elements), missing(want.Elements, have.Elements)
	var all []change
	if len(gone) > 0 {
		all = append(all, delElements{name, s, want, gone})
	}
	if len(come) > 0 {
		all = append(all, addElements{name, s, want, come})
	}
	return all
}

// missing lists what is in a and not the same in b, by key.
func missing(a, b map[string]string) []element {
	var all []element
	for key, value := range a {
		if other, ok := b[key]; !ok || other != value {
			all = append(all, element{key, value})
		}
	}
	slices.SortFunc(all, func(a, b element) int { return strings.Compare(a.key, b.key) })
	return all
}

// diffFlows lists the fronts whose UDP conversations must find another backend:
// theirs left, or they found none so far.
func diffFlows(want, have *table) []change {
	var all []change
	for _, pair := range [][2]string{{"vips", "tasks"}, {"ports", "backends"}, {"ports_at", "backends_at"}} {
		if maps.Equal(have.Sets[pair[1]].Elements, want.Sets[pair[1]].Elements) {
			continue
		}
		before, after := byFront(have.Sets[pair[1]]), byFront(want.Sets[pair[1]])
		for _, front := range sorted(want.Sets[pair[0]].Elements) {
			if len(before[front]) == 0 && have.Sets[pair[0]].Elements != nil {
				all = append(all, forget(front, nil))
			}
		}
		for _, front := range sorted(before) {
			gone := slices.DeleteFunc(before[front], func(a netip.Addr) bool { return slices.Contains(after[front], a) })
			if len(gone) > 0 {
				all = append(all, forget(front, gone))
			}
		}
	}
	return slices.DeleteFunc(all, func(c change) bool { return c == nil })
}

// byFront returns the backends' addresses of each front.
func byFront(backends set) map[string][]netip.Addr {
	all := map[string][]netip.Addr{}
	for _, key := range sorted(backends.Elements) {
		cut := strings.LastIndex(key, " . ")
		address, _, _ := strings.Cut(backends.Elements[key], " . ")
		if ip, err := netip.ParseAddr(address); err == nil && cut > 0 {
			all[key[:cut]] = append(all[key[:cut]], ip)
		}
	}
	return all
}

// forget parses a front: an address, a protocol and a port, or all three. TCP
// has nothing to forget.
func forget(front string, gone []netip.Addr) change {
	c := forgetFlows{gone: gone}
	for _, part := range strings.Split(front, " . ") {
		if ip, err := netip.ParseAddr(part); err == nil {
			c.to = ip
		} else if port, err := strconv.ParseUint(part, 10, 16); err == nil {
			c.port = uint16(port)
		} else if part != "udp" {
			return nil
		}
	}
	return c
}
