package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// How long a client may keep an answer, in seconds. VIPs outlive their
// backends; addresses of tasks do not.
const (
	vipTTL  = 5
	taskTTL = 1
)

// zone is all that one container can look up. It is never changed: a new one
// takes its place.
type zone struct {
	names   map[string]answer // lower case, without the final dot
	reverse map[netip.Addr]string
	subnets []netip.Prefix // of its networks: their addresses are never asked of others
	closed  bool           // no name is asked of others
}

// answer is what a name stands for; it may stand for nothing at present.
type answer struct {
	addresses []netip.Addr
	ttl       uint32
	rank      rank
}

// rank says which of two meanings a name has. The lower one wins; equal ones
// add up, as for an alias that several services carry.
type rank int

const (
	ownService rank = iota
	ownAlias
	qualified
	otherService
	otherAlias
	hostname
)

// newZone computes what an endpoint can look up: the services that share a
// network with it, its own stack's first.
func newZone(e Endpoint, networks []swarm.AssignedNetwork, services []swarm.AssignedService) *zone {
	z := &zone{names: map[string]answer{}, reverse: map[netip.Addr]string{}, closed: len(e.Addresses) > 0}
	on := map[swarm.NetworkID]bool{}
	for _, a := range e.Addresses {
		on[a.Network] = true
	}
	for _, n := range networks {
		if !on[n.ID] {
			continue
		}
		if subnet, err := netip.ParsePrefix(n.Subnet); err == nil {
			z.subnets = append(z.subnets, subnet.Masked())
		}
		z.closed = z.closed && n.Internal
	}

	for _, s := range slices.SortedFunc(slices.Values(services), func(a, b swarm.AssignedService) int { return cmp.Compare(a.ID, b.ID) }) {
		z.addService(e, on, s)
	}
	return z
}

// addService adds a service's names, if it is on one of the networks.
func (z *zone) addService(e Endpoint, on map[swarm.NetworkID]bool, s swarm.AssignedService) {
	if !reachable(on, s) {
		return
	}
	service, stack := strings.ToLower(s.ID.Name()), strings.ToLower(string(s.ID.Stack()))
	plain, alias := ownService, ownAlias
	if s.ID.Stack() != e.Service.Stack() {
		plain, alias = otherService, otherAlias
	}

	tasks := z.addTasks(e, s, plain)
	whole := answer{addresses: tasks, ttl: taskTTL}
	if vip := shared(e, s.VIPs); s.Mode != swarm.DNSRR && vip.IsValid() {
		whole = answer{addresses: []netip.Addr{vip}, ttl: vipTTL}
		z.reverse[vip] = service + "." + stack
	}

	z.add(service, whole, plain)
	z.add(stack+"_"+service, whole, qualified)
	z.add(service+"."+stack, whole, qualified)
	each := answer{addresses: tasks, ttl: taskTTL}
	z.add("tasks."+service, each, plain)
	z.add("tasks."+stack+"_"+service, each, qualified)
	z.add("tasks."+service+"."+stack, each, qualified)
	for _, a := range s.Aliases {
		if on[a.Network] {
			z.add(strings.ToLower(a.Name), whole, alias)
		}
	}
}

// addTasks adds the names of each backend and returns their addresses.
func (z *zone) addTasks(e Endpoint, s swarm.AssignedService, plain rank) []netip.Addr {
	service, stack := strings.ToLower(s.ID.Name()), strings.ToLower(string(s.ID.Stack()))
	var all []netip.Addr
	for _, b := range s.Backends {
		ip := shared(e, b.Addresses)
		if !ip.IsValid() {
			continue
		}
		all = append(all, ip)
		one := answer{addresses: []netip.Addr{ip}, ttl: taskTTL}
		z.reverse[ip] = service + "." + stack
		if b.Slot > 0 {
			name := strings.ToLower(swarm.SlotName(s.ID.Name(), b.Slot))
			z.add(name, one, plain)
			z.add(stack+"_"+name, one, qualified)
			z.add(name+"."+stack, one, qualified)
			z.reverse[ip] = name + "." + stack
		}
		if b.Hostname != "" {
			z.add(strings.ToLower(b.Hostname), one, hostname)
		}
	}
	return all
}

// add gives a name a meaning, unless it has a better one.
func (z *zone) add(name string, a answer, r rank) {
	old, ok := z.names[name]
	a.rank = r
	switch {
	case ok && old.rank < r:
		return
	case ok && old.rank == r:
		a.ttl = min(a.ttl, old.ttl)
		a.addresses = slices.Concat(old.addresses, a.addresses)
		slices.SortFunc(a.addresses, netip.Addr.Compare)
		a.addresses = slices.Compact(a.addresses)
	}
	z.names[name] = a
}

// reachable reports whether the service is on one of the networks.
func reachable(on map[swarm.NetworkID]bool, s swarm.AssignedService) bool {
	for _, a := range s.VIPs {
		if on[a.Network] {
			return true
		}
	}
	for _, b := range s.Backends {
		for _, a := range b.Addresses {
			if on[a.Network] {
				return true
			}
		}
	}
	return slices.ContainsFunc(s.Aliases, func(a swarm.Alias) bool { return on[a.Network] })
}

// shared returns the first of the addresses that is on a network of the
// endpoint, by network; zero if none is.
func shared(e Endpoint, addresses []swarm.Address) netip.Addr {
	for _, own := range ordered(e.Addresses) {
		for _, a := range addresses {
			if a.Network != own.Network {
				continue
			}
			if ip, err := netip.ParseAddr(a.IP); err == nil {
				return ip
			}
		}
	}
	return netip.Addr{}
}

// owns reports whether the address is on one of the zone's networks.
func (z *zone) owns(ip netip.Addr) bool {
	return slices.ContainsFunc(z.subnets, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// resolvConf is a container's /etc/resolv.conf. With ndots:0 a service's name
// is asked as it is before any search domain is tried.
func resolvConf(search []string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "nameserver %s\n", resolverAddress)
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	b.WriteString("options ndots:0\n")
	return []byte(b.String())
}

// hostsFile is a container's /etc/hosts.
func hostsFile(s seat) []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, h := range s.endpoint.Hosts {
		address := h.Address
		if address == "host-gateway" {
			if !s.inner.Default.IsValid() {
				continue
			}
			address = s.inner.Default.String()
		}
		fmt.Fprintf(&b, "%s\t%s\n", address, h.Name)
	}
	if s.first.IsValid() {
		fmt.Fprintf(&b, "%s\t%s\n", s.first, cmp.Or(s.endpoint.Hostname, defaultHostname(s.endpoint.Task)))
	}
	return []byte(b.String())
}

// defaultHostname is the part of a task's id that is a valid host name and
// tells replicas apart: "web.1.k3x9q2".
func defaultHostname(id swarm.TaskID) string {
	return string(id)[strings.LastIndexByte(string(id), '/')+1:]
}
