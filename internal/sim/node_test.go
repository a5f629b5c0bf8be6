package sim

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/nodeagent"
	"github.com/gitswarm/gitswarm/nodeagent/agenttest"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

// node is a machine that runs containers. They outlive its agent.
type node struct {
	sim     *sim
	id      swarm.NodeID
	dir     string
	runtime *agenttest.Runtime
	network *agenttest.Network
	stop    func() error // nil while the agent is down
	lost    time.Time    // when it was last without agent, leader or way to a manager
	emptied time.Time    // when it was last not active

	mu      sync.Mutex
	created map[swarm.TaskID]runtime.Container
}

func newNode(s *sim, id swarm.NodeID) (*node, error) {
	n := &node{
		sim: s, id: id, dir: filepath.Join(s.root, "agent-"+string(id)),
		runtime: agenttest.NewRuntime(), network: &agenttest.Network{}, created: make(map[swarm.TaskID]runtime.Container),
	}
	n.runtime.Images = n.pulls
	n.runtime.Behave = n.behaves
	return n, os.MkdirAll(n.dir, 0o700)
}

// manages reports whether the machine is a manager too.
func (n *node) manages() bool { return strings.HasPrefix(string(n.id), "m") }

func (n *node) describe() swarm.NodeDescription {
	d := swarm.NodeDescription{
		Hostname: string(n.id), OS: "linux", Arch: "amd64",
		Resources: swarm.Resources{NanoCPUs: 4e9, Memory: 8 << 30}, Level: store.Level,
	}
	if n.manages() {
		d.Address = string(n.id)
	}
	return d
}

// pulls is how long an image takes: those whose names say so are slow, or never
// come.
func (n *node) pulls(image string) agenttest.Behaviour {
	b := agenttest.Behaviour{Pull: 200 * time.Millisecond}
	switch kindOf(image) {
	case imageSlow:
		b.Pull = 6 * time.Second
	case imageGone:
		b.PullError = errors.New("the registry does not have it")
	}
	return b
}

// behaves is what becomes of a container, by its image.
func (n *node) behaves(c runtime.Container) agenttest.Behaviour {
	n.mu.Lock()
	n.created[c.ID] = c
	n.mu.Unlock()
	n.sim.rules.secrets(n.id, c)
	b := agenttest.Behaviour{Term: 300 * time.Millisecond}
	switch kindOf(c.Spec.Image) {
	case imageCrash:
		b.Exits, b.After, b.Code = true, 700*time.Millisecond, 1
	case imageSick:
		b.Probe = func(int) (int, string) { return 1, "it is sick" }
	}
	return b
}

// start runs the agent on what its folder has.
func (n *node) start() {
	ctx, cancel := context.WithCancel(context.Background())
	agent := nodeagent.New(nodeagent.Config{
		Node: n.id, Dir: n.dir, Runtime: n.runtime, Network: n.network, Dial: n.dial, Managers: n.sim.addresses(),
		Own: n.own, Describe: n.describe, Log: n.sim.log("agent " + string(n.id)),
	})
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx) }()
	n.stop = func() error {
		cancel()
		n.stop = nil
		return <-ended
	}
}

func (n *node) own() string {
	if n.manages() {
		return string(n.id)
	}
	return ""
}

func (n *node) dial(ctx context.Context, address string) (net.Conn, error) {
	return n.sim.network.dial(ctx, string(n.id), address, serviceWire)
}

// container returns what a container was made of.
func (n *node) container(id swarm.TaskID) runtime.Container {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.created[id]
}
