package store

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives raft's warnings and errors to log; what raft says below
// that is of no use to an operator.
func raftLogger(log *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Warn, Output: io.Discard})
	logger.RegisterSink(slogSink{log})
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

type slogSink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s slogSink) Accept(name string, level hclog.Level, message string, args ...any) {
	if level < hclog.Warn {
		return
	}
	to := slog.LevelWarn
	if level >= hclog.Error {
		to = slog.LevelError
	}
	s.log.Log(context.Background(), to, "raft: "+strings.ToLower(message), args...)
}
