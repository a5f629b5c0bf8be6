package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// gitswarmPort is where managers listen: what is silenced when a node dies.
const gitswarmPort = 2377

// gitswarm is this project's side.
type gitswarm struct {
	cluster *lab.Cluster
	repo    *lab.Repo
	config  string // file that lets the stacks use the hosts' network
}

func (g *gitswarm) form(ctx context.Context) (err error) {
	var url string
	if g.repo, url, err = g.cluster.NewRepo("stacks"); err != nil {
		return err
	}
	if _, err := g.repo.Push("begin"); err != nil {
		return err
	}
	text := "allow:\n"
	for i := range 100 {
		text += fmt.Sprintf("- {stack: s%d, rule: host-namespace}\n", i)
	}
	g.config = filepath.Join(filepath.Dir(g.repo.Work), "gitswarm.yaml")
	if err := os.WriteFile(g.config, []byte(text), 0o600); err != nil {
		return err
	}
	for _, h := range g.cluster.Hosts {
		if err := g.start(ctx, h); err != nil {
			return err
		}
	}
	run := lab.Typed(ctx)
	if err := g.cluster.Form(managers, run); err != nil {
		return err
	}
	_, err = run(g.cluster.Hosts[0], "source", "add", "--repo", url, "--branch", "main", "--yes")
	return err
}

func (g *gitswarm) start(ctx context.Context, h *lab.Host) error {
	if err := h.Heal(); err != nil {
		return err
	}
	if err := h.StartDaemon(ctx, "--config", g.config); err != nil {
		return fmt.Errorf("%w\nits log:\n%s", err, h.Log(4000))
	}
	return nil
}

// compose is the workload for either side; network is how it gets the hosts'.
func compose(w workload, image, head, network, tail string) string {
	environment := fmt.Sprintf("%q, APP_SLOW_START=24h", versionEnv+w.version)
	if w.bad {
		environment += ", APP_EXIT_AFTER=200ms, APP_EXIT_CODE=1"
	}
	order, monitor, place := "stop-first", "0s", ""
	if w.order != "" {
		order = w.order
	}
	if w.monitor != "" {
		monitor = w.monitor
	}
	if w.workers {
		place = "      placement: {constraints: [node.role == worker]}\n"
	}
	return fmt.Sprintf(`%sservices:
  app:
    image: %s
    %s
    stop_grace_period: 2s
    environment: [%s]
    deploy:
      replicas: %d
%s      update_config: {parallelism: 1, delay: 0s, monitor: %s, failure_action: rollback, max_failure_ratio: 0, order: %s}
      rollback_config: {parallelism: 0, monitor: 0s, order: %s}
%s`, head, image, network, environment, w.replicas, place, monitor, order, order, tail)
}

func (g *gitswarm) prepare(w workload) (func(context.Context) error, error) {
	text := compose(w, g.cluster.Registry+"/app:v1", "", "network_mode: host", "")
	if err := g.repo.Write(map[string]string{w.name + "/compose.yaml": text}); err != nil {
		return nil, err
	}
	commit, err := g.repo.Commit("change " + w.name)
	if err != nil {
		return nil, err
	}
	want := 0
	if w.bad {
		want = 2
	}
	return func(ctx context.Context) error {
		if err := g.repo.Send(); err != nil {
			return err
		}
		text, exit := g.cluster.Hosts[0].Run(ctx, "status", "--wait", "--revision", commit, "--timeout", "170s")
		if exit != want {
			return fmt.Errorf("gitswarm status --wait exited %d, want %d: %s", exit, want, text)
		}
		return nil
	}, nil
}

// remove takes all replicas away: taking the stack away asks for approval.
func (g *gitswarm) remove(ctx context.Context, w workload) error {
	w.replicas, w.bad = 0, false
	apply, err := g.prepare(w)
	if err != nil {
		return err
	}
	return apply(ctx)
}

func (g *gitswarm) groups(h *lab.Host) string { return h.GroupsOf("pids") }

func (g *gitswarm) own(executable, _ string) bool {
	return strings.HasSuffix(executable, "/bin/gitswarm")
}

func (g *gitswarm) daemons(h *lab.Host) ([]int, error) { return h.Running(g.own) }

func (g *gitswarm) leader(ctx context.Context) (*lab.Host, error) {
	if h := g.cluster.Leader(ctx); h != nil {
		return h, nil
	}
	return nil, errors.New("no manager of gitswarm's leads")
}

func (g *gitswarm) ready(ctx context.Context, at *lab.Host) (n int, err error) {
	nodes, err := at.Nodes(ctx)
	for _, node := range nodes {
		if node.State == "ready" {
			n++
		}
	}
	return n, err
}

func (g *gitswarm) write(ctx context.Context, at *lab.Host, value string) error {
	_, err := lab.Typed(ctx)(at, "node", "label", "n5", "bench="+value)
	return err
}

func (g *gitswarm) drain(ctx context.Context, h *lab.Host, on bool) error {
	verb := "activate"
	if on {
		verb = "drain"
	}
	_, err := lab.Typed(ctx)(g.cluster.Hosts[0], "node", verb, h.Name)
	return err
}

func (g *gitswarm) kill(h *lab.Host) error {
	if err := h.Silence(gitswarmPort); err != nil {
		return err
	}
	folder := strings.TrimPrefix(h.GroupsOf(""), "/sys/fs/cgroup")
	return killAll(h, func(executable, groups string) bool {
		return strings.Contains(executable, "gitswarm-lab-") || strings.Contains(groups, folder+"/")
	})
}

// killAll sends SIGKILL to the processes that fit, all at once.
func killAll(h *lab.Host, fits func(executable, groups string) bool) error {
	pids, err := h.Running(fits)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d of %s: %w", pid, h.Name, err)
		}
	}
	return nil
}
