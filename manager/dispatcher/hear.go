package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// hear takes what the agent says, until the stream ends.
func (d *Dispatcher) hear(ctx context.Context, s *session, stream agentStream) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the agent closed it")
		}
		if err != nil {
			return err
		}
		if m.Hello != nil {
			return errors.New("the agent said hello twice")
		}
		if len(m.Reports) > wire.MaxReports {
			return fmt.Errorf("the agent sent %d reports at once, more than %d", len(m.Reports), wire.MaxReports)
		}
		if !d.take(s, *m) {
			return errReplaced
		}
		if m.Describe != nil {
			node := swarm.Node{ID: s.node, Description: *m.Describe}
			if err := d.putNode(ctx, node); err != nil {
				return err
			}
		}
	}
}

// take notes one message. It returns false if the session is not the node's
// any more.
func (d *Dispatcher) take(s *session, m wire.FromAgent) bool {
	view := d.config.Store.View()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions[s.node] != s {
		return false
	}
	d.hearFrom(s.node)
	if m.Applied > s.applied && m.Applied <= s.held.Index {
		s.applied = m.Applied
		d.appliedUpTo(s)
	}
	if m.Resend {
		s.full = true
		s.poke()
	}

	for _, r := range m.Reports {
		if task, known := view.Task(r.Task); known && task.Node == s.node && tells(task.Status, r.Status) {
			d.reports.report(r.Task, bounded(r.Status))
		}
	}
	if len(m.Removed) > 0 {
		d.takeRemoved(view, s.node, m.Removed)
	}
	return true
}

// takeRemoved notes which of the volumes that a node was to remove are gone.
func (d *Dispatcher) takeRemoved(view *store.View, node swarm.NodeID, removed []swarm.VolumeID) {
	for _, volume := range view.Volumes() {
		if volume.Node == node && !volume.Dropped.IsZero() && slices.Contains(removed, volume.ID) {
			d.reports.remove(volume)
		}
	}
}

// maxMessage bounds what a status says, in bytes.
const maxMessage = 4 << 10

// bounded leaves out what is not the agent's to say: times, and what drained.
func bounded(s swarm.TaskStatus) swarm.TaskStatus {
	return swarm.TaskStatus{
		State: s.State, Exit: s.Exit, Message: strings.ToValidUTF8(s.Message[:min(len(s.Message), maxMessage)], "?"),
		Cause: s.Cause, Pulled: s.Pulled, OOM: s.OOM,
	}
}

// tells reports whether a report says more than is known. That a task is lost
// is no agent's to say.
func tells(known, report swarm.TaskStatus) bool {
	if !known.State.Live() || report.State < known.State || report.State > swarm.TaskRejected {
		return false
	}
	return report.State > known.State || report.Message != known.Message ||
		report.Pulled != known.Pulled || report.Cause != known.Cause
}

// reports is what agents said and the log does not know yet.
type reports struct {
	news    chan struct{}
	tasks   map[swarm.TaskID]swarm.TaskStatus
	drained map[swarm.TaskID]bool
	removed []swarm.KeptVolume
}

func newReports() reports {
	return reports{
		news:    make(chan struct{}, 1),
		tasks:   make(map[swarm.TaskID]swarm.TaskStatus),
		drained: make(map[swarm.TaskID]bool),
	}
}

func (r *reports) report(task swarm.TaskID, status swarm.TaskStatus) {
	if known, waits := r.tasks[task]; waits && known.State > status.State {
		return
	}
	r.tasks[task] = status
	r.poke()
}

func (r *reports) drain(task swarm.TaskID) {
	r.drained[task] = true
	r.poke()
}

func (r *reports) remove(volume swarm.KeptVolume) {
	r.removed = append(r.removed, volume)
	r.poke()
}

func (r *reports) poke() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// maxReports bounds the reports of one command.
const maxReports = 1000

// take returns the next commands and forgets what they carry. The view tells
// what a drained task's status is.
func (r *reports) take(view *store.View) (batch store.ReportStatus, dropped []swarm.KeptVolume) {
	for task, status := range r.tasks {
		if len(batch.Tasks) == maxReports {
			r.poke()
			break
		}
		status.Drained = r.drained[task]
		batch.Tasks = append(batch.Tasks, store.TaskReport{Task: task, Status: status})
		delete(r.tasks, task)
		delete(r.drained, task)
	}
	for id := range r.drained {
		if _, waits := r.tasks[id]; waits {
			continue
		}
		if task, known := view.Task(id); known && task.Status.State.Live() {
			task.Status.Drained = true
			batch.Tasks = append(batch.Tasks, store.TaskReport{Task: id, Status: task.Status})
		}
		delete(r.drained, id)
	}
	slices.SortFunc(batch.Tasks, func(a, b store.TaskReport) int {
		if a.Task < b.Task {
			return -1
		}
		return 1
	})
	dropped, r.removed = r.removed, nil
	return batch, dropped
}

// restore takes back what could not be written.
func (r *reports) restore(batch store.ReportStatus, dropped []swarm.KeptVolume) {
	for _, report := range batch.Tasks {
		if report.Status.Drained {
			r.drained[report.Task] = true
		}
		if _, newer := r.tasks[report.Task]; !newer {
			r.tasks[report.Task] = report.Status
		}
	}
	r.removed = append(r.removed, dropped...)
	r.poke()
}
