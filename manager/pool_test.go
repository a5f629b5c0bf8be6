package manager

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/gitswarm/gitswarm/manager/allocator"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestTheClustersAddressPoolGoesBeforeTheManagers(t *testing.T) {
	own := allocator.Pool{Bases: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Bits: 20}
	if got := poolOf(swarm.ClusterSettings{}, own); !slices.Equal(got.Bases, own.Bases) {
		t.Errorf("a cluster without a pool has %v", got.Bases)
	}
	got := poolOf(swarm.ClusterSettings{AddressPool: []string{"10.7.0.0/16", "10.9.0.0/16"}}, own)
	want := []netip.Prefix{netip.MustParsePrefix("10.7.0.0/16"), netip.MustParsePrefix("10.9.0.0/16")}
	if !slices.Equal(got.Bases, want) || got.Bits != own.Bits {
		t.Errorf("a cluster with a pool has %+v", got)
	}
}
