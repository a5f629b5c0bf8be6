package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"time"
)

// managerPort is where managers listen.
const managerPort = "2377"

// askPatience is how long a manager may take to say who is there.
const askPatience = 5 * time.Second

var joinToken = regexp.MustCompile(`GSTKN-1-[0-9a-z]+-[0-9a-z]+`)

// Node is a line of `gitswarm node ls -o json`.
type Node struct {
	ID           string            `json:"id"`
	Hostname     string            `json:"hostname"`
	Role         string            `json:"role"`
	Leader       bool              `json:"leader"`
	State        string            `json:"state"`
	Since        time.Time         `json:"since"`
	Availability string            `json:"availability"`
	Labels       map[string]string `json:"labels"`
}

// Typist runs a gitswarm command on a host, and fails unless it ends well.
type Typist func(h *Host, args ...string) (output string, err error)

// Typed is a Typist that says nothing.
func Typed(ctx context.Context) Typist {
	return func(h *Host, args ...string) (string, error) {
		text, exit := h.Run(ctx, args...)
		if exit != 0 {
			return text, fmt.Errorf("gitswarm %q on %s exited %d: %s", args, h.Name, exit, text)
		}
		return text, nil
	}
}

// Form makes one cluster of the hosts, whose daemons must run and be in none:
// the first ones become its managers, the others its workers.
func (c *Cluster) Form(managers int, run Typist) error {
	first := c.Hosts[0]
	if _, err := run(first, "init", "--advertise", first.Address); err != nil {
		return err
	}
	for i, h := range c.Hosts[1:] {
		role := "worker"
		if i+1 < managers {
			role = "manager"
		}
		if err := h.Join(role, first, run); err != nil {
			return err
		}
	}
	return nil
}

// Join lets the host join the cluster of a manager.
func (h *Host) Join(role string, manager *Host, run Typist) error {
	token, err := manager.Token(role, run)
	if err != nil {
		return err
	}
	_, err = run(h, "join", "--token", token, manager.Endpoint())
	return err
}

// Endpoint is where others reach the host's manager.
func (h *Host) Endpoint() string { return net.JoinHostPort(h.Address, managerPort) }

// Token asks a manager for the token by which others join.
func (h *Host) Token(role string, run Typist) (string, error) {
	text, err := run(h, "token", role)
	if err != nil {
		return "", err
	}
	token := joinToken.FindString(text)
	if token == "" {
		return "", fmt.Errorf("read the %s's token: there is none in %q", role, text)
	}
	return token, nil
}

// Nodes asks a manager for the cluster's nodes, by hostname.
func (h *Host) Nodes(ctx context.Context) (map[string]Node, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	text, exit := h.Run(ctx, "node", "ls", "-o", "json")
	if exit != 0 {
		return nil, errors.New(text)
	}
	var list []Node
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("read `gitswarm node ls`: %w\n%s", err, text)
	}
	nodes := make(map[string]Node, len(list))
	for _, node := range list {
		if other, there := nodes[node.Hostname]; !there || other.State != "ready" {
			nodes[node.Hostname] = node // a machine that left and joined again is there twice
		}
	}
	return nodes, nil
}

// Leader asks the hosts which of them leads; nil if none says so.
func (c *Cluster) Leader(ctx context.Context) *Host {
	for _, asked := range c.Hosts {
		if !asked.On() {
			continue
		}
		nodes, err := asked.Nodes(ctx)
		if err != nil {
			continue // it is no manager, or knows of no leader
		}
		for _, h := range c.Hosts {
			if nodes[h.Name].Leader {
				return h
			}
		}
	}
	return nil
}
