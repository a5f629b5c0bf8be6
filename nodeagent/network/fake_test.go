package network

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/gitswarm/gitswarm/swarm"
)

var update = flag.Bool("update", false, "rewrite the expected changes in testdata")

// fake is a kernel in memory. It prints what it was asked to do, namespace by
// namespace.
type fake struct {
	mu    sync.Mutex
	world world
	log   map[string][]string
}

func newFake() *fake { return &fake{world: world{"": newSpace()}, log: map[string][]string{}} }

func (k *fake) spaces() ([]string, error) {
	return slices.DeleteFunc(sorted(k.world), func(s string) bool { return s == "" }), nil
}

func (k *fake) path(name string) string { return "/fake/" + name }

func (k *fake) create(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.world[name] = newSpace()
	k.log[name] = append(k.log[name], "ip netns add "+name)
	return nil
}

func (k *fake) remove(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.world[name] != nil {
		delete(k.world, name)
		k.log[name] = append(k.log[name], "ip netns del "+name)
	}
	return nil
}

func (k *fake) observe(name string) (*space, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.world[name], nil
}

func (k *fake) apply(name string, changes []change) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range changes {
		c.on(k.world, name)
		k.log[name] = append(k.log[name], c.String())
	}
	return nil
}

// take prints what was done since the last take.
func (k *fake) take() string {
	var b strings.Builder
	for _, name := range sorted(k.log) {
		where := name
		if where == "" {
			where = "host"
		}
		fmt.Fprintf(&b, "# %s\n%s\n", where, strings.Join(k.log[name], "\n"))
	}
	k.log = map[string][]string{}
	return b.String()
}

type fakeResolver struct{}

func (fakeResolver) ports() ports { return ports{udp: 5301, tcp: 5302} }
func (fakeResolver) serve(*zone)  {}
func (fakeResolver) close()       {}

func newFakeNetwork(t *testing.T, k *fake) *Network {
	return &Network{
		options: Options{Dir: t.TempDir(), Prefix: "gs", MTU: 1500}, names: names{"gs"}, kernel: k, log: discard(),
		listen: func(string, ports, *zone) (resolver, error) { return fakeResolver{}, nil },
		upward: newUpstream(""), have: world{"": newSpace()}, doubt: map[string]bool{}, resolvers: map[string]resolver{},
	}
}

// parseConfig reads the tests' notation, a line each:
//
//	network ID SUBNET GATEWAY [internal]
//	task ID NETWORK=IP… [PUBLISHED:TARGET/PROTOCOL[@ADDRESS]]…
//	service ID [dnsrr] NETWORK=VIP… [PUBLISHED:TARGET/PROTOCOL[@ADDRESS]]… [TASK…]
func parseConfig(t *testing.T, text string) Config {
	t.Helper()
	cfg := Config{Node: "n1"}
	tasks := map[string]Endpoint{}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "network":
			n := swarm.AssignedNetwork{ID: swarm.NetworkID(words[1]), Subnet: words[2], Gateway: words[3]}
			n.Internal = slices.Contains(words, "internal")
			cfg.Networks = append(cfg.Networks, n)
		case "task":
			service, slot, _ := strings.Cut(words[1], ".")
			number, _, _ := strings.Cut(slot, ".")
			e := Endpoint{Task: swarm.TaskID(words[1]), Service: swarm.ServiceID(service)}
			e.Slot, _ = strconv.Atoi(number)
			e.Addresses, e.Ports, _ = parseWords(t, words[2:])
			tasks[words[1]] = e
			cfg.Endpoints = append(cfg.Endpoints, e)
		case "service":
			s := swarm.AssignedService{ID: swarm.ServiceID(words[1]), Mode: swarm.VIP}
			var backends []string
			s.VIPs, s.Ports, backends = parseWords(t, words[2:])
			for _, b := range backends {
				if b == "dnsrr" {
					s.Mode = swarm.DNSRR
					continue
				}
				e := tasks[b]
				s.Backends = append(s.Backends, swarm.Backend{Task: e.Task, Slot: e.Slot, Addresses: e.Addresses})
			}
			cfg.Services = append(cfg.Services, s)
		default:
			t.Fatalf("line %q: unknown word", line)
		}
	}
	return cfg
}

func parseWords(t *testing.T, words []string) (addresses []swarm.Address, published []swarm.Port, rest []string) {
	t.Helper()
	for _, w := range words {
		if network, ip, ok := strings.Cut(w, "="); ok {
			addresses = append(addresses, swarm.Address{Network: swarm.NetworkID(network), IP: ip})
			continue
		}
		if !strings.Contains(w, ":") {
			rest = append(rest, w)
			continue
		}
		w, at, _ := strings.Cut(w, "@")
		p := swarm.Port{Address: at}
		var proto string
		if _, err := fmt.Sscanf(strings.NewReplacer(":", " ", "/", " ").Replace(w), "%d %d %s", &p.Published, &p.Target, &proto); err != nil {
			t.Fatalf("port %q: %v", w, err)
		}
		p.Protocol = swarm.Protocol(proto)
		published = append(published, p)
	}
	return addresses, published, rest
}

// TestSetsOnlyWhatDiffers runs the stories in testdata: a sequence of configs
// (…/config), each with the changes that lead to it (…/changes).
func TestSetsOnlyWhatDiffers(t *testing.T) {
	forEachStory(t, func(t *testing.T, path string, story *txtar.Archive) {
		k := newFake()
		n := newFakeNetwork(t, k)
		for i := 0; i+1 < len(story.Files); i += 2 {
			_, err := n.Set(t.Context(), parseConfig(t, string(story.Files[i].Data)))
			check(t, err)
			got := k.take()
			if *update {
				story.Files[i+1].Data = []byte(got)
			}
			if want := string(story.Files[i+1].Data); got != want {
				t.Errorf("%s: got\n%s\nwant\n%s", story.Files[i+1].Name, got, want)
			}
			if _, err := n.Set(t.Context(), n.last); err != nil || k.take() != "" {
				t.Errorf("%s: setting it again changes something (%v)", story.Files[i].Name, err)
			}
		}
		if *update {
			check(t, os.WriteFile(path, txtar.Format(story), 0o644))
		}
	})
}

// TestTheKernelEndsWhereTheFakeEnds runs the same stories on the real kernel
// and reads back what it holds.
func TestTheKernelEndsWhereTheFakeEnds(t *testing.T) {
	forEachStory(t, func(t *testing.T, _ string, story *txtar.Archive) {
		l := newLab(t)
		for i := 0; i+1 < len(story.Files); i += 2 {
			l.config = parseConfig(t, string(story.Files[i].Data))
			l.set()
			found, err := l.network.Check(t.Context())
			check(t, err)
			if len(found) > 0 {
				t.Errorf("%s: the kernel differs:\n%s", story.Files[i].Name, strings.Join(found, "\n"))
			}
		}
	})
}

// TestRulesReadAsNftPrintsThem holds the text of each rule against what nft(8)
// makes of the rule in the kernel.
func TestRulesReadAsNftPrintsThem(t *testing.T) {
	l := newLab(t)
	l.config = parseConfig(t, `
		network shop/default 10.20.0.0/24 10.20.0.1
		task shop/web.1.aaaaaa shop/default=10.20.0.11
		service shop/web shop/default=10.20.0.2 8080:80/tcp 8081:80/tcp@10.99.0.1 shop/web.1.aaaaaa`)
	l.set()
	for where, table := range map[string]*table{"host": l.network.want.host.Table, web(1): l.network.want.seats[0].inner.Table} {
		for name, c := range table.Chains {
			printed := l.run(where, "nft", "list", "chain", "ip", "gitswarm_gs", name)
			for _, r := range c.Rules {
				if !strings.Contains(printed, "\t"+r.Text+" comment \""+r.Sum+"\"\n") {
					t.Errorf("chain %s: rule %q is not in\n%s", name, r.Text, printed)
				}
			}
		}
	}
}

func forEachStory(t *testing.T, do func(t *testing.T, path string, story *txtar.Archive)) {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	check(t, err)
	if len(paths) == 0 {
		t.Fatal("testdata has no stories")
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			story, err := txtar.ParseFile(path)
			check(t, err)
			do(t, path, story)
		})
	}
}

func TestElementsAreReadAsTheyWereWritten(t *testing.T) {
	for _, c := range []struct {
		types []string
		text  string
		bytes int
	}{
		{[]string{typeAddress}, "10.0.0.1", 4},
		{[]string{typeProto, typePort}, "sctp . 65535", 8},
		{[]string{typeAddress, typeProto, typePort, typeNumber}, "10.0.0.1 . udp . 53 . 0x0000002a", 16},
		{[]string{typeLink, typeAddress}, "gsb0123456789 . 255.255.255.255", 20},
	} {
		b, err := encode(c.types, c.text)
		check(t, err)
		back, err := decode(c.types, b)
		check(t, err)
		if back != c.text || len(b) != c.bytes {
			t.Errorf("%q came back as %q from %d bytes", c.text, back, len(b))
		}
	}
	for _, bad := range []string{"10.0.0.1", "10.0.0 . 1", "::1 . 1", "10.0.0.1 . 65536", "10.0.0.1 . 1 . 2"} {
		if _, err := encode([]string{typeAddress, typePort}, bad); err == nil {
			t.Errorf("%q was encoded", bad)
		}
	}
}

func TestRefusesWhatMakesNoSenseAndKeepsTheRest(t *testing.T) {
	good := "network shop/default 10.20.0.0/24 10.20.0.1\ntask shop/web.1.aaaaaa shop/default=10.20.0.11\n"
	for text, want := range map[string]string{
		"network a/b 10.21.0.0 10.21.0.1\ntask a/x.1.b a/b=10.21.0.2":    `network a/b: subnet "10.21.0.0" is no IPv4 prefix`,
		"network a/b 10.21.0.0/24 10.22.0.1\ntask a/x.1.b a/b=10.21.0.2": `gateway "10.22.0.1" is not in 10.21.0.0/24`,
		"network a/b 10.21.0.0/24 10.21.0.1\ntask a/x.1.b a/b=10.22.0.2": `address "10.22.0.2" is not in 10.21.0.0/24`,
		"task a/x.1.b a/none=10.21.0.2":                                  "network a/none is not there",
		"task a/x.1.b shop/default=10.20.0.11":                           "has address 10.20.0.11 of network shop/default",
		"task ../x.1.b shop/default=10.20.0.12":                          "only letters, digits and ._-/ are allowed",
	} {
		k := newFake()
		n := newFakeNetwork(t, k)
		reached, err := n.Set(context.Background(), parseConfig(t, good+text))
		if err != nil {
			t.Errorf("%q: set failed: %v", text, err)
		}
		failures := 0
		for _, state := range reached.Endpoints {
			if state.Err != nil {
				failures++
				if !strings.Contains(state.Err.Error(), want) {
					t.Errorf("%q: error %q does not say %q", text, state.Err, want)
				}
			}
		}
		if failures != 1 || len(k.world) != 2 {
			t.Errorf("%q: %d endpoints failed, namespaces %v", text, failures, sorted(k.world))
		}
	}
}

func TestTheFirstOfTwoKeepsAPublishedPort(t *testing.T) {
	n := newFakeNetwork(t, newFake())
	reached, err := n.Set(t.Context(), parseConfig(t, `
		network a/b 10.20.0.0/24 10.20.0.1
		task a/one.1.x a/b=10.20.0.11 9000:80/tcp
		task a/two.1.x a/b=10.20.0.12 9000:80/tcp@10.99.0.1
		service a/one a/b=10.20.0.2 8080:80/tcp a/one.1.x
		service a/two a/b=10.20.0.3 8080:80/tcp 8080:80/udp a/two.1.x`))
	check(t, err)
	var got []string
	for _, c := range reached.Conflicts {
		got = append(got, fmt.Sprintf("%d/%s %s", c.Port.Published, c.Port.Protocol, c.By))
	}
	if want := []string{"8080/tcp a/one", "9000/tcp a/one.1.x"}; !slices.Equal(got, want) {
		t.Errorf("conflicts %q, want %q", got, want)
	}
}

func TestSocketsAreReadFromTheKernelsTables(t *testing.T) {
	got := parseSockets([]byte(`  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:0035 00000000:0000 0A 00000000:00000000
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000
   2: 0100007F:8000 0100007F:0035 01 00000000:00000000
   3: 0000000000000000FFFF00000200630A:0050 00000000000000000000000000000000:0000 0A 0
   4: 0000:0050 0000:0000 0A 0
   junk`), swarm.TCP, tcpListens)
	want := []swarm.Port{
		{Published: 53, Protocol: swarm.TCP, Host: true, Address: "127.0.0.1"},
		{Published: 8080, Protocol: swarm.TCP, Host: true},
		{Published: 80, Protocol: swarm.TCP, Host: true, Address: netip.AddrFrom4([4]byte{10, 99, 0, 2}).String()},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
