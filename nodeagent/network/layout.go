package network

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// resolverAddress is where every container finds its resolver.
var resolverAddress = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// layout is all that the kernel should hold for a Config.
type layout struct {
	host      *space
	seats     []seat // by task
	refused   map[swarm.TaskID]error
	broken    map[swarm.NetworkID]error
	conflicts []Conflict
}

// seat is what one endpoint should be.
type seat struct {
	endpoint Endpoint
	name     string            // of its namespace
	inner    *space            // its Table lacks the resolver's ports: they are known once it listens
	outer    map[string]link   // the host's ends of its veth pairs, by name
	ends     map[string]string // outer to inner names
	bridges  []string          // that it needs
	first    netip.Addr        // its address on the network that the default route uses
}

// plan is a network that was understood.
type plan struct {
	swarm.AssignedNetwork
	bridge  string
	subnet  netip.Prefix
	gateway netip.Addr // zero if the network has none
	mtu     int
}

// lay computes the layout. What it cannot make sense of is left out and said
// in refused and broken; the rest stands. host is what is there, or nil.
func lay(n names, cfg Config, mtu int, host *space) layout {
	out := layout{refused: map[swarm.TaskID]error{}, broken: map[swarm.NetworkID]error{}}

	plans := map[swarm.NetworkID]plan{}
	for _, network := range cfg.Networks {
		p, err := understand(n, network, mtu)
		if err = errors.Join(err, collide(p, host)); err != nil {
			out.broken[network.ID] = err
			continue
		}
		plans[network.ID] = p
	}

	tables, holders := map[string]*table{}, map[swarm.Address]swarm.TaskID{}
	for _, e := range slices.SortedFunc(slices.Values(cfg.Endpoints), func(a, b Endpoint) int { return cmp.Compare(a.Task, b.Task) }) {
		s, err := laySeat(n, e, plans)
		if err = errors.Join(err, claim(holders, e)); err != nil {
			out.refused[e.Task] = err
			continue
		}
		key := networksOf(e)
		if tables[key] == nil {
			tables[key] = innerTable(e, cfg.Services)
		}
		s.inner.Table = tables[key]
		out.seats = append(out.seats, s)
	}
	out.host, out.conflicts = layHost(n, cfg, plans, out.seats)
	return out
}

// claim refuses an endpoint whose address another one has.
func claim(holders map[swarm.Address]swarm.TaskID, e Endpoint) error {
	for _, a := range e.Addresses {
		if holder, ok := holders[a]; ok {
			return fmt.Errorf("endpoint %s: %s has address %s of network %s", e.Task, holder, a.IP, a.Network)
		}
	}
	for _, a := range e.Addresses {
		holders[a] = e.Task
	}
	return nil
}

func understand(n names, network swarm.AssignedNetwork, mtu int) (plan, error) {
	p := plan{AssignedNetwork: network, bridge: n.bridge(network.ID), mtu: cmp.Or(network.MTU, mtu)}
	subnet, err := netip.ParsePrefix(network.Subnet)
	if err != nil || !subnet.Addr().Is4() {
		return plan{}, fmt.Errorf("network %s: subnet %q is no IPv4 prefix", network.ID, network.Subnet)
	}
	p.subnet = subnet.Masked()

	if network.Gateway != "" {
		p.gateway, err = netip.ParseAddr(network.Gateway)
		if err != nil || !p.subnet.Contains(p.gateway) {
			return plan{}, fmt.Errorf("network %s: gateway %q is not in %s", network.ID, network.Gateway, p.subnet)
		}
	}
	if p.mtu < 576 || p.mtu > 65535 {
		return plan{}, fmt.Errorf("network %s: MTU %d is not within 576 and 65535", network.ID, p.mtu)
	}
	return p, nil
}

// collide refuses a new network that would take addresses away from a link of
// the host.
func collide(p plan, host *space) error {
	if host == nil || !p.subnet.IsValid() {
		return nil
	}
	if _, there := host.Links[p.bridge]; there {
		return nil
	}
	for _, name := range sorted(host.Foreign) {
		for _, address := range host.Foreign[name] {
			if p.subnet.Overlaps(address) {
				return fmt.Errorf("network %s: subnet %s overlaps %s of the node's link %s; give the network another subnet", p.ID, p.subnet, address, name)
			}
		}
	}
	return nil
}

// mac derives a hardware address from an IPv4 address, which is unique on its
// network: a peer that remembers it is right even when the link was rebuilt.
func mac(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("02:67:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
}

// laySeat gives an endpoint one link for each of its networks, eth0 onwards by
// the networks' order.
func laySeat(n names, e Endpoint, plans map[swarm.NetworkID]plan) (seat, error) {
	name, err := n.space(e.Task)
	if err != nil {
		return seat{}, err
	}
	s := seat{endpoint: e, name: name, inner: newSpace(), outer: map[string]link{}, ends: map[string]string{}}

	for i, address := range ordered(e.Addresses) {
		p, ok := plans[address.Network]
		if !ok {
			return seat{}, fmt.Errorf("endpoint %s: network %s is not there", e.Task, address.Network)
		}
		ip, err := netip.ParseAddr(address.IP)
		if err != nil || !p.subnet.Contains(ip) {
			return seat{}, fmt.Errorf("endpoint %s: address %q is not in %s of network %s", e.Task, address.IP, p.subnet, p.ID)
		}

		inside, outside := fmt.Sprintf("eth%d", i), n.veth(e.Task, p.ID)
		s.inner.Links[inside] = link{Kind: "veth", MAC: mac(ip), MTU: p.mtu, Up: true,
			Addresses: []netip.Prefix{netip.PrefixFrom(ip, p.subnet.Bits())}}
		s.outer[outside] = link{Kind: "veth", Alias: n.alias(fmt.Sprintf("%s %s", e.Task, inside)), MTU: p.mtu, Master: p.bridge, Up: true}
		s.ends[outside] = inside
		s.bridges = append(s.bridges, p.bridge)
	}
	if ip, via := entrance(e.Addresses, plans); ip != "" {
		s.first, s.inner.Default = netip.MustParseAddr(ip), via.gateway
	}
	return s, nil
}

// ordered returns the addresses by network.
func ordered(addresses []swarm.Address) []swarm.Address {
	return slices.SortedFunc(slices.Values(addresses), func(a, b swarm.Address) int { return cmp.Compare(a.Network, b.Network) })
}

// networksOf is equal for endpoints that are on the same networks.
func networksOf(e Endpoint) string {
	var b strings.Builder
	for _, a := range ordered(e.Addresses) {
		b.WriteString(string(a.Network) + "\n")
	}
	return b.String()
}

// innerTable is the table of a container's namespace: it redirects the VIPs of
// the services on the container's networks to their backends.
//
// A VIP leads to a chain by its number of backends K, which takes the next of
// the K from the map of all backends. A change of one backend changes a few
// elements, and a chain if no other service has as many.
func innerTable(e Endpoint, services []swarm.AssignedService) *table {
	t := newTable()
	vips := set{Key: []string{typeAddress}, Value: []string{typeVerdict}, Elements: map[string]string{}}
	tasks := set{Key: []string{typeAddress, typeNumber}, Value: []string{typeAddress}, Elements: map[string]string{}}
	empty := set{Key: []string{typeAddress}, Elements: map[string]string{}}

	for _, s := range services {
		for _, vip := range s.VIPs {
			if s.Mode == swarm.DNSRR || !onNetwork(e, vip.Network) || !valid4(vip.IP) {
				continue
			}
			var targets []string
			for _, b := range s.Backends {
				targets = appendOn(targets, vip.Network, b.Addresses)
			}
			if len(targets) == 0 {
				empty.Elements[vip.IP] = ""
				continue
			}
			share(t, vips, tasks, lane{"n", vip.IP, targets, false, []field{daddr()}})
		}
	}

	t.Sets["vips"], t.Sets["tasks"], t.Sets["empty"] = vips, tasks, empty
	t.Sets["resolver"] = set{Key: []string{typeProto}, Value: []string{typePort}, Elements: map[string]string{}}
	t.Chains["services"] = chain{Type: "nat", Hook: "output", Priority: -100, Rules: []rule{
		newRule(within(daddr(), netip.PrefixFrom(resolverAddress, 32)), isPort(53), toResolver("resolver", resolverAddress)),
		newRule(dispatch("vips", daddr())),
	}}
	t.Chains["refuse"] = chain{Type: "filter", Hook: "output", Priority: 0, Rules: []rule{
		newRule(in("empty", daddr()), reset()),
		newRule(in("empty", daddr()), unreachable()),
	}}
	return t
}

func onNetwork(e Endpoint, id swarm.NetworkID) bool {
	return slices.ContainsFunc(e.Addresses, func(a swarm.Address) bool { return a.Network == id })
}

func appendOn(targets []string, id swarm.NetworkID, addresses []swarm.Address) []string {
	for _, a := range addresses {
		if a.Network == id && valid4(a.IP) {
			return append(targets, a.IP)
		}
	}
	return targets
}

func valid4(ip string) bool {
	a, err := netip.ParseAddr(ip)
	return err == nil && a.Is4()
}

// lane is a front and its backends.
type lane struct {
	chains  string // prefix of the names of chains
	front   string // element of the map of fronts
	targets []string
	port    bool // targets name a port too
	fields  []field
}

// lanes is how many counters the fronts of equal K share. With one, a client
// that asks two services in turn would always meet the same backend of each.
const lanes = 64

// share spreads a front over its backends.
func share(t *table, fronts, backends set, l lane) {
	k := len(l.targets)
	name := fmt.Sprintf("%s%d-%d", l.chains, k, laneOf(l.front))
	if _, ok := t.Chains[name]; !ok {
		into := map[string]string{"n": "tasks", "p": "backends", "a": "backends_at"}[l.chains]
		t.Chains[name] = chain{Rules: []rule{newRule(dnat(into, l.port, append(l.fields, turn(k))...))}}
	}
	fronts.Elements[l.front] = "goto " + name
	for i, target := range l.targets {
		backends.Elements[l.front+" . "+number(i)] = target
	}
}

func laneOf(front string) uint32 { return fnv32(front) % lanes }

// fnv32 is FNV-1a, which is stable over builds.
func fnv32(text string) uint32 {
	h := uint32(2166136261)
	for i := range len(text) {
		h = (h ^ uint32(text[i])) * 16777619
	}
	return h
}

// errorOf is what is wrong with an endpoint, its networks included.
func (l layout) errorOf(e Endpoint) error {
	err := l.refused[e.Task]
	for _, a := range e.Addresses {
		err = errors.Join(l.broken[a.Network], err)
	}
	return err
}
