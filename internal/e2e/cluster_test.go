package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

const managers = 3

// five are the hosts that the tests of a cluster share: n1, n2 and n3 begin as
// managers, n4 and n5 as workers. They are set up by the first test that wants
// them.
var five hosts

type hosts struct {
	*lab.Cluster
	repo *lab.Repo
}

func (f *hosts) close() error {
	if f.Cluster == nil {
		return nil
	}
	cluster := f.Cluster
	f.Cluster, f.repo = nil, nil
	return cluster.Close()
}

// A cluster is the shared hosts in the hands of one test.
type cluster struct {
	*hosts
	t *testing.T
}

// calm returns the shared cluster with every host on, connected, and in the
// role that it began with.
func calm(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{hosts: &five, t: t}
	if five.Cluster != nil && c.settle() != nil {
		must(t, five.close()) // an earlier test broke it, and said so
	}
	if five.Cluster == nil {
		must(t, c.form())
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.explain()
		}
	})
	return c
}

// form sets up the hosts and makes them a cluster that follows a repository.
func (c *cluster) form() (err error) {
	if c.Cluster, err = shared.NewCluster(5); err != nil {
		return err
	}
	return c.furnish()
}

// furnish starts the daemons of new hosts, and makes them the cluster.
func (c *cluster) furnish() (err error) {
	for tag, env := range map[string][]string{"v1": nil, "v2": nil} {
		if err := c.PushApp(tag, env...); err != nil {
			return err
		}
	}
	var url string
	if c.repo, url, err = c.NewRepo("repo"); err != nil {
		return err
	}
	if _, err := c.repo.Push("begin"); err != nil {
		return err
	}
	for _, h := range c.Hosts {
		if err := h.StartDaemon(c.t.Context()); err != nil {
			return fmt.Errorf("%w\n%s", err, h.Log(4000))
		}
	}
	run := lab.Typed(c.t.Context())
	if err := c.Form(managers, run); err != nil {
		return err
	}
	if _, err := run(c.Hosts[0], "source", "add", "--repo", url, "--branch", "main", "--yes"); err != nil {
		return err
	}
	return c.settle()
}

// settle turns on what is off, connects what is cut off, and waits until every
// node is ready.
func (c *cluster) settle() error {
	for _, h := range c.Hosts {
		if !h.Booted() {
			if err := h.Boot(); err != nil {
				return err
			}
		}
		if err := h.Heal(); err != nil {
			return err
		}
		if !h.On() {
			if err := h.StartDaemon(c.t.Context()); err != nil {
				return err
			}
		}
		h.Resume()
	}
	return lab.Poll(c.t.Context(), time.Minute, "all nodes are ready, three of them managers", func() bool {
		nodes, err := c.Hosts[0].Nodes(c.t.Context())
		if err != nil {
			return false
		}
		for i, h := range c.Hosts {
			if node := nodes[h.Name]; node.State != "ready" || node.Availability != "active" || (node.Role == "worker") != (i >= managers) {
				return false
			}
		}
		return true
	})
}

// explain prints what helps to understand a failure.
func (c *cluster) explain() {
	if c.Cluster == nil {
		return
	}
	for _, h := range c.Hosts {
		for _, args := range [][]string{{"status", "-a"}, {"node", "ls", "-o", "wide"}, {"ps", "-a"}} {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			text, exit := h.Run(ctx, args...)
			cancel()
			c.t.Logf("%s$ gitswarm %s (exit %d)\n%s", h.Name, strings.Join(args, " "), exit, text)
		}
		c.t.Logf("the log of %s ends:\n%s", h.Name, h.Log(6000))
	}
}

// on runs a command on a host and expects an exit code.
func (c *cluster) on(h *lab.Host, want int, args ...string) (output string) {
	c.t.Helper()
	text, exit := h.Run(c.t.Context(), args...)
	if exit != want {
		c.t.Fatalf("gitswarm %s on %s: exit %d, want %d\n%s", strings.Join(args, " "), h.Name, exit, want, text)
	}
	return text
}

// until polls a claim of the test.
func (c *cluster) until(claim string, what func() bool) {
	c.t.Helper()
	must(c.t, lab.Poll(c.t.Context(), time.Minute, claim, what))
}

// deploy pushes a stack "shop" with a service "web" of so many replicas, and
// waits until it is healthy. Lines are added to the service and to its deploy.
func (c *cluster) deploy(replicas int, service, deploy string) {
	c.t.Helper()
	text := fmt.Sprintf("services:\n  web:\n    image: %s/app:v1\n    stop_grace_period: 2s\n    environment: {TEST: %q}\n%s    deploy:\n      replicas: %d\n      update_config: {monitor: 0s, parallelism: 0}\n%s",
		c.Registry, c.t.Name(), service, replicas, deploy)
	must(c.t, c.repo.Write(map[string]string{"shop/compose.yaml": text}))
	commit, err := c.repo.Push("shop: " + c.t.Name())
	must(c.t, err)
	c.on(c.leader(), 0, "status", "--wait", "--revision", commit, "--timeout", "90s")
	c.expectExactly(replicas, "every replica runs once", c.Hosts...)
}

// leader waits until there is one.
func (c *cluster) leader() (leader *lab.Host) {
	c.t.Helper()
	c.until("there is a leader", func() bool {
		leader = c.Leader(c.t.Context())
		return leader != nil
	})
	return leader
}

// others are the hosts but those given.
func (c *cluster) others(but ...*lab.Host) []*lab.Host {
	return slices.DeleteFunc(slices.Clone(c.Hosts), func(h *lab.Host) bool { return slices.Contains(but, h) })
}

// node asks a manager for a node.
func (c *cluster) node(at, h *lab.Host) lab.Node {
	c.t.Helper()
	nodes, err := at.Nodes(c.t.Context())
	must(c.t, err)
	return nodes[h.Name]
}

// running lists the containers of some hosts by the kernel's word, as
// "process hostname".
func running(t *testing.T, hosts ...*lab.Host) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	for _, h := range hosts {
		its, err := h.Containers()
		must(t, err)
		for _, p := range its {
			found[p.ID+" "+p.Hostname] = true
		}
	}
	return found
}

// slots counts how often each slot runs: a container's hostname ends with what
// tells its task from others of its slot.
func slots(running map[string]bool) map[string]int {
	count := make(map[string]int)
	for container := range running {
		_, hostname, _ := strings.Cut(container, " ")
		count[hostname[:strings.LastIndexByte(hostname, '-')]]++
	}
	return count
}

// exactly reports whether n slots run, each once.
func exactly(n int, running map[string]bool) bool {
	return len(running) == n && len(slots(running)) == n
}

// expectExactly waits until that holds for some hosts.
func (c *cluster) expectExactly(n int, claim string, hosts ...*lab.Host) {
	c.t.Helper()
	err := lab.Poll(c.t.Context(), time.Minute, claim, func() bool { return exactly(n, running(c.t, hosts...)) })
	if err != nil {
		c.t.Fatalf("%v; these run: %v", err, slices.Sorted(maps.Keys(running(c.t, hosts...))))
	}
}

// survivors are those of before that still run.
func survivors(before, after map[string]bool) int {
	n := 0
	for container := range before {
		if after[container] {
			n++
		}
	}
	return n
}
