package api

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Limits on tokens that are refused.
const (
	firstPause = 100 * time.Millisecond // doubles with each try of an address
	mostPause  = 3 * time.Second
	maxPausing = 256 // refusals that wait at a time; those beyond are told to come back
	logEvery   = time.Minute
	maxSources = 1024 // addresses that are remembered
)

// tries slows down whoever guesses tokens, and logs each cause once a minute
// for an address.
type tries struct {
	log     *slog.Logger
	pausing chan struct{}
	mu      sync.Mutex
	sources map[string]*source
}

// source is one address that tokens were refused from.
type source struct {
	tries  int
	last   time.Time
	logged map[string]time.Time // by cause; causes are constants
}

func newTries(log *slog.Logger) *tries {
	return &tries{log: log, pausing: make(chan struct{}, maxPausing), sources: map[string]*source{}}
}

// note remembers a refusal and pauses. It is false where too many pause.
func (t *tries) note(ctx context.Context, remote string, cause error) bool {
	select {
	case t.pausing <- struct{}{}:
		defer func() { <-t.pausing }()
	default:
		return false
	}
	address := hostOf(remote)
	pause, news := t.count(address, cause.Error(), time.Now())
	if news {
		t.log.Warn("user's token was refused", "address", address, "cause", cause)
	}
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
	return true
}

// count returns how long a try of an address pauses, and whether its cause is
// news.
func (t *tries) count(address, cause string, now time.Time) (pause time.Duration, news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := t.sources[address]
	if from == nil {
		t.forget(now)
		from = &source{logged: map[string]time.Time{}}
		t.sources[address] = from
	}
	if now.Sub(from.last) > logEvery {
		from.tries = 0
	}
	pause = min(firstPause<<min(from.tries, 10), mostPause)
	from.tries++
	from.last = now
	if last, ok := from.logged[cause]; !ok || now.Sub(last) > logEvery {
		from.logged[cause], news = now, true
	}
	return pause, news
}

// forget makes room: for those of whom nothing was heard for long, then for any.
func (t *tries) forget(now time.Time) {
	for address, from := range t.sources {
		if now.Sub(from.last) > logEvery {
			delete(t.sources, address)
		}
	}
	for address := range t.sources {
		if len(t.sources) < maxSources {
			return
		}
		delete(t.sources, address)
	}
}
