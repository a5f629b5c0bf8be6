package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// swarmPort is where managers of Docker's side listen: gitswarm has the usual
// one. swarmPorts are silenced when a node of it dies.
const swarmPort = 2378

var swarmPorts = []int{swarmPort, 7946, 4789}

// docker is Docker Swarm's side.
type docker struct {
	cluster *lab.Cluster
	engine  string // folder with another engine; empty means Debian's
	version string
}

func (d *docker) form(ctx context.Context) error {
	for _, h := range d.cluster.Hosts {
		if err := d.start(ctx, h); err != nil {
			return err
		}
		if _, err := d.cli(ctx, h, "pull", "--quiet", d.cluster.Registry+"/app:v1"); err != nil {
			return err
		}
	}
	first := d.cluster.Hosts[0]
	version, err := d.cli(ctx, first, "version", "--format", "Docker {{.Server.Version}}")
	if err != nil {
		return err
	}
	d.version = strings.TrimSpace(version)
	if _, err := d.cli(ctx, first, "swarm", "init", "--advertise-addr", d.endpoint(first), "--listen-addr", d.endpoint(first)); err != nil {
		return err
	}
	for i, h := range d.cluster.Hosts[1:] {
		role := "worker"
		if i+1 < managers {
			role = "manager"
		}
		token, err := d.cli(ctx, first, "swarm", "join-token", "-q", role)
		if err != nil {
			return err
		}
		if _, err := d.cli(ctx, h, "swarm", "join", "--advertise-addr", d.endpoint(h), "--listen-addr", d.endpoint(h), "--token", strings.TrimSpace(token), d.endpoint(first)); err != nil {
			return err
		}
	}
	return nil
}

func (d *docker) endpoint(h *lab.Host) string { return fmt.Sprintf("%s:%d", h.Address, swarmPort) }

// cli runs docker against a host's engine.
func (d *docker) cli(ctx context.Context, h *lab.Host, args ...string) (string, error) {
	return h.Exec(ctx, append([]string{"docker", "-H", "unix:///run/docker.sock"}, args...)...)
}

// start starts a host's engine and waits until it answers.
func (d *docker) start(ctx context.Context, h *lab.Host) error {
	if err := h.Heal(); err != nil {
		return err
	}
	if _, err := h.Exec(ctx, "rm", "-f", "/run/docker.pid", "/run/docker/containerd/containerd.pid"); err != nil {
		return err
	}
	env := []string{"DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1"}
	if d.engine != "" {
		env = append(env, "PATH="+d.engine+":"+os.Getenv("PATH"))
	}
	_, err := h.Spawn("dockerd", env, "dockerd", "--data-root", filepath.Join(h.Dir, "docker"), "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid",
		"-H", "unix:///run/docker.sock", "--cgroup-parent", "/"+d.group(h), "--insecure-registry", d.cluster.Registry)
	if err != nil {
		return err
	}
	return lab.Poll(ctx, time.Minute, "the engine of "+h.Name+" answers", func() bool {
		_, err := d.cli(ctx, h, "version")
		return err == nil
	})
}

// group is the control group below which a host's containers are.
func (d *docker) group(h *lab.Host) string { return "gitswarm-lab-docker-" + h.Name }

func (d *docker) groups(h *lab.Host) string { return filepath.Join("/sys/fs/cgroup/pids", d.group(h)) }

func (d *docker) prepare(w workload) (func(context.Context) error, error) {
	text := compose(w, d.cluster.Registry+"/app:v1", "version: \"3.8\"\n", "networks: [host]", "      endpoint_mode: dnsrr\nnetworks: {host: {name: host, external: true}}\n")
	path := filepath.Join(filepath.Dir(d.cluster.Hosts[0].Dir), "docker-"+w.name+".yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		_, err := d.cli(ctx, d.cluster.Hosts[0], "stack", "deploy", "--resolve-image", "never", "-c", path, w.name)
		return err
	}, nil
}

func (d *docker) remove(ctx context.Context, w workload) error {
	_, err := d.cli(ctx, d.cluster.Hosts[0], "stack", "rm", w.name)
	return err
}

// engines are the executables of an engine that runs on a host.
var engines = []string{"dockerd", "containerd"}

func (d *docker) daemons(h *lab.Host) ([]int, error) {
	return h.Running(func(executable, _ string) bool { return slices.Contains(engines, filepath.Base(executable)) })
}

// swarmNode is a line of `docker node ls`.
type swarmNode struct{ ID, Hostname, Status, ManagerStatus string }

func (d *docker) nodes(ctx context.Context, at *lab.Host) ([]swarmNode, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	text, err := d.cli(ctx, at, "node", "ls", "--format", "{{json .}}")
	if err != nil {
		return nil, err
	}
	var nodes []swarmNode
	for line := range strings.Lines(text) {
		var node swarmNode
		if err := json.Unmarshal([]byte(line), &node); err != nil {
			return nil, fmt.Errorf("read `docker node ls`: %w", err)
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

func (d *docker) leader(ctx context.Context) (*lab.Host, error) {
	for _, asked := range d.cluster.Hosts[:managers] {
		nodes, _ := d.nodes(ctx, asked) // the next may know
		for _, node := range nodes {
			for _, h := range d.cluster.Hosts {
				if node.ManagerStatus == "Leader" && node.Hostname == h.Name {
					return h, nil
				}
			}
		}
	}
	return nil, errors.New("no manager of Docker's leads")
}

func (d *docker) ready(ctx context.Context, at *lab.Host) (n int, err error) {
	nodes, err := d.nodes(ctx, at)
	for _, node := range nodes {
		if node.Status == "Ready" && node.ManagerStatus != "Unreachable" {
			n++
		}
	}
	return n, err
}

func (d *docker) write(ctx context.Context, at *lab.Host, value string) error {
	_, err := d.cli(ctx, at, "node", "update", "--label-add", "bench="+value, "n5")
	return err
}

func (d *docker) drain(ctx context.Context, h *lab.Host, on bool) error {
	availability := "active"
	if on {
		availability = "drain"
	}
	_, err := d.cli(ctx, d.cluster.Hosts[0], "node", "update", "--availability", availability, h.Name)
	return err
}

func (d *docker) kill(h *lab.Host) error {
	for _, port := range swarmPorts {
		if err := h.Silence(port); err != nil {
			return err
		}
	}
	return killAll(h, func(executable, groups string) bool {
		name := filepath.Base(executable)
		return slices.Contains(engines, name) || strings.HasPrefix(name, "containerd-shim-runc") && !strings.Contains(executable, "gitswarm-lab-") ||
			strings.Contains(groups, "/"+d.group(h)+"/")
	})
}

// removeGroups removes the control groups that the engines made.
func (d *docker) removeGroups() error {
	for _, h := range d.cluster.Hosts {
		if pids, err := d.daemons(h); err != nil || len(pids) > 0 {
			if err := errors.Join(err, d.kill(h)); err != nil {
				return err
			}
		}
		trees, err := filepath.Glob(filepath.Join("/sys/fs/cgroup", "*", d.group(h)))
		if err != nil {
			return err
		}
		for _, tree := range trees {
			err := lab.Poll(context.Background(), 10*time.Second, tree+" is empty", func() bool {
				inner, _ := filepath.Glob(filepath.Join(tree, "*", "cgroup.procs"))
				for _, group := range inner {
					_ = os.Remove(filepath.Dir(group)) // what is still in use is tried again
				}
				_ = os.Remove(tree) // as above
				_, err := os.Stat(tree)
				return errors.Is(err, fs.ErrNotExist)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
