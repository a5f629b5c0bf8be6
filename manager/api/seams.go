package api

import (
	"context"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// View is the cluster at one raft index. Its lists are sorted by id and are
// read, never written.
type View interface {
	Index() uint64
	Now() time.Time
	Sources() []swarm.Source
	Stacks() []swarm.StackRecord
	Stack(swarm.StackName) (swarm.StackRecord, bool)
	Tasks(swarm.StackName) []swarm.Task
	Task(swarm.TaskID) (swarm.Task, bool)
	Nodes() []swarm.Node
	Endpoints() []swarm.Endpoint
	Volumes() []swarm.KeptVolume
	Grants() []swarm.Grant
	Cluster() (swarm.Cluster, bool)
	Tokens() []swarm.UserToken // of users
	// Events returns at most limit events with an index above since, oldest
	// first; with since 0 the newest ones.
	Events(since uint64, limit int) []swarm.Event
}

// Changes wakes one waiter: the channel of Next is closed by the first change
// after Next returned.
type Changes interface {
	Next() <-chan struct{}
	Close()
}

// Blobs reads content by its digest.
type Blobs interface {
	Get(context.Context, swarm.Digest) ([]byte, error)
}

// NewSource is a repository to watch.
type NewSource struct {
	URL         string
	Branch      string // empty means the remote's HEAD
	Path        string
	Environment string
	Poll        time.Duration // 0 means 30 s
	Credential  swarm.Credential
	Approved    bool // its first sync may act at once
}

// Sources keeps the repositories that are watched.
type Sources interface {
	AddSource(ctx context.Context, source NewSource, by string) (swarm.SourceID, error)
	RemoveSource(ctx context.Context, source swarm.SourceID, by string) error
	// SyncSource fetches now and returns once what the repository answered is
	// in the log: SourceStatus tells what it was.
	SyncSource(ctx context.Context, source swarm.SourceID) error
}

// Rollouts starts, repeats and reverts rollouts.
type Rollouts interface {
	Approve(ctx context.Context, plan, by string) ([]swarm.StackName, error)
	Retry(ctx context.Context, stack swarm.StackName, by string) error
	// Rollback accepts an earlier revision again; the empty one means the last
	// healthy revision before the one that is accepted now.
	Rollback(ctx context.Context, stack swarm.StackName, to swarm.Revision, by string) (swarm.Revision, error)
	// Redeploy resolves the images of services anew if pull is set, and
	// replaces their tasks. No services means all of the stack's.
	Redeploy(ctx context.Context, stack swarm.StackName, services []string, pull bool, by string) error
}

// Stacks changes how a stack runs without a new revision.
type Stacks interface {
	Restart(ctx context.Context, stack swarm.StackName, services []string, by string) error
	Scale(ctx context.Context, stack swarm.StackName, replicas map[string]int, by string) error
	Suspend(ctx context.Context, stack swarm.StackName, why, by string) error
	Resume(ctx context.Context, stack swarm.StackName, by string) error
}

// Volumes lets go of volumes.
type Volumes interface {
	// ReleaseVolume unpins the slots that a volume keeps on its node: they
	// start elsewhere, with an empty volume.
	ReleaseVolume(ctx context.Context, volume swarm.VolumeID, node swarm.NodeID, by string) error
	RemoveVolume(ctx context.Context, volume swarm.VolumeID, node swarm.NodeID, by string) error
}

// PlanRequest says what to compare with what runs.
type PlanRequest struct {
	Source      swarm.SourceID  // empty means every source, or the only one
	Ref         string          // branch, tag or commit; empty means the newest commit that was read
	Dir         string          // a folder to take instead of a commit; it is removed after the call
	Environment string          // of gitswarm.yaml, for Dir
	Stack       swarm.StackName // empty means every stack
}

// PlanResult is what would happen.
type PlanResult struct {
	Revision swarm.Revision // empty for a folder
	Stacks   []StackPlan    // by name
}

// StackPlan is what would happen to one stack.
type StackPlan struct {
	Name     swarm.StackName
	Plan     swarm.Plan      // the Node of a Start or Replace is where the scheduler puts it
	Problem  *swarm.Problem  // why it would not be rolled out
	Findings []swarm.Finding // warnings
}

// Planner computes plans with the real reconciler and scheduler.
type Planner interface {
	Plan(context.Context, PlanRequest) (PlanResult, error)
}

// Streams reaches into running tasks.
type Streams interface {
	// Logs calls emit for each line, merged over tasks by time, and returns
	// when there are no more, emit fails, or ctx ends.
	Logs(ctx context.Context, query swarm.LogQuery, emit func(swarm.LogLine) error) error
	Exec(ctx context.Context, request swarm.ExecRequest) (Conversation, error)
	Stats(ctx context.Context, tasks []swarm.TaskID) ([]swarm.Usage, error)
}

// Conversation is a process in a task. Recv returns io.EOF after the frame
// that carries Exit. Send and Recv may be called at the same time.
type Conversation interface {
	Send(swarm.ExecFrame) error
	Recv() (swarm.ExecFrame, error)
	Close() error
}
