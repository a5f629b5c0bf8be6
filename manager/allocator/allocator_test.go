package allocator_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/manager/allocator"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestNetworksNeverOverlapEachOtherOrTheNodesRoutes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := allocator.Pool{
			Bases: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
			Bits:  rapid.IntRange(18, 24).Draw(t, "bits"),
			Avoid: []netip.Prefix{netip.MustParsePrefix("10.0.3.0/25"), netip.MustParsePrefix("10.0.64.0/18")},
		}
		var have []swarm.AllocatedNetwork
		for i := range rapid.IntRange(1, 40).Draw(t, "networks") {
			id := swarm.NetworkID(fmt.Sprintf("shop/n%d", i))
			given, err := allocator.Network(id, swarm.Network{}, have, pool)
			if err != nil {
				if !strings.Contains(err.Error(), "--address-pool") {
					t.Fatalf("%v does not say what to do", err)
				}
				return
			}
			subnet := netip.MustParsePrefix(given.Subnet)
			for _, other := range have {
				if subnet.Overlaps(netip.MustParsePrefix(other.Subnet)) || other.VNI == given.VNI {
					t.Fatalf("%+v collides with %+v", given, other)
				}
			}
			for _, route := range pool.Avoid {
				if subnet.Overlaps(route) {
					t.Fatalf("%s shadows the node's route %s", subnet, route)
				}
			}
			have = append(have, given)
		}
	})
}

func TestNetworksGoOnInTheNextPool(t *testing.T) {
	pool := allocator.Pool{Bases: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.7.0.0/24")}}
	first, err := allocator.Network("shop/a", swarm.Network{}, nil, pool)
	if err != nil {
		t.Fatal(err)
	}
	second, err := allocator.Network("shop/b", swarm.Network{}, []swarm.AllocatedNetwork{first}, pool)
	if err != nil || first.Subnet != "10.1.0.0/24" || second.Subnet != "10.7.0.0/24" {
		t.Errorf("got %s, then %s, %v", first.Subnet, second.Subnet, err)
	}
	if third, err := allocator.Network("shop/c", swarm.Network{}, []swarm.AllocatedNetwork{first, second}, pool); err == nil {
		t.Errorf("got %s of pools that are full", third.Subnet)
	}
}

func TestANetworkKeepsItsSubnetAndRefusesAnother(t *testing.T) {
	have := []swarm.AllocatedNetwork{{ID: "shop/default", VNI: 4096, Subnet: "10.0.0.0/24", Gateway: "10.0.0.1"}}
	again, err := allocator.Network("shop/default", swarm.Network{Internal: true}, have, allocator.Pool{})
	if err != nil || again.Subnet != "10.0.0.0/24" || !again.Internal {
		t.Errorf("got %+v, %v; want the same subnet", again, err)
	}
	if _, err := allocator.Network("shop/default", swarm.Network{Subnet: "10.9.0.0/24"}, have, allocator.Pool{}); err == nil {
		t.Error("another subnet was accepted while the network exists")
	}
}

func TestNoAddressIsHeldTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		network := swarm.AllocatedNetwork{ID: "shop/default", Subnet: "10.0.0.0/27", Gateway: "10.0.0.1"}
		var tasks []swarm.Task
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(tasks) > 0 && rapid.Bool().Draw(t, "end one") {
				tasks[rapid.IntRange(0, len(tasks)-1).Draw(t, "which")].Status.State = swarm.TaskStopped
				continue
			}
			given, err := allocator.NewBook([]swarm.AllocatedNetwork{network}, nil, tasks).Take([]swarm.NetworkID{network.ID})
			if err != nil {
				live := 0
				for _, task := range tasks {
					if task.Status.State.Live() {
						live++
					}
				}
				if live != 29 { // 32 less the network's own, its gateway and its broadcast
					t.Fatalf("exhausted with %d live tasks: %v", live, err)
				}
				return
			}
			for _, task := range tasks {
				if task.Status.State.Live() && task.Addresses[0] == given[0] {
					t.Fatalf("%s is held by %s already", given[0].IP, task.ID)
				}
			}
			tasks = append(tasks, swarm.Task{ID: swarm.TaskID(fmt.Sprint(len(tasks))), Addresses: given})
		}
	})
}

func TestAnEndedTasksAddressIsTheLastToBeGivenAgain(t *testing.T) {
	network := swarm.AllocatedNetwork{ID: "n", Subnet: "10.0.0.0/29", Gateway: "10.0.0.1"}
	ended := swarm.Task{Addresses: []swarm.Address{{Network: "n", IP: "10.0.0.2"}}, Status: swarm.TaskStatus{State: swarm.TaskStopped}}
	book := allocator.NewBook([]swarm.AllocatedNetwork{network}, nil, []swarm.Task{ended})
	var got []string
	for {
		given, err := book.Take([]swarm.NetworkID{"n"})
		if err != nil {
			break
		}
		got = append(got, given[0].IP)
	}
	if want := "10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6 10.0.0.2"; strings.Join(got, " ") != want {
		t.Errorf("given in order %v, want %s", got, want)
	}
}

func TestPublishedPorts(t *testing.T) {
	others := []allocator.Holder{{Service: "blog/web", Port: swarm.Port{Published: 80, Protocol: swarm.TCP}}, {Service: "x/y", Port: swarm.Port{Published: 30000, Protocol: swarm.TCP}}}

	if _, err := allocator.Publish("shop/web", []swarm.Port{{Published: 80, Target: 8080}}, nil, others); err == nil || !strings.Contains(err.Error(), "blog/web holds it") {
		t.Errorf("error is %v, want one that names blog/web", err)
	}
	if _, err := allocator.Publish("shop/web", []swarm.Port{{Published: 80, Protocol: swarm.UDP}}, nil, others); err != nil {
		t.Errorf("80/udp beside 80/tcp: %v", err)
	}
	given, err := allocator.Publish("shop/web", []swarm.Port{{Target: 8080}}, nil, others)
	if err != nil || given[0].Published != 30001 {
		t.Errorf("automatic port is %+v, %v; want 30001", given, err)
	}
	again, err := allocator.Publish("shop/web", []swarm.Port{{Target: 8080}}, []swarm.Port{{Target: 8080, Published: 30500}}, others)
	if err != nil || again[0].Published != 30500 {
		t.Errorf("automatic port is %+v, %v; want the one it had, 30500", again, err)
	}
}
