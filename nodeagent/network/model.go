package network

import (
	"maps"
	"net/netip"
	"slices"
)

// world is what the kernel holds of one daemon: the host's namespace under the
// name "" and one for each container. It is wanted, or it was observed.
type world map[string]*space

// space is what one network namespace holds.
type space struct {
	Links      map[string]link           // by name
	Default    netip.Addr                // where the default route leads; zero means there is none
	Forwarding bool                      // of the host alone
	Foreign    map[string][]netip.Prefix // of the host alone: addresses of links that are not ours
	Table      *table                    // nil means there is none
}

// link is a network device.
type link struct {
	Kind      string // "bridge" or "veth"
	Alias     string
	MAC       string // empty means any
	MTU       int    // bytes
	Master    string // the bridge that it is a port of
	Up        bool
	Addresses []netip.Prefix // sorted
}

// table is an nftables table of family ip. Its words are those of nft(8).
type table struct {
	Sets   map[string]set
	Chains map[string]chain
}

// set is a set, or a map if Value is not empty.
type set struct {
	Key      []string          // types that are concatenated
	Value    []string          // likewise
	Elements map[string]string // key to value, or to ""
}

// chain is a base chain if Hook is set.
type chain struct {
	Type, Hook string
	Priority   int
	Rules      []rule
}

func newSpace() *space { return &space{Links: map[string]link{}} }

func newTable() *table { return &table{Sets: map[string]set{}, Chains: map[string]chain{}} }

// clone copies what changes are done to.
func (t *table) clone() *table {
	if t == nil {
		return nil
	}
	made := &table{Sets: maps.Clone(t.Sets), Chains: maps.Clone(t.Chains)}
	for name, s := range made.Sets {
		s.Elements = maps.Clone(s.Elements)
		made.Sets[name] = s
	}
	return made
}

// space returns the one of that name, new if need be.
func (w world) space(name string) *space {
	if w[name] == nil {
		w[name] = newSpace()
	}
	return w[name]
}

// sorted returns the keys of a map in order.
func sorted[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
