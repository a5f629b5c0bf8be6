package gitsync

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Report is what is new about a source. Without a Commit and a Problem it says
// that the source answered and nothing has changed.
type Report struct {
	Source  swarm.SourceID
	Commit  *Commit
	Problem error // for people, with the way out; the source is asked again by itself
	At      time.Time
}

// seenEvery is how often an unchanged source is reported.
const seenEvery = time.Minute

// answered marks an error of a server that can be reached: it is asked as
// often as ever, so that a push is seen that mends it.
type answered struct{ error }

func (a answered) Unwrap() error { return a.error }

// Errors are met with growing pauses, from the first to the last of these.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// watch follows one origin.
type watch struct {
	origin origin
	source swarm.SourceID
	poll   time.Duration
	nudge  <-chan struct{}
	report func(Report)
	log    *slog.Logger

	head     swarm.Revision // last reported
	problem  string         // last reported, until it is over
	reported time.Time
	failures int // in a row, but those that somebody asked for
}

// run asks, reports and waits until ctx ends.
func (w *watch) run(ctx context.Context) {
	asked := false
	for {
		commit, err := w.origin.sync(ctx, w.head, asked)
		if ctx.Err() != nil {
			return
		}
		w.tell(commit, err, time.Now(), asked)

		again := time.NewTimer(w.pause())
		asked = false
		select {
		case <-ctx.Done():
		case <-w.origin.moved():
		case <-again.C:
		case _, open := <-w.nudge:
			asked = open
			if !open {
				w.nudge = nil
			}
		}
		again.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// tell reports an answer, unless it is no news.
func (w *watch) tell(commit *Commit, err error, now time.Time, asked bool) {
	news := Report{Source: w.source, Commit: commit, Problem: err, At: now}
	if err != nil {
		if w.failures++; asked || errors.As(err, new(answered)) {
			w.failures = 0
		}
		if err.Error() == w.problem && !asked {
			return
		}
		w.problem = err.Error()
		w.reported = now
		w.report(news)
		return
	}

	recovered := w.problem != ""
	w.failures, w.problem = 0, ""
	if commit != nil {
		w.head = commit.Revision
	}
	if commit == nil && !recovered && !asked && now.Sub(w.reported) < seenEvery {
		return
	}
	w.reported = now
	w.report(news)
}

// pause is how long to wait before asking unasked: the poll interval, or after
// errors a time that doubles, both 20 % more or less.
func (w *watch) pause() time.Duration {
	pause := w.poll
	if w.failures > 0 {
		pause = min(firstRetry<<min(w.failures-1, 20), lastRetry)
	}
	return time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
}
