package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

func TestAnyManagerAnswersAndTakesWrites(t *testing.T) {
	c := calm(t)
	c.deploy(3, "", "")
	for i, h := range c.Hosts[:managers] {
		c.on(h, 0, "status")
		c.on(h, 0, "scale", fmt.Sprintf("shop/web=%d", 4+i))
		c.expectExactly(4+i, "what "+h.Name+" was told is done", c.Hosts...)
		for _, asked := range c.Hosts[:managers] {
			expect(t, asked.Name, c.on(asked, 0, "exec", "shop/web", "--", "/app", "cat", "/etc/hostname"), "shop-web-")
		}
	}
}

func TestAnotherManagerLeadsWhenTheLeaderDiesAndNoTaskNotices(t *testing.T) {
	c := calm(t)
	c.deploy(5, "", "")
	old := c.leader()
	before, elsewhere := running(t, c.Hosts...), running(t, c.others(old)...)
	old.Kill()
	began := time.Now()
	next := c.others(old)[0]
	c.until("a write is accepted", func() bool {
		_, exit := next.Run(t.Context(), "scale", "shop/web=6")
		return exit == 0
	})
	t.Logf("a write was accepted %s after the leader's death", time.Since(began).Round(time.Millisecond))
	c.until("the sixth replica runs", func() bool { return len(running(t, c.others(old)...)) >= 6-len(running(t, old)) })
	if n := survivors(before, running(t, c.Hosts...)); n != len(before) {
		t.Errorf("%d of %d containers live on, want all", n, len(before))
	}

	leader := c.leader()
	must(t, old.StartDaemon(t.Context()))
	c.until("the old leader is back", func() bool { return c.node(leader, old).State == "ready" && c.node(old, old).Role == "manager" })
	if now := c.leader(); now != leader {
		t.Errorf("%s leads after the return of %s, want %s as before", now.Name, old.Name, leader.Name)
	}
	c.expectExactly(6, "every replica runs once", c.Hosts...)
	if n := survivors(elsewhere, running(t, c.Hosts...)); n != len(elsewhere) {
		t.Errorf("%d of %d containers of other nodes live on after its return, want all", n, len(elsewhere))
	}
}

func TestWithoutAQuorumWritesAreRefusedWithTheReasonAndTasksGoOn(t *testing.T) {
	c := calm(t)
	c.deploy(5, "", "")
	before := running(t, c.Hosts...)
	left := c.Hosts[1]
	for _, h := range c.Hosts[:managers] {
		if h != left {
			h.Kill()
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	text, exit := left.Run(ctx, "scale", "shop/web=9")
	if exit == 0 || exit == -1 || !strings.Contains(text, "quorum") {
		t.Errorf("scale exited %d, want a refusal that speaks of the quorum:\n%s", exit, text)
	}
	text, exit = left.Run(ctx, "status")
	if exit != 1 || !strings.Contains(text, "quorum") {
		t.Errorf("status exited %d, want 1 and the reason:\n%s", exit, text)
	}
	if n := survivors(before, running(t, c.Hosts...)); n != len(before) {
		t.Errorf("%d of %d containers run without a quorum, want all", n, len(before))
	}

	for _, h := range c.others(left)[:managers-1] {
		must(t, h.StartDaemon(t.Context()))
	}
	c.until("writes are taken again", func() bool {
		_, exit := left.Run(t.Context(), "scale", "shop/web=6")
		return exit == 0
	})
	c.expectExactly(6, "what was refused was not done", c.Hosts...)
	if n := survivors(before, running(t, c.Hosts...)); n != len(before) {
		t.Errorf("%d of %d containers outlived the loss of the quorum, want all", n, len(before))
	}
}

func TestADemotedLeaderHandsOverAndTheLastManagerStays(t *testing.T) {
	c := calm(t)
	c.deploy(3, "", "")
	before := running(t, c.Hosts...)

	first := c.leader()
	rest := c.others(first, c.Hosts[3], c.Hosts[4])
	c.on(rest[0], 0, "node", "demote", first.Name)
	c.until("another leads, and "+first.Name+" is a worker", func() bool {
		leader := c.Leader(t.Context())
		return leader != nil && leader != first && c.node(leader, first).Role == "worker"
	})
	second := c.leader()
	last := c.others(first, second, c.Hosts[3], c.Hosts[4])[0]
	c.on(last, 0, "node", "demote", second.Name)
	c.until(last.Name+" is the only manager", func() bool { return c.node(last, second).Role == "worker" })
	expect(t, "the refusal", c.on(last, 1, "node", "demote", last.Name), "last manager")

	c.on(last, 0, "node", "promote", first.Name, second.Name)
	for _, h := range []*lab.Host{first, second} {
		c.until(h.Name+" is a manager again", func() bool {
			_, exit := h.Run(t.Context(), "scale", "shop/web=3")
			return exit == 0
		})
	}
	if n := survivors(before, running(t, c.Hosts...)); n != len(before) {
		t.Errorf("%d of %d containers lived through the changes of role, want all", n, len(before))
	}
}

func TestWhenAllManagersAreDownWorkersGoOnAndStartAgain(t *testing.T) {
	c := calm(t)
	c.deploy(10, "", "")
	workers := c.Hosts[managers:]
	before := running(t, workers...)
	for _, h := range c.Hosts[:managers] {
		must(t, h.Crash())
	}
	pause(t, 4*time.Second) // longer than it takes to call a node down

	for _, h := range workers {
		h.Kill()
		must(t, h.StartDaemon(t.Context()))
	}
	if n := survivors(before, running(t, workers...)); n != len(before) || n == 0 {
		t.Fatalf("%d of %d containers run without managers, want all", n, len(before))
	}
	rebooted := workers[1]
	assigned := slots(running(t, rebooted))
	must(t, rebooted.Crash())
	must(t, rebooted.Boot())
	must(t, rebooted.StartDaemon(t.Context()))
	c.until("a machine that was restarted runs what it was last assigned", func() bool {
		now := slots(running(t, rebooted))
		return fmt.Sprint(now) == fmt.Sprint(assigned)
	})

	for _, h := range c.Hosts[:managers] {
		must(t, h.Boot())
		must(t, h.StartDaemon(t.Context()))
	}
	must(t, c.settle())
	c.expectExactly(10, "every replica runs once", c.Hosts...)
	if n := survivors(running(t, workers[0]), before); n == 0 {
		t.Errorf("%s runs none of the containers that it had, want them left alone", workers[0].Name)
	}
}
