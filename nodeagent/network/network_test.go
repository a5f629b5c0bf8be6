package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

const vip = "10.20.0.2:80"

func evenly(n int) map[string]int { return map[string]int{web(1): n, web(2): n, web(3): n} }

func newShop(t testing.TB) *lab {
	l := newLab(t)
	l.config = shop(3)
	l.set()
	for i := 1; i <= 3; i++ {
		l.serve(web(i), 80)
	}
	return l
}

func TestSpreadsConnectionsEvenlyOverBackends(t *testing.T) {
	l := newShop(t)
	for _, c := range []struct{ from, network, to string }{
		{client, "tcp", vip},
		{client, "udp", vip},
		{web(1), "tcp", vip}, // a backend reaches itself too
		{"outside", "tcp", hostAddress + ":8080"},
		{"outside", "udp", hostAddress + ":8080"},
		{"host", "tcp", hostAddress + ":8080"},
		{"host", "tcp", "127.0.0.1:8080"},
		{"host", "udp", "127.0.0.1:8080"},
		{client, "tcp", hostAddress + ":8080"}, // hairpin: to a neighbour
		{client, "udp", "10.20.0.1:8080"},
		{web(1), "tcp", hostAddress + ":8080"}, // hairpin: to itself too
	} {
		if got := l.spread(c.from, c.network, c.to, 30); !maps.Equal(got, evenly(10)) {
			t.Errorf("from %s to %s %s: %v, want 10 each", c.from, c.network, c.to, got)
		}
	}
}

func TestKeepsTheClientsAddress(t *testing.T) {
	l := newShop(t)
	for _, c := range []struct{ from, to, want string }{
		{"outside", hostAddress + ":8080", outsideAddress},
		{"host", hostAddress + ":8080", hostAddress},
		{client, vip, "10.20.0.100"},
		{"host", "127.0.0.1:8080", "10.20.0.1"},      // the container could not answer 127.0.0.1
		{client, hostAddress + ":8080", "10.20.0.1"}, // nor a neighbour that it did not hear from
	} {
		for _, network := range []string{"tcp", "udp"} {
			if _, seen, err := l.ask(c.from, network, c.to); err != nil || seen != c.want {
				t.Errorf("from %s to %s %s: backend saw %q (%v), want %q", c.from, network, c.to, seen, err, c.want)
			}
		}
	}
}

func TestTwoServicesAskedInTurnAreBothSpread(t *testing.T) {
	l := newShop(t)
	api := l.config.Services[0]
	api.ID, api.Ports = "shop/api", nil
	api.VIPs = []swarm.Address{{Network: "shop/default", IP: "10.20.0.3"}}
	l.config.Services = append(l.config.Services, api)
	l.set()

	got := map[string]int{}
	for range 6 {
		_, _, err := l.ask(client, "tcp", vip)
		check(t, err)
		name, _, err := l.ask(client, "tcp", "10.20.0.3:80")
		check(t, err)
		got[name]++
	}
	if len(got) != 3 {
		t.Errorf("of three backends, %v were used", got)
	}
}

// hammer asks without pause until stopped, and counts answers and failures.
func (l *lab) hammer(where, address string) (stop func() (answers, failures int64, first error)) {
	var answers, failures atomic.Int64
	var first atomic.Pointer[error]
	done := make(chan struct{})
	var running sync.WaitGroup
	for range 2 {
		running.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, _, err := l.ask(where, "tcp", address); err != nil {
					failures.Add(1)
					first.CompareAndSwap(nil, &err)
					continue
				}
				answers.Add(1)
				time.Sleep(time.Millisecond) // leave the processors to the kernel's own work
			}
		})
	}
	return func() (int64, int64, error) {
		close(done)
		running.Wait()
		var err error
		if p := first.Load(); p != nil {
			err = *p
		}
		return answers.Load(), failures.Load(), err
	}
}

func TestNoRequestFailsWhileBackendsComeAndGo(t *testing.T) {
	l := newShop(t)
	all := l.config.Services[0].Backends
	inside, outside := l.hammer(client, vip), l.hammer("outside", hostAddress+":8080")

	for i := range 30 {
		left := slices.Delete(slices.Clone(all), i%3, i%3+1)
		if i%4 == 3 {
			left = left[:1]
		}
		l.config.Services[0].Backends = left
		l.set()
		name, _, err := l.ask([]string{"outside", client}[i%2], "tcp", []string{hostAddress + ":8080", vip}[i%2])
		check(t, err)
		if !slices.ContainsFunc(left, func(b swarm.Backend) bool { return string(b.Task) == name }) {
			t.Fatalf("%s answered after it was drained", name)
		}
	}
	for _, stop := range []func() (int64, int64, error){inside, outside} {
		answers, failures, first := stop()
		if failures > 0 || answers < 100 {
			t.Errorf("%d requests failed and %d were answered: %v", failures, answers, first)
		}
	}
}

func TestConnectionsOfADrainedBackendFinish(t *testing.T) {
	l := newShop(t)
	for _, c := range []struct{ from, to string }{{client, vip}, {"outside", hostAddress + ":8080"}} {
		conn, err := l.dial(c.from, "tcp", c.to)
		check(t, err)
		defer conn.Close()
		before, _, err := converse(conn)
		check(t, err)

		l.config = shop(3)
		l.config.Services[0].Backends = slices.DeleteFunc(l.config.Services[0].Backends, func(b swarm.Backend) bool { return string(b.Task) == before })
		l.set()
		if after, _, err := converse(conn); err != nil || after != before {
			t.Errorf("from %s: the connection to %s ended at %q: %v", c.from, before, after, err)
		}
	}
}

func TestDatagramsFindAnotherBackendWhenTheirsIsDrained(t *testing.T) {
	l := newShop(t)
	for _, c := range []struct{ from, to string }{{client, vip}, {"outside", hostAddress + ":8080"}, {"host", "127.0.0.1:8080"}} {
		l.config = shop(3)
		l.set()
		conn, err := l.dial(c.from, "udp", c.to)
		check(t, err)
		defer conn.Close()
		before, _, err := converse(conn)
		check(t, err)
		if again, _, err := converse(conn); err != nil || again != before {
			t.Errorf("from %s: a conversation went from %s to %s (%v)", c.from, before, again, err)
		}

		l.config.Services[0].Backends = slices.DeleteFunc(l.config.Services[0].Backends, func(b swarm.Backend) bool { return string(b.Task) == before })
		l.set()
		if after, _, err := converse(conn); err != nil || after == before {
			t.Errorf("from %s: datagrams still go to %q: %v", c.from, after, err)
		}
	}
}

func TestAServiceWithoutBackendsIsRefusedAtOnce(t *testing.T) {
	l := newShop(t)
	backends := l.config.Services[0].Backends
	l.config.Services[0].Backends = nil
	l.set()
	for _, c := range []struct{ from, network, to string }{
		{client, "tcp", vip}, {client, "udp", vip},
		{"outside", "tcp", hostAddress + ":8080"}, {"outside", "udp", hostAddress + ":8080"}, {"host", "tcp", "127.0.0.1:8080"},
	} {
		began := time.Now()
		_, _, err := l.ask(c.from, c.network, c.to)
		refused := errors.Is(err, syscall.ECONNREFUSED) || c.network == "udp" && errors.Is(err, syscall.EPERM) // so the kernel tells a local sender
		if !refused || time.Since(began) > time.Second {
			t.Errorf("from %s to %s %s: %v after %v", c.from, c.network, c.to, err, time.Since(began))
		}
	}

	l.config.Services[0].Backends = backends
	l.set()
	for _, network := range []string{"tcp", "udp"} {
		if _, _, err := l.ask("outside", network, hostAddress+":8080"); err != nil {
			t.Errorf("%s does not come back: %v", network, err)
		}
	}
}

func TestPublishesAtOneAddressOrInModeHost(t *testing.T) {
	l := newLab(t)
	l.config = parseConfig(t, `
		network shop/default 10.20.0.0/24 10.20.0.1
		task shop/web.1.aaaaaa shop/default=10.20.0.11
		task shop/web.2.aaaaaa shop/default=10.20.0.12 9000:80/tcp 9001:80/udp@127.0.0.1
		service shop/web shop/default=10.20.0.2 8080:80/tcp@127.0.0.1 shop/web.1.aaaaaa shop/web.2.aaaaaa`)
	l.set()
	l.serve(web(1), 80)
	l.serve(web(2), 80)

	if got := l.spread("host", "tcp", "127.0.0.1:8080", 4); !maps.Equal(got, map[string]int{web(1): 2, web(2): 2}) {
		t.Errorf("at its address: %v", got)
	}
	if _, _, err := l.ask("outside", "tcp", hostAddress+":8080"); err == nil {
		t.Error("a port at 127.0.0.1 is open to the outside")
	}
	if got := l.spread("outside", "tcp", hostAddress+":9000", 4); !maps.Equal(got, map[string]int{web(2): 4}) {
		t.Errorf("in mode host: %v", got)
	}
	if got := l.spread("host", "udp", "127.0.0.1:9001", 2); !maps.Equal(got, map[string]int{web(2): 2}) {
		t.Errorf("in mode host at an address: %v", got)
	}
}

func TestNamesWhoHoldsAPort(t *testing.T) {
	l := newLab(t)
	l.config = shop(1)
	l.set()
	stop := l.serve("host", 8081)
	busy, err := l.network.Busy([]swarm.Port{{Published: 8080}, {Published: 8081}, {Published: 8081, Protocol: swarm.UDP, Address: hostAddress}})
	check(t, err)
	if len(busy) != 2 || busy[0].By != "a program that listens at *:8081/tcp" || busy[1].By != "a program that listens at *:8081/udp" {
		t.Errorf("got %+v", busy)
	}
	stop()
	if busy, err := l.network.Busy([]swarm.Port{{Published: 8081}}); err != nil || len(busy) > 0 {
		t.Errorf("after it ended: %+v, %v", busy, err)
	}
}

func TestDoctorNamesAForeignChainThatDrops(t *testing.T) {
	l := newShop(t)
	for _, f := range l.network.Doctor() {
		if !f.OK && f.Name != "bridge filter" {
			t.Errorf("%s: %s", f.Name, f.Text)
		}
	}
	l.run("host", "nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
	var remedy string
	for _, f := range l.network.Doctor() {
		if f.Name == "forward chain ip filter FORWARD" {
			remedy = f.Remedy
		}
	}
	if _, _, err := l.ask("outside", "tcp", hostAddress+":8080"); err == nil {
		t.Error("the foreign chain does not drop")
	}
	for _, command := range strings.Split(remedy, " && ") {
		l.run("host", "sh", "-c", command)
	}
	if got := l.spread("outside", "tcp", hostAddress+":8080", 3); !maps.Equal(got, evenly(1)) {
		t.Errorf("after the remedy: %v", got)
	}
}

func TestAFailedEndpointStopsNoOther(t *testing.T) {
	l := newLab(t)
	l.config = shop(2)
	l.config.Endpoints[0].Addresses[0].IP = "10.99.99.99"
	reached, err := l.network.Set(t.Context(), l.config)
	check(t, err)
	if err := reached.Endpoints[swarm.TaskID(web(1))].Err; err == nil || !strings.Contains(err.Error(), "10.99.99.99") {
		t.Errorf("the bad endpoint's error is %v", err)
	}
	if state := reached.Endpoints[swarm.TaskID(web(2))]; state.Err != nil || state.NetNS == "" {
		t.Errorf("the good endpoint: %+v", state)
	}
	l.serve(web(2), 80)
	if _, _, err := l.ask(client, "tcp", "10.20.0.12:80"); err != nil {
		t.Error(err)
	}
}

func TestTwoDaemonsShareAHost(t *testing.T) {
	l := newShop(t)
	first := l.network
	n, err := Open(t.Context(), Options{Dir: t.TempDir(), RunDir: t.TempDir(), Prefix: "g2", HostNetNS: l.spaces.path("host")})
	check(t, err)
	defer func() { check(t, n.Destroy(context.Background())) }()
	_, err = n.Set(t.Context(), parseConfig(t, `
		network shop/default 10.30.0.0/24 10.30.0.1
		task shop/web.9.aaaaaa shop/default=10.30.0.11
		service shop/web shop/default=10.30.0.2 8090:80/tcp shop/web.9.aaaaaa`))
	check(t, err)
	l.network = n
	l.serve("shop/web.9.aaaaaa", 80)
	if name, _, err := l.ask("outside", "tcp", hostAddress+":8090"); err != nil || name != "shop/web.9.aaaaaa" {
		t.Errorf("the second daemon's port: %s, %v", name, err)
	}
	if name, _, err := l.ask("shop/web.9.aaaaaa", "tcp", "10.20.0.11:80"); err == nil {
		t.Errorf("a container of the second reached %s", name)
	}
	l.network = first
	if found, err := first.Check(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("the first sees differences: %v, %v", found, err)
	}
	if got := l.spread("outside", "tcp", hostAddress+":8080", 3); !maps.Equal(got, evenly(1)) {
		t.Errorf("the first daemon's port: %v", got)
	}
}

// TestAttachingIsQuick prints what it takes; it fails only at ten times the goal.
func TestAttachingIsQuick(t *testing.T) {
	l := newLab(t)
	l.config = shop(1)
	began := time.Now()
	l.set()
	t.Logf("first network and two endpoints: %v", time.Since(began))

	one := shop(2)
	began = time.Now()
	l.config = one
	l.set()
	single := time.Since(began)

	l.config = shop(0)
	l.config.Networks[0].Subnet = "10.20.0.0/22"
	for i := range 100 {
		l.config.Endpoints = append(l.config.Endpoints, Endpoint{Task: swarm.TaskID(fmt.Sprintf("shop/many.%d.aaaaaa", i)), Service: "shop/many", Slot: i + 1,
			Addresses: []swarm.Address{{Network: "shop/default", IP: fmt.Sprintf("10.20.1.%d", i)}}})
	}
	for i := range 50 {
		s := swarm.AssignedService{ID: swarm.ServiceID(fmt.Sprintf("shop/s%d", i)), Mode: swarm.VIP, VIPs: []swarm.Address{{Network: "shop/default", IP: fmt.Sprintf("10.20.2.%d", i)}}}
		for k := range 3 {
			s.Backends = append(s.Backends, swarm.Backend{Slot: k + 1, Addresses: []swarm.Address{{Network: "shop/default", IP: fmt.Sprintf("10.20.3.%d", 3*i+k)}}})
		}
		l.config.Services = append(l.config.Services, s)
	}
	began = time.Now()
	l.set()
	hundred := time.Since(began)

	began = time.Now()
	l.config.Services[1].Backends = l.config.Services[1].Backends[:2]
	l.set()
	change := time.Since(began)
	began = time.Now()
	if found, err := l.network.Check(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("differences %v, %v", found, err)
	}
	first := time.Since(began)
	began = time.Now()
	_, err := l.network.Check(t.Context())
	check(t, err)
	second := time.Since(began)
	began = time.Now()
	l.set()
	same := time.Since(began)
	began = time.Now()
	l.config = shop(0)
	l.set()
	t.Logf("one endpoint %v; a hundred with 50 services %v; one backend leaves a hundred namespaces %v; check after a change %v, else %v; nothing new %v; all leave %v",
		single, hundred, change, first, second, same, time.Since(began))
	if single > 300*time.Millisecond || hundred > 20*time.Second || change > 20*time.Second {
		t.Error("ten times slower than it should be")
	}
}
