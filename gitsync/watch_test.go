package gitsync

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// script is an origin that answers what it is told.
type script struct {
	asked  []time.Time
	answer func(n int, known swarm.Revision) (*Commit, error)
	events chan struct{}
}

func (s *script) sync(_ context.Context, known swarm.Revision, _ bool) (*Commit, error) {
	s.asked = append(s.asked, time.Now())
	return s.answer(len(s.asked), known)
}
func (s *script) kept(swarm.Revision) (*Commit, error) { return nil, errors.New("unused") }
func (s *script) moved() <-chan struct{}               { return s.events }
func (s *script) close()                               {}

// watched runs a watch in virtual time and returns its reports.
func watched(t *testing.T, s *script, nudge <-chan struct{}, length time.Duration) (reports []Report) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	w := watch{origin: s, source: "s1", poll: 30 * time.Second, nudge: nudge, log: slog.New(slog.DiscardHandler), report: func(r Report) { reports = append(reports, r) }}
	w.run(ctx)
	return reports
}

func onCommit(id string) func(int, swarm.Revision) (*Commit, error) {
	return func(_ int, known swarm.Revision) (*Commit, error) {
		revision := swarm.NewRevision("main", id)
		if known == revision {
			return nil, nil
		}
		return &Commit{Revision: revision}, nil
	}
}

func TestAsksEveryPollAndSaysSoOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: onCommit("aa")}
		reports := watched(t, s, nil, time.Hour)
		if n := len(s.asked); n < 95 || n > 150 {
			t.Errorf("asked %d times in an hour", n)
		}
		for i, at := range s.asked[1:] {
			if gap := at.Sub(s.asked[i]); gap < 24*time.Second || gap > 36*time.Second {
				t.Errorf("waited %s", gap)
			}
		}
		if n := len(reports); n < 40 || n > 60 {
			t.Errorf("%d reports in an hour", n)
		}
		for i, r := range reports {
			if (r.Commit != nil) != (i == 0) {
				t.Errorf("report %d: %s", i, describe(r))
			}
		}
	})
}

func TestBacksOffFromAServerThatIsDownAndTellsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("connection refused")
		s := &script{answer: func(int, swarm.Revision) (*Commit, error) { return nil, down }}
		reports := watched(t, s, nil, time.Hour)
		if len(reports) != 1 || !errors.Is(reports[0].Problem, down) {
			t.Errorf("%d reports", len(reports))
		}
		if n := len(s.asked); n < 15 || n > 30 {
			t.Errorf("asked %d times in an hour", n)
		}
		if gap := s.asked[1].Sub(s.asked[0]); gap > 2*time.Second {
			t.Errorf("first retry after %s", gap)
		}
	})
}

func TestReportsRecoveryAtOnceAndTheNextProblemAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		s.answer = func(n int, known swarm.Revision) (*Commit, error) {
			if n%3 == 2 {
				return nil, errors.New("down")
			}
			return onCommit("aa")(n, known)
		}
		reports := watched(t, s, nil, 5*time.Minute)
		for i := 1; i+1 < len(reports); i++ {
			if reports[i-1].Problem == nil && reports[i].Problem == nil && reports[i].At.Sub(reports[i-1].At) < seenEvery {
				t.Errorf("report %d says nothing new", i)
			}
			if reports[i].Problem != nil && reports[i+1].Problem != nil {
				t.Errorf("report %d repeats the problem", i+1)
			}
		}
	})
}

func TestAnswersEveryNudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nudge := make(chan struct{})
		go func() {
			for range 5 {
				time.Sleep(time.Second)
				nudge <- struct{}{}
			}
			close(nudge)
		}()
		s := &script{answer: onCommit("aa")}
		reports := watched(t, s, nudge, 10*time.Second)
		if len(reports) != 6 || len(s.asked) < 6 || len(s.asked) > 8 {
			t.Errorf("%d reports, asked %d times", len(reports), len(s.asked))
		}
	})
}

func TestAsksAsOftenAsEverAServerThatAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(int, swarm.Revision) (*Commit, error) { return nil, answered{errors.New("no branch")} }}
		watched(t, s, nil, time.Hour)
		if n := len(s.asked); n < 95 {
			t.Errorf("asked %d times in an hour", n)
		}
	})
}
