package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// TestTheLabsHostsAreApart holds what every test of a cluster relies on.
func TestTheLabsHostsAreApart(t *testing.T) {
	c, err := shared.NewCluster(3)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	one, two, three := c.Hosts[0], c.Hosts[1], c.Hosts[2]
	for _, h := range c.Hosts {
		for _, port := range []string{"2377", "9999"} {
			_, err := h.Spawn("httpd", nil, "busybox", "httpd", "-f", "-p", port, "-h", "/run")
			must(t, err)
		}
	}
	reaches := func(from, to *lab.Host, port int) bool {
		_, err := from.Exec(t.Context(), "timeout", "0.5", "bash", "-c", fmt.Sprintf(": > /dev/tcp/%s/%d", to.Address, port))
		return err == nil
	}
	expectReach := func(claim string, want bool, from, to *lab.Host, port int) {
		t.Helper()
		err := lab.Poll(t.Context(), 5*time.Second, claim, func() bool { return reaches(from, to, port) == want })
		if err != nil {
			t.Errorf("from %s to %s: %v", from.Name, to.Name, err)
		}
	}
	expectReach("hosts reach each other", true, one, two, 2377)

	must(t, two.Cut())
	expectReach("nobody reaches a host that is cut off", false, one, two, 2377)
	expectReach("the others still do", true, one, three, 2377)
	must(t, two.Heal())
	expectReach("a link is whole again", true, one, two, 2377)

	must(t, one.Deafen(two))
	expectReach("a deaf host hears no answer", false, one, two, 2377)
	expectReach("it hears the others", true, one, three, 2377)
	must(t, one.Heal())

	must(t, two.Silence(2377))
	expectReach("a silent port is not reached", false, one, two, 2377)
	expectReach("nor does a silent host reach others there", false, two, three, 2377)
	expectReach("other ports are", true, one, two, 9999)

	must(t, two.Crash())
	expectReach("a host without power is not reached", false, three, two, 9999)
	must(t, two.Boot())
	if text, err := two.Exec(t.Context(), "ls", "/run"); err != nil || text != "" {
		t.Errorf("/run holds %q after a boot (%v), want nothing", text, err)
	}
}
