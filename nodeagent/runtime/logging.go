package runtime

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/sirupsen/logrus"
)

// bridge hands containerd's own log over to log: until ctx ends warnings and
// worse, the rest as debug lines.
func bridge(ctx context.Context, log *slog.Logger) {
	logger := logrus.StandardLogger()
	logger.SetOutput(io.Discard)
	logger.SetLevel(logrus.InfoLevel)
	logger.ReplaceHooks(logrus.LevelHooks{})
	logger.AddHook(hook{ctx, log})
}

type hook struct {
	ctx context.Context // ends when containerd is being stopped, and what it says then is no news
	log *slog.Logger
}

// Levels are those that Fire wants to see.
func (hook) Levels() []logrus.Level { return logrus.AllLevels[:logrus.InfoLevel+1] }

// Fire writes one entry of containerd's log.
func (h hook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	err, _ := e.Data[logrus.ErrorKey].(error)
	switch {
	case h.ctx.Err() != nil, harmless(e.Message), err != nil && expected(err.Error()):
	case e.Level <= logrus.ErrorLevel:
		level = slog.LevelError
	case e.Level == logrus.WarnLevel:
		level = slog.LevelWarn
	}
	if !h.log.Enabled(context.Background(), level) {
		return nil
	}

	attrs := []any{"message", e.Message}
	for key, value := range e.Data {
		if err, ok := value.(error); ok {
			value = err.Error()
		}
		attrs = append(attrs, key, value)
	}
	h.log.Log(context.Background(), level, "containerd said", attrs...)
	return nil
}

// expected reports whether an error is one that this package provokes: a call
// that it cancelled, or a layer that two images share and that one pull waits
// for while the other writes it.
func expected(err string) bool {
	return strings.Contains(err, context.Canceled.Error()) || strings.Contains(err, " locked for ")
}

// harmless reports whether an entry is no news: it is about what is never
// used, or about the clearing up after a failure that is returned as an error.
func harmless(message string) bool {
	for _, part := range []string{"fsverity", "cgroup v1", "failed to delete task", "cleaning up dead shim",
		"cleanup dead shim", "copy shim log", "inactive stream", "failed sending message on channel"} {
		if strings.Contains(message, part) {
			return true
		}
	}
	return false
}
