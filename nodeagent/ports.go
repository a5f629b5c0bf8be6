package nodeagent

import (
	"context"
	"time"

	"github.com/gitswarm/gitswarm/nodeagent/network"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

// Runtime is what the agent asks of containers; runtime.Runtime does it.
type Runtime interface {
	containers
	observer
	streams
}

type containers interface {
	Pull(ctx context.Context, image string, manifest swarm.Digest, progress func(percent int)) error
	Create(context.Context, runtime.Container) error // again is not an error
	Start(context.Context, swarm.TaskID) (pid int, err error)
	Stop(ctx context.Context, task swarm.TaskID, signal string, grace time.Duration) error // returns when it has ended
	Remove(context.Context, swarm.TaskID) error                                            // again is not an error
}

type observer interface {
	List(context.Context) ([]runtime.Observed, error)
	Exits() <-chan runtime.Exit
	Probe(ctx context.Context, task swarm.TaskID, argv []string, timeout time.Duration) (exit int, output []byte, err error)
	RemoveVolume(context.Context, swarm.VolumeID) error // again is not an error
	Sweep(ctx context.Context, keep func(swarm.TaskID) bool) error
	PruneImages(ctx context.Context, keep time.Duration) ([]string, error)
}

type streams interface {
	Logs(ctx context.Context, task swarm.TaskID, query swarm.LogQuery, emit func(swarm.LogLine) error) error
	Exec(ctx context.Context, request swarm.ExecRequest, stream runtime.ExecStream) error
	Usage(context.Context, []swarm.TaskID) ([]swarm.Usage, error)
}

// Network is what the agent asks of the node's network; network.Network does
// it.
type Network interface {
	// Set makes the network what config says and returns once new connections
	// go where it says.
	Set(ctx context.Context, config network.Config) (network.Reached, error)
}
