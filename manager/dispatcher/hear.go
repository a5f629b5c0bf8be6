package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/internal/codec"
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
			if err := fits(*m.Describe); err != nil {
				return err
			}
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
	var view *store.View
	if len(m.Reports) > 0 || len(m.Removed) > 0 { // most messages are signs of life alone
		view = d.config.Store.View()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions[s.node] != s {
		return false
	}
	d.hearFrom(s)
	if m.Applied > s.applied && m.Applied <= s.held.Index {
		s.applied = m.Applied
		d.progressed(s)
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
	if m.Papers != nil {
		s.papers, s.renewing = m.Papers, false
		if node, known := d.view.Node(s.node); known {
			s.judgePapers(node, d.common.issuer)
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

// What one node says ends up in the log with what others say: in bytes, a
// status' words and, encoded, a node's description.
const (
	maxMessage     = 4 << 10
	maxDescription = 256 << 10
)

// fits refuses a description that is too large for the log.
func fits(d swarm.NodeDescription) error {
	data, err := codec.Encode(d)
	if err == nil && len(data) > maxDescription {
		err = fmt.Errorf("the node describes itself in %d bytes, more than %d", len(data), maxDescription)
	}
	return err
}

// bounded leaves out what is not the agent's to say: times, what drained, and
// who is to blame if that is nobody we know.
func bounded(s swarm.TaskStatus) swarm.TaskStatus {
	if s.Cause != swarm.CauseContent && s.Cause != swarm.CauseEnvironment {
		s.Cause = ""
	}
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
