package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

func TestServicesReachEachOtherByNameAndStacksAreApart(t *testing.T) {
	w := settled(t, map[string]string{
		"shop/compose.yaml": `services:
  web: {image: "REGISTRY/app:v1", stop_grace_period: 1s, networks: [front, inner], ` + instant + `}
  api:
    image: REGISTRY/app:v1
    stop_grace_period: 1s
    networks: {front: {aliases: [backend]}}
    deploy: {replicas: 2, update_config: {monitor: 0s}}
  rr:
    image: REGISTRY/app:v1
    stop_grace_period: 1s
    networks: [front]
    deploy: {replicas: 2, endpoint_mode: dnsrr, update_config: {monitor: 0s}}
  locked: {image: "REGISTRY/app:v1", stop_grace_period: 1s, networks: [inner], ` + instant + `}
  alone: {image: "REGISTRY/app:v1", stop_grace_period: 1s, network_mode: none, ` + instant + `}
networks: {front: {}, inner: {internal: true}}
`,
		"other/compose.yaml": `services:
  web: {image: "REGISTRY/app:v2", stop_grace_period: 1s, networks: [default, shared], ` + instant + `}
networks: {shared: {external: true, name: shop_front}}
`,
		"third/compose.yaml": "services: {web: {image: \"REGISTRY/app:v3\", stop_grace_period: 1s, " + instant + "}}\n",
	})
	const web = "shop/web"

	addresses := func(target, name string) []string { return strings.Fields(w.in(target, "lookup", name)) }
	if got := addresses(web, "api"); len(got) != 1 {
		t.Errorf("api resolves to %v, want one virtual address", got)
	}
	for _, name := range []string{"tasks.api", "rr", "tasks.rr"} {
		if got := addresses(web, name); len(got) != 2 {
			t.Errorf("%s resolves to %v, want each of two replicas", name, got)
		}
	}
	for _, name := range []string{"api", "backend", "shop_api", "tasks.api", "rr", "shop_rr", "API"} {
		expect(t, "asking "+name, w.in(web, "get", "http://"+name+":8080/"), "hello from v1")
	}
	seen := map[string]bool{}
	for range 20 {
		seen[strings.Fields(w.in(web, "get", "http://api:8080/"))[4]] = true
	}
	if len(seen) != 2 {
		t.Errorf("the virtual address led to %v, want both replicas", seen)
	}
	expect(t, "the own name", w.in(web, "get", "http://web:8080/"), "hello from v1")
	expect(t, "another stack's web", w.in("other/web", "get", "http://web:8080/"), "hello from v2")
	expect(t, "a network that two stacks share", w.in("other/web", "get", "http://shop_api:8080/"), "hello from v1")

	for claim, ask := range map[string][2]string{
		"a name of another stack":                      {"third/web", "http://shop_api:8080/"},
		"an address of another stack":                  {"third/web", "http://" + addresses(web, "tasks.api")[0] + ":8080/"},
		"a virtual address of another stack":           {"third/web", "http://" + addresses(web, "api")[0] + ":8080/"},
		"a network that the service is not on":         {"shop/locked", "http://api:8080/"},
		"the machine, from a network that is internal": {"shop/locked", "http://" + w.Registry + "/v2/"},
		"anything without a network":                   {"shop/alone", "http://api:8080/"},
	} {
		if text, exit := w.Run(t.Context(), "exec", ask[0], "--", "/app", "get", ask[1]); exit == 0 {
			t.Errorf("%s can be reached: %s got %s: %s", claim, ask[0], ask[1], text)
		}
	}
	expect(t, "an internal network inside", w.in("shop/locked", "get", "http://web:8080/"), "hello from v1")

	outside := newOutside(t)
	expect(t, "the way out", w.in(web, "get", outside.url+"/"), "outside")
	if text, exit := w.Run(t.Context(), "exec", "shop/locked", "--", "/app", "get", outside.url+"/"); exit == 0 {
		t.Errorf("an internal network has a way out: %s", text)
	}
}

func TestPublishedPortsAnswerAndMoveBetweenServices(t *testing.T) {
	ports := freePorts(t, 3)
	stack := func(first, second string) string {
		return fmt.Sprintf(`services:
  one: {image: "REGISTRY/app:v1", stop_grace_period: 1s%s, deploy: {replicas: 2, update_config: {monitor: 0s}}}
  two: {image: "REGISTRY/app:v2", stop_grace_period: 1s%s, %s}
`, first, second, instant)
	}
	port := func(published int, more string) string {
		return fmt.Sprintf(", ports: [{target: 8080, published: \"%d\"%s}]", published, more)
	}
	w := settled(t, map[string]string{"shop/compose.yaml": stack(port(ports[0], ""), port(ports[1], ", mode: host"))})
	outside := newOutside(t)

	for claim, ask := range map[string]struct{ address, want string }{
		"ingress, from the machine":   {fmt.Sprintf("127.0.0.1:%d", ports[0]), "hello from v1"},
		"ingress, from outside":       {fmt.Sprintf("%s:%d", outside.gateway, ports[0]), "hello from v1"},
		"host mode, from the machine": {fmt.Sprintf("127.0.0.1:%d", ports[1]), "hello from v2"},
		"host mode, from outside":     {fmt.Sprintf("%s:%d", outside.gateway, ports[1]), "hello from v2"},
	} {
		var said string
		if strings.Contains(claim, "outside") {
			said = outside.ask(t, ask.address)
			expect(t, claim+": the client's address", said, "to "+outside.address)
		} else {
			said = askOnce(t, ask.address)
		}
		expect(t, claim, said, ask.want)
	}
	seen := map[string]bool{}
	for range 20 {
		seen[strings.Fields(outside.ask(t, fmt.Sprintf("%s:%d", outside.gateway, ports[0])))[4]] = true
	}
	if len(seen) != 2 {
		t.Errorf("the ingress port led to %v, want both replicas", seen)
	}
	expect(t, "a published port, from a container", w.in("shop/two", "get", fmt.Sprintf("http://%s:%d/", outside.gateway, ports[0])), "hello from v1")

	w.wait(w.push(map[string]string{"shop/compose.yaml": stack("", port(ports[0], ""))}), 0)
	w.until("the port leads to the other service", func() bool {
		return strings.Contains(askOnce(t, fmt.Sprintf("127.0.0.1:%d", ports[0])), "hello from v2")
	})
	if conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", ports[1]), time.Second); err == nil {
		conn.Close()
		t.Error("a port that nobody publishes any more still answers")
	}

	w.push(map[string]string{"shop/compose.yaml": stack(port(ports[2], ", mode: host"), port(ports[0], ""))})
	w.until("status says that one machine has each port once", func() bool {
		said := w.run(0, "status", "-a")
		return strings.Contains(said, "waiting") && strings.Contains(said, fmt.Sprintf("port %d/tcp is held", ports[2]))
	})
	commit := w.push(map[string]string{"shop/compose.yaml": strings.Replace(stack(port(ports[0], ""), ""), "deploy: {", "deploy: {endpoint_mode: dnsrr, ", 1)})
	expect(t, "round robin behind an ingress port", w.wait(commit, 4), "dnsrr", "compose.yaml:")
}

// askOnce asks an address once, and returns what it or the attempt said.
func askOnce(t *testing.T, address string) string {
	t.Helper()
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + address + "/")
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	return string(text)
}

func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		port, err := lab.FreePort()
		must(t, err)
		ports = append(ports, port)
	}
	return ports
}

// outside is a network namespace beside this machine's own, joined by a cable:
// a client from elsewhere, and a server that containers may ask.
type outside struct {
	name, address, gateway, url string
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	id := os.Getpid() % 60 // tests may run side by side
	name, cable := fmt.Sprintf("gitswarm-e2e-%d", id), fmt.Sprintf("gse2e%d", id)
	o := &outside{name: name, gateway: fmt.Sprintf("198.51.100.%d", 4*id+1), address: fmt.Sprintf("198.51.100.%d", 4*id+2)}
	o.url = "http://" + o.address + ":8080"
	t.Cleanup(func() {
		_ = exec.Command("ip", "netns", "del", name).Run() // it takes the cable along
	})
	for _, command := range []string{
		"ip netns add " + name,
		"ip link add " + cable + " type veth peer name " + cable + "o netns " + name,
		"ip addr add " + o.gateway + "/30 dev " + cable,
		"ip link set " + cable + " up",
		"ip -n " + name + " addr add " + o.address + "/30 dev " + cable + "o",
		"ip -n " + name + " link set " + cable + "o up",
		"ip -n " + name + " link set lo up",
	} {
		words := strings.Fields(command)
		shell(t, ".", words[0], words[1:]...)
	}
	server := exec.Command("ip", "netns", "exec", name, shared.App)
	server.Env = []string{"APP_VERSION=outside"}
	must(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // reports the signal that was just sent
	})
	must(t, lab.Poll(t.Context(), 5*time.Second, "the outside answers", func() bool { return strings.Contains(askOnce(t, o.address+":8080"), "outside") }))
	return o
}

// ask asks an address from outside.
func (o *outside) ask(t *testing.T, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var both bytes.Buffer
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", o.name, shared.App, "get", "http://"+address+"/")
	cmd.Stdout, cmd.Stderr = &both, &both
	_ = cmd.Run() // what it printed says why
	return both.String()
}
