package dispatcher

import (
	"slices"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

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
