package runtime

import (
	"context"
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// bridge hands containerd's own log over to log: warnings and worse, the rest
// as debug lines.
func bridge(log *slog.Logger) {
	logger := logrus.StandardLogger()
	logger.SetOutput(io.Discard)
	logger.SetLevel(logrus.InfoLevel)
	logger.ReplaceHooks(logrus.LevelHooks{})
	logger.AddHook(hook{log})
}

type hook struct{ log *slog.Logger }

// Levels are those that Fire wants to see.
func (hook) Levels() []logrus.Level { return logrus.AllLevels[:logrus.InfoLevel+1] }

// Fire writes one entry of containerd's log.
func (h hook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	switch {
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
