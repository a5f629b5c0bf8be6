package network

import (
	"testing"
)

func TestSpreadsConnectionsToAVIPOverItsBackends(t *testing.T) {
	l := newLab(t)
	l.config = shop(3)
	l.set()
	for i := 1; i <= 3; i++ {
		l.serve(web(i), 80)
	}
	t.Log(l.run("host", "nft", "list", "ruleset"))
	t.Log(l.run(client, "nft", "list", "ruleset"))
	t.Log(l.run(client, "ip", "addr"))
	t.Log(l.run("host", "ip", "addr"))
	t.Log(l.spread(client, "tcp", "10.20.0.2:80", 9))
	t.Log(l.spread(client, "udp", "10.20.0.2:80", 9))
	t.Log(l.spread("outside", "tcp", hostAddress+":8080", 9))
	t.Log(l.spread("host", "tcp", hostAddress+":8080", 9))
	t.Log(l.spread("host", "tcp", "127.0.0.1:8080", 9))
	t.Log(l.spread("host", "udp", "127.0.0.1:8080", 9))
	t.Log(l.spread(client, "tcp", hostAddress+":8080", 9))
	t.Log(l.spread(web(1), "tcp", "10.20.0.1:8080", 9))
	t.Log(l.network.Check(t.Context()))
}
