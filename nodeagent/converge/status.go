package converge

import (
	"fmt"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Status returns what to say of a task. Its state is never less than that of
// the last report, and an ended task's status never changes. Times are left to
// the manager.
func Status(want *swarm.AssignedTask, seen Observed) swarm.TaskStatus {
	if !seen.Last.State.Live() {
		return seen.Last
	}
	status := derive(want, seen)
	if seen.Again && status.State < seen.Last.State {
		status.Message = "starts again after its machine did"
	}
	if status.State < seen.Last.State {
		status.State = seen.Last.State
	}
	return status
}

func derive(want *swarm.AssignedTask, seen Observed) swarm.TaskStatus {
	asked := want == nil || want.Desired >= swarm.DesiredStop
	switch {
	case seen.Container == Exited:
		return exited(asked, seen)

	case seen.Container == Running:
		if seen.Check == nil && seen.Fetched || seen.Health.Passed {
			return swarm.TaskStatus{State: swarm.TaskHealthy, Message: seen.Health.complaint()}
		}
		return swarm.TaskStatus{State: swarm.TaskStarting, Message: seen.Health.complaint()}

	case seen.Refused != nil:
		return swarm.TaskStatus{State: swarm.TaskRejected, Message: seen.Refused.Message, Cause: seen.Refused.Cause}

	case seen.vanished():
		return swarm.TaskStatus{
			State:   swarm.TaskFailed,
			Message: "its container was gone: the node was restarted, or something removed it",
			Cause:   swarm.CauseEnvironment,
		}

	case asked:
		return swarm.TaskStatus{State: swarm.TaskStopped, Message: "stopped before it started"}

	case seen.Container == Created && seen.Attached:
		return swarm.TaskStatus{State: swarm.TaskPrepared}

	case seen.Pulled > 0 && !seen.Fetched:
		return swarm.TaskStatus{State: swarm.TaskPreparing, Message: fmt.Sprintf("pulling %d%%", seen.Pulled), Pulled: seen.Pulled}
	}
	return swarm.TaskStatus{State: swarm.TaskPreparing}
}

func exited(asked bool, seen Observed) swarm.TaskStatus {
	exit := seen.Exit
	status := swarm.TaskStatus{Exit: &exit, OOM: seen.OOM}
	status.Message = fmt.Sprintf("exited %d after %s", exit, lived(seen.Ended.Sub(seen.Started)))

	switch {
	case seen.Unhealthy():
		status.State, status.Cause = swarm.TaskFailed, swarm.CauseContent
		status.Message = "unhealthy: " + seen.Health.lastOutput()
	case seen.Lost && asked:
		status = swarm.TaskStatus{State: swarm.TaskStopped, Message: "ended with its node or its shim"}
	case seen.Lost:
		status = swarm.TaskStatus{State: swarm.TaskFailed, Cause: swarm.CauseEnvironment, Message: "ended with its node or its shim"}
	case asked:
		status.State = swarm.TaskStopped
	case exit == 0:
		status.State = swarm.TaskComplete
	default:
		status.State, status.Cause = swarm.TaskFailed, swarm.CauseContent
		if seen.OOM {
			status.Message = "out of memory: " + status.Message
		}
	}
	return status
}

// lived is a duration for people: "450ms", "2s", "5m0s".
func lived(d time.Duration) time.Duration {
	switch {
	case d <= 0:
		return 0
	case d < time.Second:
		return d.Round(10 * time.Millisecond)
	case d < 10*time.Minute:
		return d.Round(time.Second)
	}
	return d.Round(time.Minute)
}
