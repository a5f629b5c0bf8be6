package network

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// picture is all that a namespace shows of its network, counters left out.
func (l *lab) picture(where string) string {
	return l.run(where, "nft", "-s", "list", "ruleset") + l.run(where, "ip", "link") +
		l.run(where, "ip", "-br", "addr") + l.run(where, "ip", "route")
}

func TestARestartChangesNothingOnTheWire(t *testing.T) {
	l := newShop(t)
	conn, err := l.dial(client, "tcp", vip)
	check(t, err)
	defer conn.Close()
	_, _, err = converse(conn)
	check(t, err)
	stop := l.hammer("outside", hostAddress+":8080")
	places := []string{"host", client, web(1)}
	var before []string
	for _, p := range places {
		before = append(before, l.picture(p))
	}

	l.network.Close()
	if _, err := l.query(client, "udp", "web", dns.TypeA); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without a daemon a lookup should be refused at once: %v", err)
	}
	began := time.Now()
	l.open()
	l.set()
	t.Logf("open and set of four endpoints: %v", time.Since(began))

	for i, p := range places {
		if after := l.picture(p); after != before[i] {
			t.Errorf("%s changed from\n%s\nto\n%s", p, before[i], after)
		}
	}
	if got := l.lookup(client, "web", dns.TypeA); got != "NOERROR 10.20.0.2" {
		t.Errorf("lookup: %s", got)
	}
	if _, _, err := converse(conn); err != nil {
		t.Errorf("the connection ended: %v", err)
	}
	if answers, failures, first := stop(); failures > 0 || answers == 0 {
		t.Errorf("%d of %d requests failed: %v", failures, answers+failures, first)
	}
}

func TestARestartRemovesWhatIsNoLongerWanted(t *testing.T) {
	l := newShop(t)
	l.network.Close()
	l.open()
	l.config = shop(1)
	l.set()
	spaces, err := l.network.kernel.spaces()
	check(t, err)
	if want := []string{"shop~client.1.bbbbbb", "shop~web.1.aaaaaa"}; !slices.Equal(spaces, want) {
		t.Errorf("namespaces %v, want %v", spaces, want)
	}
	l.eventually(func() string {
		if links := l.run("host", "ip", "-br", "link", "show", "type", "veth"); strings.Count(links, "gsv") != 2 {
			return "links\n" + links
		}
		return ""
	})
}

func TestCheckPutsRightWhatOthersBroke(t *testing.T) {
	l := newShop(t)
	bridge, end := l.network.names.bridge("shop/default"), l.network.names.veth(client, "shop/default")
	for _, c := range []struct {
		what, where string
		command     []string
		finds       string
	}{
		{"a rule of the host's table", "host", []string{"nft", "flush", "chain", "ip", "gitswarm_gs", "published"}, "nft add rule ip gitswarm_gs published"},
		{"the host's table", "host", []string{"nft", "delete", "table", "ip", "gitswarm_gs"}, "nft add table ip gitswarm_gs"},
		{"all tables", "host", []string{"nft", "flush", "ruleset"}, "nft add table ip gitswarm_gs"},
		{"an element in a container", client, []string{"nft", "flush", "map", "ip", "gitswarm_gs", "vips"}, "nft add element ip gitswarm_gs vips"},
		{"a foreign element", "host", []string{"nft", "add", "element", "ip", "gitswarm_gs", "ports", "{ tcp . 99 : goto p3-14 }"}, "nft delete element ip gitswarm_gs ports { tcp . 99 : goto p3-14 }"},
		{"a link down", "host", []string{"ip", "link", "set", end, "down"}, "ip link set " + end},
		{"a link off its bridge", "host", []string{"ip", "link", "set", end, "nomaster"}, "master " + bridge},
		{"a link", "host", []string{"ip", "link", "del", end}, "ip link add " + end},
		{"a route", client, []string{"ip", "route", "del", "default"}, "ip route replace default"},
		{"an address", client, []string{"ip", "addr", "flush", "dev", "eth0"}, "ip addr add 10.20.0.100/24"},
		{"the bridge", "host", []string{"ip", "link", "del", bridge}, "ip link add " + bridge},
		{"forwarding", "host", []string{"sysctl", "-qw", "net.ipv4.ip_forward=0"}, "sysctl -w net.ipv4.ip_forward=1"},
	} {
		l.run(c.where, c.command...)
		found, err := l.network.Check(t.Context())
		check(t, err)
		if !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, c.finds) }) {
			t.Errorf("%s: found %q, want %q", c.what, found, c.finds)
		}
		if again, err := l.network.Check(t.Context()); err != nil || len(again) > 0 {
			t.Errorf("%s: not put right: %q, %v", c.what, again, err)
		}
		for from, to := range map[string]string{client: vip, "outside": hostAddress + ":8080"} {
			if got := l.spread(from, "tcp", to, 3); !maps.Equal(got, evenly(1)) {
				t.Errorf("%s: from %s %v", c.what, from, got)
			}
		}
	}
}

func TestANamespaceThatACrashLeftHalfMadeIsMadeAnew(t *testing.T) {
	l := newShop(t)
	l.network.Close()
	check(t, unix.Unmount(l.path(client), unix.MNT_DETACH)) // the file stays
	l.open()
	l.set()
	if got := l.spread(client, "tcp", vip, 3); !maps.Equal(got, evenly(1)) {
		t.Errorf("got %v", got)
	}
}

func TestDestroyLeavesNothing(t *testing.T) {
	l := newLab(t)
	mounts := func() int {
		b, err := os.ReadFile("/proc/thread-self/mountinfo")
		check(t, err)
		return strings.Count(string(b), l.dir)
	}
	forwarding := func() string { return l.run("host", "sysctl", "net.ipv4.ip_forward") }
	l.eventually(func() string { // a new link settles
		if p := l.picture("host"); strings.Contains(p, "NO-CARRIER") {
			return p
		}
		return ""
	})
	picture, mounted, forwarded := l.picture("host"), mounts(), forwarding()

	l.config = shop(3)
	l.set()
	check(t, l.network.Destroy(context.Background()))
	if after := l.picture("host"); after != picture {
		t.Errorf("left\n%s\nwant\n%s", after, picture)
	}
	if after := mounts(); after != mounted {
		t.Errorf("%d mounts left, want %d", after, mounted)
	}
	if after := forwarding(); after != forwarded {
		t.Errorf("left %s", after)
	}

	l.set() // and it can begin again
	l.serve(web(1), 80)
	if name, _, err := l.ask(client, "tcp", "10.20.0.11:80"); err != nil || name != web(1) {
		t.Errorf("after a new start: %s, %v", name, err)
	}
}
