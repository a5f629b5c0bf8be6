package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives raft's warnings and errors to log; what raft says below
// that is of no use to an operator.
func raftLogger(log *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Warn, Output: io.Discard})
	logger.RegisterSink(newSlogSink(log))
	return logger
}

// walLogger latches on what the log only logs: that it could not begin its
// next file.
func walLogger(l *latch) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Error, Output: io.Discard})
	logger.RegisterSink(latchSink{l})
	return logger
}

type latchSink struct{ latch *latch }

// Accept implements hclog.SinkAdapter.
func (s latchSink) Accept(_ string, level hclog.Level, message string, args ...any) {
	if level < hclog.Error {
		return
	}
	cause := errors.New(message)
	for _, arg := range args {
		if err, ok := arg.(error); ok {
			cause = err
		}
	}
	_ = s.latch.fail("begin the log's next file", cause)
}

// slogSink tells each thing once a minute: raft says several times a second
// that a manager does not answer.
type slogSink struct {
	log  *slog.Logger
	mu   sync.Mutex
	told map[string]time.Time // by message and whom it is about
}

func newSlogSink(log *slog.Logger) *slogSink {
	return &slogSink{log: log, told: map[string]time.Time{}}
}

// news reports whether a message was not told within the last minute.
func (s *slogSink) news(message string, args []any) bool {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "peer" || args[i] == "server-id" || args[i] == "from" {
			message += fmt.Sprint(" ", args[i+1])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(s.told, func(_ string, at time.Time) bool { return now.Sub(at) > repeatAfter })
	if _, told := s.told[message]; told {
		return false
	}
	s.told[message] = now
	return true
}

// repeatAfter is when the same is told again.
const repeatAfter = time.Minute

// Accept implements hclog.SinkAdapter.
func (s *slogSink) Accept(name string, level hclog.Level, message string, args ...any) {
	if level < hclog.Warn || !s.news(message, args) {
		return
	}
	to := slog.LevelWarn
	if level >= hclog.Error {
		to = slog.LevelError
	}
	s.log.Log(context.Background(), to, "raft: "+strings.ToLower(message), args...)
}
