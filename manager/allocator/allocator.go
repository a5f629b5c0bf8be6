// Package allocator decides subnets, VNIs, virtual addresses, task addresses
// and published ports. It holds nothing: what is taken is an argument, and
// what it gives travels in the command that commits it.
package allocator

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// Limits of the numbers that are given out.
const (
	FirstVNI = 4096      // below lie the VNIs that operators use by hand
	lastVNI  = 1<<24 - 1 // RFC 7348 section 5: 24 bits

	// The dynamic range of published ports, as in Docker Swarm.
	FirstPort = 30000
	LastPort  = 32767
)

// Pool is where subnets come from.
type Pool struct {
	Bases []netip.Prefix // looked through in this order; 10.0.0.0/8 unless set
	Bits  int            // size of each subnet; 24 unless set
	Avoid []netip.Prefix // routes of the nodes, which no network may shadow
}

func (p Pool) defaults() Pool {
	if len(p.Bases) == 0 {
		p.Bases = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10}), 8)}
	}
	if p.Bits == 0 {
		p.Bits = 24
	}
	return p
}

// Network gives a stack's network its VNI, subnet and gateway. A network that
// has them keeps them; one whose file now asks for another subnet is refused,
// because containers live in the old one.
func Network(id swarm.NetworkID, want swarm.Network, have []swarm.AllocatedNetwork, pool Pool) (swarm.AllocatedNetwork, error) {
	pool = pool.defaults()
	for _, network := range have {
		if network.ID == id {
			return kept(network, want)
		}
	}

	given := swarm.AllocatedNetwork{ID: id, VNI: freeVNI(have), Internal: want.Internal, MTU: want.MTU}
	if given.VNI > lastVNI {
		return given, fmt.Errorf("allocate network %s: all VNIs are taken", id)
	}
	subnet, err := subnetFor(id, want, have, pool)
	if err != nil {
		return given, err
	}
	given.Subnet = subnet.String()
	given.Gateway = subnet.Addr().Next().String()
	if want.Gateway != "" {
		gateway, err := netip.ParseAddr(want.Gateway)
		if err != nil || !subnet.Contains(gateway) {
			return given, fmt.Errorf("allocate network %s: gateway %q is not an address of %s", id, want.Gateway, subnet)
		}
		given.Gateway = gateway.String()
	}
	return given, nil
}

func kept(network swarm.AllocatedNetwork, want swarm.Network) (swarm.AllocatedNetwork, error) {
	if want.Subnet != "" && !sameSubnet(want.Subnet, network.Subnet) {
		return network, fmt.Errorf("allocate network %s: its subnet is %s and can't become %s while it exists; give the network a new name", network.ID, network.Subnet, want.Subnet)
	}
	network.Internal = want.Internal
	network.MTU = want.MTU
	return network, nil
}

func sameSubnet(a, b string) bool {
	first, err := netip.ParsePrefix(a)
	if err != nil {
		return false
	}
	second, err := netip.ParsePrefix(b)
	return err == nil && first.Masked() == second.Masked()
}

func freeVNI(have []swarm.AllocatedNetwork) uint32 {
	taken := make(map[uint32]bool, len(have))
	for _, network := range have {
		taken[network.VNI] = true
	}
	vni := uint32(FirstVNI)
	for taken[vni] {
		vni++
	}
	return vni
}

// subnetFor returns the subnet that was asked for, or the pool's first that
// overlaps nothing.
func subnetFor(id swarm.NetworkID, want swarm.Network, have []swarm.AllocatedNetwork, pool Pool) (netip.Prefix, error) {
	taken := slices.Clone(pool.Avoid)
	for _, network := range have {
		if prefix, err := netip.ParsePrefix(network.Subnet); err == nil {
			taken = append(taken, prefix)
		}
	}

	if want.Subnet != "" {
		asked, err := netip.ParsePrefix(want.Subnet)
		if err != nil || !asked.Addr().Is4() || asked.Bits() > 30 {
			return asked, fmt.Errorf("allocate network %s: subnet %q is not an IPv4 CIDR of /30 or larger", id, want.Subnet)
		}
		asked = asked.Masked()
		if other, overlaps := overlapping(asked, taken); overlaps {
			return asked, fmt.Errorf("allocate network %s: subnet %s overlaps %s, which is in use", id, asked, other)
		}
		return asked, nil
	}

	for _, base := range pool.Bases {
		if subnet, found := freeIn(base, pool.Bits, taken); found {
			return subnet, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("allocate network %s: the address pool %v has no free /%d; begin the cluster with a larger --address-pool", id, pool.Bases, pool.Bits)
}

// freeIn returns the first subnet within base that overlaps nothing.
func freeIn(base netip.Prefix, bits int, taken []netip.Prefix) (netip.Prefix, bool) {
	candidate := netip.PrefixFrom(base.Masked().Addr(), bits)
	for candidate.IsValid() && base.Contains(candidate.Addr()) {
		other, overlaps := overlapping(candidate, taken)
		if !overlaps {
			return candidate, true
		}
		candidate = after(candidate, other)
	}
	return netip.Prefix{}, false
}

func overlapping(p netip.Prefix, taken []netip.Prefix) (netip.Prefix, bool) {
	for _, other := range taken {
		if p.Overlaps(other) {
			return other, true
		}
	}
	return netip.Prefix{}, false
}

// after returns the first prefix of p's size that begins beyond both p and the
// prefix that it overlaps.
func after(p, other netip.Prefix) netip.Prefix {
	wider := p
	if other.Bits() < p.Bits() {
		wider = other.Masked()
	}
	next := last(wider).Next()
	if !next.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(next, p.Bits())
}

// last returns the highest address of an IPv4 prefix.
func last(p netip.Prefix) netip.Addr {
	octets := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		octets[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(octets)
}

// A Book knows which addresses of each network are taken.
type Book struct {
	networks map[swarm.NetworkID]swarm.AllocatedNetwork
	live     map[swarm.NetworkID]map[netip.Addr]bool
	recent   map[swarm.NetworkID]map[netip.Addr]bool // of ended tasks: given again only when nothing else is left
}

// NewBook reads what the cluster's networks, endpoints and tasks hold.
func NewBook(networks []swarm.AllocatedNetwork, endpoints []swarm.Endpoint, tasks []swarm.Task) *Book {
	b := &Book{
		networks: make(map[swarm.NetworkID]swarm.AllocatedNetwork, len(networks)),
		live:     make(map[swarm.NetworkID]map[netip.Addr]bool),
		recent:   make(map[swarm.NetworkID]map[netip.Addr]bool),
	}
	for _, network := range networks {
		b.Add(network)
	}
	for _, endpoint := range endpoints {
		b.note(b.live, endpoint.VIPs)
	}
	for _, task := range tasks {
		if task.Status.State.Live() {
			b.note(b.live, task.Addresses)
		} else {
			b.note(b.recent, task.Addresses)
		}
	}
	return b
}

// Add makes a network known that was allocated just now.
func (b *Book) Add(network swarm.AllocatedNetwork) {
	b.networks[network.ID] = network
	b.note(b.live, []swarm.Address{{Network: network.ID, IP: network.Gateway}})
}

func (b *Book) note(where map[swarm.NetworkID]map[netip.Addr]bool, addresses []swarm.Address) {
	for _, address := range addresses {
		ip, err := netip.ParseAddr(address.IP)
		if err != nil {
			continue
		}
		if where[address.Network] == nil {
			where[address.Network] = make(map[netip.Addr]bool)
		}
		where[address.Network][ip] = true
	}
}

// Take returns a free address on each network, in the order given, and marks
// it as taken.
func (b *Book) Take(networks []swarm.NetworkID) ([]swarm.Address, error) {
	addresses := make([]swarm.Address, 0, len(networks))
	for _, id := range networks {
		ip, err := b.free(id)
		if err != nil {
			return nil, err
		}
		address := swarm.Address{Network: id, IP: ip.String()}
		b.note(b.live, []swarm.Address{address})
		addresses = append(addresses, address)
	}
	return addresses, nil
}

func (b *Book) free(id swarm.NetworkID) (netip.Addr, error) {
	network, known := b.networks[id]
	if !known {
		return netip.Addr{}, fmt.Errorf("allocate an address on %s: there is no such network", id)
	}
	subnet, err := netip.ParsePrefix(network.Subnet)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("allocate an address on %s: %w", id, err)
	}

	broadcast := last(subnet)
	var fallback netip.Addr
	for ip := subnet.Masked().Addr().Next(); ip.Less(broadcast); ip = ip.Next() {
		switch {
		case b.live[id][ip]:
		case !b.recent[id][ip]:
			return ip, nil
		case !fallback.IsValid():
			fallback = ip
		}
	}
	if fallback.IsValid() {
		return fallback, nil
	}
	return fallback, fmt.Errorf("allocate an address on %s: all of %s are taken; give the network a larger subnet", id, subnet)
}

// Holder names who has a published port.
type Holder struct {
	Service swarm.ServiceID
	Port    swarm.Port
}

// Publish fills in the ports that a service publishes on every node: a port
// that it had keeps its number, 0 becomes a free one of FirstPort–LastPort, and
// one that another service holds is refused by name.
func Publish(service swarm.ServiceID, want, had []swarm.Port, others []Holder) ([]swarm.Port, error) {
	taken := make(map[portKey]swarm.ServiceID, len(others))
	for _, holder := range others {
		taken[keyOf(holder.Port)] = holder.Service
	}

	given := make([]swarm.Port, 0, len(want))
	for _, port := range want {
		if port.Published == 0 {
			port.Published = keptOrFree(port, had, taken)
			if port.Published == 0 {
				return nil, fmt.Errorf("publish port %d of %s: all ports from %d to %d are taken", port.Target, service, FirstPort, LastPort)
			}
		}
		if holder, conflict := taken[keyOf(port)]; conflict {
			return nil, fmt.Errorf("publish port %d/%s of %s: %s holds it; publish another port or remove it there", port.Published, protocolOf(port), service, holder)
		}
		taken[keyOf(port)] = service
		given = append(given, port)
	}
	slices.SortFunc(given, func(a, b swarm.Port) int {
		return cmp.Or(cmp.Compare(a.Published, b.Published), cmp.Compare(a.Protocol, b.Protocol))
	})
	return given, nil
}

type portKey struct {
	number   uint16
	protocol swarm.Protocol
}

func keyOf(p swarm.Port) portKey { return portKey{p.Published, protocolOf(p)} }

func protocolOf(p swarm.Port) swarm.Protocol {
	if p.Protocol == "" {
		return swarm.TCP
	}
	return p.Protocol
}

func keptOrFree(port swarm.Port, had []swarm.Port, taken map[portKey]swarm.ServiceID) uint16 {
	for _, old := range had {
		same := old.Target == port.Target && protocolOf(old) == protocolOf(port)
		if _, conflict := taken[keyOf(old)]; same && !conflict && FirstPort <= old.Published && old.Published <= LastPort {
			return old.Published
		}
	}
	for number := uint16(FirstPort); number <= LastPort; number++ {
		if _, conflict := taken[portKey{number, protocolOf(port)}]; !conflict {
			return number
		}
	}
	return 0
}
