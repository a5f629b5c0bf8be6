package converge

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// What Compose's healthcheck means where it is silent.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultRetries       = 3
	defaultStartInterval = 5 * time.Second
)

// eager is how soon a container is first probed, and the least gap between two
// probes until it has passed one.
const eager = 250 * time.Millisecond

// probesKept is how many probes a Health remembers.
const probesKept = 5

// outputKept is how much of a probe's output a message repeats, in bytes.
const outputKept = 400

// Health is what the probes of a running container have shown so far.
type Health struct {
	Passed bool    // it has been healthy, and is until it has failed often enough
	Failed int     // failures in a row that count
	Log    []Probe // newest last
}

// Probe is one run of a health check.
type Probe struct {
	At     time.Time
	Exit   int // 0 is well
	Output string
}

// After returns the health after one more probe of a container that started
// then. Until the first success, failures do not count within the start
// period, nor within the first interval: what is probed there is probed early.
func (h Health) After(check swarm.Healthcheck, started time.Time, p Probe) Health {
	log := append(h.Log[:len(h.Log):len(h.Log)], p)
	h.Log = log[max(0, len(log)-probesKept):]

	switch {
	case p.Exit == 0:
		h.Passed, h.Failed = true, 0
	case h.Passed || !p.At.Before(started.Add(lenience(check))):
		h.Failed++
	}
	return h
}

// NextProbe returns when to probe next; last is when the last probe ended, or
// zero. A container that has not passed yet is asked at once and then ever
// more rarely, so that one that is quick to start is healthy quickly.
func (h Health) NextProbe(check swarm.Healthcheck, started, last time.Time) time.Time {
	interval := cmp.Or(check.Interval, defaultInterval)
	if h.Passed {
		if last.IsZero() { // it was healthy before the agent was restarted
			return started
		}
		return last.Add(interval)
	}
	if last.IsZero() {
		return started.Add(min(eager, interval))
	}

	strict := started.Add(lenience(check))
	if !last.Before(strict) {
		return last.Add(interval)
	}
	rarest := interval
	if last.Before(started.Add(check.StartPeriod)) {
		rarest = cmp.Or(check.StartInterval, defaultStartInterval)
	}
	next := last.Add(min(max(last.Sub(started), eager), rarest))
	if next.After(strict) {
		return strict
	}
	return next
}

// lenience is how long after its start a container may fail its probes.
func lenience(check swarm.Healthcheck) time.Duration {
	return max(check.StartPeriod, cmp.Or(check.Interval, defaultInterval))
}

// Command returns the argv of a probe, and how long it may take.
func Command(check swarm.Healthcheck) (argv []string, timeout time.Duration) {
	timeout = cmp.Or(check.Timeout, defaultTimeout)
	if check.Shell {
		return append([]string{"/bin/sh", "-c"}, check.Test...), timeout
	}
	return check.Test, timeout
}

func (h Health) failed(check swarm.Healthcheck) bool {
	return h.Failed >= cmp.Or(check.Retries, defaultRetries)
}

// complaint is what to say of a container that is not given up yet.
func (h Health) complaint() string {
	if len(h.Log) == 0 || h.Log[len(h.Log)-1].Exit == 0 {
		return ""
	}
	return "health check fails: " + h.lastOutput()
}

func (h Health) lastOutput() string {
	if len(h.Log) == 0 {
		return "no probe answered"
	}
	last := h.Log[len(h.Log)-1]
	output := strings.TrimSpace(strings.ToValidUTF8(last.Output, "?"))
	if len(output) > outputKept {
		output = strings.ToValidUTF8(output[:outputKept], "") + "…"
	}
	if output == "" {
		return fmt.Sprintf("the check exited %d", last.Exit)
	}
	return output
}
