package network

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestNetworksAreKeptApart(t *testing.T) {
	l := newLab(t)
	l.config = parseConfig(t, `
		network shop/default 10.20.0.0/24 10.20.0.1
		network blog/default 10.21.0.0/24 10.21.0.1
		network blog/closed 10.22.0.0/24 10.22.0.1 internal
		task shop/web.1.aaaaaa shop/default=10.20.0.11
		task blog/web.1.aaaaaa blog/default=10.21.0.11
		task blog/db.1.aaaaaa blog/closed=10.22.0.11
		service blog/web blog/default=10.21.0.2 8080:80/tcp blog/web.1.aaaaaa
		service blog/db blog/closed=10.22.0.2 8090:80/tcp blog/db.1.aaaaaa`)
	l.set()
	for _, where := range []string{"shop/web.1.aaaaaa", "blog/web.1.aaaaaa", "blog/db.1.aaaaaa", "outside"} {
		l.serve(where, 80)
	}
	l.serve("host", 81)
	l.run("host", "ip", "addr", "add", "169.254.169.254/32", "dev", "lo")
	l.run("outside", "ip", "route", "add", "10.20.0.0/14", "via", hostAddress)

	for _, c := range []struct{ from, to string }{
		{"shop/web.1.aaaaaa", "10.21.0.11:80"}, // another network's container
		{"shop/web.1.aaaaaa", "10.21.0.2:80"},  // another network's VIP
		{"shop/web.1.aaaaaa", "10.21.0.1:81"},  // another network's gateway
		{"shop/web.1.aaaaaa", "10.22.0.11:80"},
		{"shop/web.1.aaaaaa", "169.254.1.1:80"},
		{"blog/db.1.aaaaaa", "10.22.0.1:81"}, // an internal network: not even the node
		{"blog/db.1.aaaaaa", hostAddress + ":81"},
		{"blog/db.1.aaaaaa", outsideAddress + ":80"},
		{"blog/db.1.aaaaaa", hostAddress + ":8080"},
		{"outside", "10.20.0.11:80"}, // nobody routes in
		{"outside", "10.22.0.11:80"},
	} {
		began := time.Now()
		if name, _, err := l.ask(c.from, "tcp", c.to); err == nil {
			t.Errorf("%s reached %s: %s", c.from, c.to, name)
		} else if time.Since(began) > time.Second {
			t.Errorf("%s was kept waiting for %s: %v", c.from, c.to, err)
		}
	}
	for _, c := range []struct{ from, to, want, seen string }{
		{"shop/web.1.aaaaaa", outsideAddress + ":80", "outside", hostAddress},           // masqueraded
		{"shop/web.1.aaaaaa", hostAddress + ":81", "host", "10.20.0.11"},                // the node's own services
		{"shop/web.1.aaaaaa", hostAddress + ":8080", "blog/web.1.aaaaaa", "10.20.0.11"}, // published ports
		{"outside", hostAddress + ":8090", "blog/db.1.aaaaaa", outsideAddress},          // of internal networks too
	} {
		if name, seen, err := l.ask(c.from, "tcp", c.to); err != nil || name != c.want || seen != c.seen {
			t.Errorf("from %s to %s: %s saw %s (%v), want %s to see %s", c.from, c.to, name, seen, err, c.want, c.seen)
		}
	}
}

func TestAContainerCannotReachTheNodesLoopback(t *testing.T) {
	l := newShop(t)
	l.serve("host", 81)
	// What a container with CAP_NET_ADMIN can do to its own namespace.
	l.run(client, "ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
	l.run(client, "ip", "route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local")
	l.run(client, "sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1", "net.ipv4.conf.all.route_localnet=1")
	l.run(client, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
	l.run(client, "ip", "route", "add", "127.0.0.1", "via", "10.20.0.1")
	if name, _, err := l.ask(client, "tcp", "127.0.0.1:81"); err == nil {
		t.Errorf("reached %s", name)
	}
}

func TestAContainerCannotPretendToBeOnAnotherNetwork(t *testing.T) {
	l := newShop(t)
	udp := make(chan string, 1)
	var server net.PacketConn
	check(t, inside(l.path("outside"), func() (err error) {
		server, err = net.ListenPacket("udp4", ":99")
		return err
	}))
	defer server.Close()
	go func() {
		b := make([]byte, 16)
		for {
			n, _, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			udp <- string(b[:n])
		}
	}()

	send := func(from, text string) {
		check(t, inside(l.path(client), func() error {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
			c, err := d.Dial("udp", outsideAddress+":99")
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = io.WriteString(c, text)
			return err
		}))
	}
	l.run(client, "ip", "addr", "add", "10.77.0.1/32", "dev", "eth0")
	send("10.77.0.1", "forged")
	send("10.20.0.100", "honest")
	if got := <-udp; got != "honest" {
		t.Errorf("a %s packet came through", got)
	}
}

func TestRefusesANetworkThatWouldTakeTheNodesAddresses(t *testing.T) {
	l := newLab(t)
	l.config = parseConfig(t, `
		network shop/default 10.99.0.0/16 10.99.7.1
		network blog/default 10.20.0.0/24 10.20.0.1
		task shop/web.1.aaaaaa shop/default=10.99.7.11
		task blog/web.1.aaaaaa blog/default=10.20.0.11`)
	reached := l.set()
	err := reached.Endpoints[swarm.TaskID(web(1))].Err
	if err == nil || !strings.Contains(err.Error(), "subnet 10.99.0.0/16 overlaps 10.99.0.1/24 of the node's link eth0") {
		t.Errorf("the endpoint's error is %v", err)
	}
	if err := reached.Endpoints["blog/web.1.aaaaaa"].Err; err != nil {
		t.Error(err)
	}
	l.serve("outside", 80)
	if _, _, err := l.ask("host", "tcp", outsideAddress+":80"); err != nil {
		t.Errorf("the node lost its own network: %v", err)
	}
}
