package api

import (
	"cmp"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Snapshot is all that the pages for people are computed from.
type Snapshot struct {
	Now     time.Time
	Index   uint64
	Sources []swarm.Source
	Stacks  []swarm.StackRecord
	Tasks   map[swarm.StackName][]swarm.Task
	Nodes   []swarm.Node
	Ports   map[swarm.ServiceID][]swarm.Port                 // published, as allocated
	Content func(swarm.Digest) (stack *swarm.Stack, ok bool) // rendered stacks
}

// hostname is the name that people know a node by.
func (s Snapshot) hostname(id swarm.NodeID) string {
	for _, node := range s.Nodes {
		if node.ID == id && node.Description.Hostname != "" {
			return node.Description.Hostname
		}
	}
	return string(id)
}

func (s Snapshot) nodeState(id swarm.NodeID) swarm.NodeState {
	for _, node := range s.Nodes {
		if node.ID == id {
			return node.State
		}
	}
	return swarm.NodeUnknown
}

func (s Snapshot) source(id swarm.SourceID) (swarm.Source, bool) {
	for _, source := range s.Sources {
		if source.ID == id {
			return source, true
		}
	}
	return swarm.Source{}, false
}

// target is the revision that the stack's tasks should run now: the accepted
// one, unless it failed or nothing of it was touched yet.
func target(r swarm.StackRecord) swarm.Rendered {
	back := r.Rollout.Phase == swarm.PhaseRollingBack || r.Rollout.Phase == swarm.PhaseRolledBack
	sameContent := r.Rollout.To.Key() == r.Accepted.Key()
	switch {
	case r.Healthy.Content == "":
		return r.Accepted
	case sameContent && back:
		return r.Healthy
	case sameContent && r.Rollout.Phase == swarm.PhaseWaiting && r.Rollout.Touched.IsZero():
		return r.Healthy
	case quarantined(r, r.Accepted):
		return r.Healthy
	}
	return r.Accepted
}

// quarantined reports whether the content failed before and is not tried again.
func quarantined(r swarm.StackRecord, rendered swarm.Rendered) bool {
	return rendered.Content != "" && slices.ContainsFunc(r.Quarantine, func(q swarm.Quarantined) bool {
		return q.Content == rendered.Key()
	})
}

// syncOf says how what runs relates to what git says.
func syncOf(r swarm.StackRecord, source swarm.Source) Sync {
	problem := swarm.ProblemKind("")
	if r.Problem != nil {
		problem = r.Problem.Kind
	}
	current := r.Rollout.To.Key() == r.Accepted.Key()

	switch {
	case r.Suspended != "" || source.Suspended != "":
		return Suspended
	case current && r.Rollout.Phase == swarm.PhasePaused:
		return Paused
	case current && r.Rollout.Phase == swarm.PhaseFailed:
		return Failed
	case r.Removing, r.Rollout.Phase == swarm.PhaseProgressing, r.Rollout.Phase == swarm.PhaseRollingBack:
		return Rolling
	case problem == swarm.ProblemLoad, problem == swarm.ProblemPolicy:
		return Refused
	case problem == swarm.ProblemQuarantine, current && r.Rollout.Phase == swarm.PhaseRolledBack, quarantined(r, r.Accepted):
		return RolledBack
	case problem != "", r.Rollout.Phase == swarm.PhaseWaiting, r.Accepted.Content == "":
		return Waiting
	case source.Status.Problem != "":
		return Stale
	case !current:
		return Rolling
	}
	return Synced
}

// seats sorts tasks of one service by seat, the newest of each seat last.
func seats(tasks []swarm.Task, service swarm.ServiceID) map[swarm.Seat][]swarm.Task {
	found := map[swarm.Seat][]swarm.Task{}
	for _, task := range tasks {
		if task.Service == service {
			found[task.Seat()] = append(found[task.Seat()], task)
		}
	}
	for _, line := range found {
		slices.SortFunc(line, func(a, b swarm.Task) int {
			return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
		})
	}
	return found
}
