package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

var (
	loopback  = netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)
	linkLocal = netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254}), 16)
)

// layHost is what the host's namespace should hold: a bridge for each network,
// and one table that publishes ports and keeps the networks apart.
func layHost(n names, cfg Config, plans map[swarm.NetworkID]plan, seats []seat) (*space, []Conflict) {
	host := newSpace()
	host.Forwarding = true
	host.Table = hostTable()

	for _, id := range sorted(plans) {
		p := plans[id]
		bridge := link{Kind: "bridge", Alias: n.alias(string(id)), MTU: p.mtu, Up: true}
		host.Table.add("bridges", p.bridge)
		host.Table.add("within", p.bridge+" . "+p.bridge)
		if p.Internal {
			host.Table.add("internal", p.bridge)
		}
		if p.gateway.IsValid() {
			bridge.MAC = mac(p.gateway)
			bridge.Addresses = []netip.Prefix{netip.PrefixFrom(p.gateway, p.subnet.Bits())}
			host.Table.add("gateways", p.gateway.String())
			host.Table.add("own", p.bridge+" . "+p.gateway.String())
		} else {
			bridge.MAC = mac(p.subnet.Addr())
		}
		host.Links[p.bridge] = bridge
	}

	conflicts := publish(host.Table, fronts(cfg.Services, plans, seats))
	return host, conflicts
}

func (t *table) add(set, key string) { t.Sets[set].Elements[key] = "" }

// hostTable is the host's table without elements.
func hostTable() *table {
	t := newTable()
	for name, key := range map[string][]string{
		"bridges":  {typeLink},              // all networks
		"internal": {typeLink},              // those without a way out
		"within":   {typeLink, typeLink},    // each bridge with itself
		"gateways": {typeAddress},           // the node's addresses on the networks
		"own":      {typeLink, typeAddress}, // each bridge with its gateway
	} {
		t.Sets[name] = set{Key: key, Elements: map[string]string{}}
	}
	t.Sets["ports"] = set{Key: []string{typeProto, typePort}, Value: []string{typeVerdict}, Elements: map[string]string{}}
	t.Sets["ports_at"] = set{Key: []string{typeAddress, typeProto, typePort}, Value: []string{typeVerdict}, Elements: map[string]string{}}
	t.Sets["backends"] = set{Key: []string{typeProto, typePort, typeNumber}, Value: []string{typeAddress, typePort}, Elements: map[string]string{}}
	t.Sets["backends_at"] = set{Key: []string{typeAddress, typeProto, typePort, typeNumber}, Value: []string{typeAddress, typePort}, Elements: map[string]string{}}

	hostRedirects(t)
	hostFilters(t)
	return t
}

// hostRedirects adds the chains that change addresses.
func hostRedirects(t *table) {
	t.Chains["published"] = chain{Rules: []rule{
		newRule(dispatch("ports_at", daddr(), l4proto(), dport())),
		newRule(dispatch("ports", l4proto(), dport())),
	}}
	arriving := []rule{newRule(toThisNode(), jump("published"))}
	t.Chains["prerouting"] = chain{Type: "nat", Hook: "prerouting", Priority: -100, Rules: arriving}
	t.Chains["output"] = chain{Type: "nat", Hook: "output", Priority: -100, Rules: arriving}

	t.Chains["postrouting"] = chain{Type: "nat", Hook: "postrouting", Priority: 100, Rules: []rule{
		// The node's own clients at 127.0.0.1: the container could not answer there.
		newRule(within(saddr(), loopback), in("bridges", oifname()), masquerade()),
		// A container that meets a neighbour through a published port: the reply must come back this way.
		newRule(in("within", iifname(), oifname()), published(), masquerade()),
		// To the outside. Without the outside's knowledge of our subnets, nothing would come back.
		newRule(in("bridges", iifname()), notIn("bridges", oifname()), masquerade()),
	}}
}

// hostFilters adds the chains that keep the networks apart.
func hostFilters(t *table) {
	t.Chains["forward"] = chain{Type: "filter", Hook: "forward", Priority: 0, Rules: []rule{
		newRule(in("bridges", oifname()), jump("inward")),
		newRule(in("bridges", iifname()), jump("outward")),
	}}
	t.Chains["inward"] = chain{Rules: []rule{
		newRule(in("within", iifname(), oifname()), accept()),
		newRule(established(), accept()),
		newRule(in("internal", iifname()), prohibited()),
		newRule(published(), accept()),
		newRule(prohibited()),
	}}
	t.Chains["outward"] = chain{Rules: []rule{
		newRule(established(), accept()),
		newRule(in("internal", iifname()), prohibited()),
		// Link-local addresses are never routed (RFC 3927 section 7); clouds keep credentials at 169.254.169.254.
		newRule(within(daddr(), linkLocal), prohibited()),
		newRule(accept()),
	}}

	t.Chains["input"] = chain{Type: "filter", Hook: "input", Priority: 0, Rules: []rule{
		newRule(in("bridges", iifname()), jump("arriving")),
	}}
	t.Chains["arriving"] = chain{Rules: []rule{
		newRule(established(), accept()),
		// route_localnet lets the node's 127.0.0.1 reach published ports; containers must not use it.
		newRule(within(daddr(), loopback), drop()),
		newRule(in("internal", iifname()), prohibited()),
		newRule(in("own", iifname(), daddr()), accept()),
		newRule(in("gateways", daddr()), prohibited()),
	}}
}

// front is a published port with its backends.
type front struct {
	port     swarm.Port
	by       string // service or task
	backends []string
}

// fronts lists the published ports: of services in mode ingress, by service,
// then of tasks in mode host, by task.
func fronts(services []swarm.AssignedService, plans map[swarm.NetworkID]plan, seats []seat) []front {
	var all []front
	for _, s := range slices.SortedFunc(slices.Values(services), func(a, b swarm.AssignedService) int { return cmp.Compare(a.ID, b.ID) }) {
		for _, port := range s.Ports {
			if port.Published == 0 || port.Host {
				continue
			}
			f := front{port: port, by: string(s.ID)}
			for _, b := range s.Backends {
				if ip, _ := entrance(b.Addresses, plans); ip != "" {
					f.backends = append(f.backends, fmt.Sprintf("%s . %d", ip, port.Target))
				}
			}
			all = append(all, f)
		}
	}
	for _, s := range seats {
		for _, port := range s.endpoint.Ports {
			if port.Published != 0 && s.first.IsValid() {
				all = append(all, front{port, string(s.endpoint.Task), []string{fmt.Sprintf("%s . %d", s.first, port.Target)}})
			}
		}
	}
	return all
}

// entrance is the address of a task where its default route begins, so that
// replies leave by the link that the connection came in by: the first by
// network that is not internal, or else the first. Internal networks have a
// default route too, for the replies of published ports; the host lets nothing
// else pass.
func entrance(addresses []swarm.Address, plans map[swarm.NetworkID]plan) (string, plan) {
	var first string
	var via plan
	for _, a := range ordered(addresses) {
		p, ok := plans[a.Network]
		switch {
		case !ok || !p.gateway.IsValid() || !valid4(a.IP):
		case !p.Internal:
			return a.IP, p
		case first == "":
			first, via = a.IP, p
		}
	}
	return first, via
}

// publish adds the fronts to the host's table. The first of two that want one
// port has it.
func publish(t *table, all []front) []Conflict {
	var conflicts []Conflict
	taken := map[string]string{}
	for _, f := range all {
		proto := string(cmp.Or(f.port.Protocol, swarm.TCP))
		key := fmt.Sprintf("%s . %d", proto, f.port.Published)
		at := f.port.Address
		if everyAddress(at) {
			at = ""
		}
		by := holder(taken, at, key)
		if _, known := protocols[proto]; !known || at != "" && !valid4(at) {
			by = "nobody: only IPv4 addresses and tcp, udp and sctp can be published"
		}
		if by != "" {
			conflicts = append(conflicts, Conflict{Port: f.port, By: by})
			continue
		}
		taken[at+" "+key] = f.by
		if len(f.backends) == 0 {
			continue // the node refuses by itself
		}
		if at == "" {
			share(t, t.Sets["ports"], t.Sets["backends"], lane{"p", key, f.backends, true, []field{l4proto(), dport()}})
		} else {
			share(t, t.Sets["ports_at"], t.Sets["backends_at"], lane{"a", at + " . " + key, f.backends, true, []field{daddr(), l4proto(), dport()}})
		}
	}
	return conflicts
}

// holder returns who has the port at the address: a port at every address and
// one at a single address exclude each other.
func holder(taken map[string]string, at, key string) string {
	if at != "" {
		return cmp.Or(taken[at+" "+key], taken[" "+key])
	}
	for _, place := range sorted(taken) {
		if strings.HasSuffix(place, " "+key) {
			return taken[place]
		}
	}
	return ""
}

func everyAddress(at string) bool { return at == "" || at == "0.0.0.0" || at == "::" }
