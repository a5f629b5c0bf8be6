package runtime

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/gitswarm/gitswarm/swarm"
)

// Error is a failure with the one who can mend it: a commit, where the content
// is wrong, or the node's surroundings.
type Error struct {
	Cause swarm.Cause
	Err   error
}

// Error is the failure without its cause.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the failure.
func (e *Error) Unwrap() error { return e.Err }

// CauseOf says who is to blame for err. What no one called content is the
// environment's fault: it is tried again.
func CauseOf(err error) swarm.Cause {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Cause
	}
	return swarm.CauseEnvironment
}

// contentError says that only another commit can mend the failure.
func contentError(format string, args ...any) error {
	return &Error{Cause: swarm.CauseContent, Err: fmt.Errorf(format, args...)}
}

// environmentError says that the failure may pass without a commit.
func environmentError(format string, args ...any) error {
	return &Error{Cause: swarm.CauseEnvironment, Err: fmt.Errorf(format, args...)}
}

// contentSigns are parts of runc's messages that blame the container's own
// description. runc has no codes for them.
func contentSigns() []string {
	return []string{
		"executable file not found",
		"exec format error",
		"permission denied",
		"is a directory",
		"not a directory",
		"no such file or directory",
		"unable to find user",
		"invalid argument",
		"sysctl",
		"unknown capability",
		"operation not permitted",
	}
}

// judgeRunc finds the cause of a failure to create or start a container.
func judgeRunc(verb string, err error) error {
	err = fmt.Errorf("%s container: %w", verb, err)
	text := err.Error()
	full := errors.Is(err, syscall.ENOSPC) || strings.Contains(text, "no space left on device") ||
		strings.Contains(text, "cannot allocate memory")
	if full || !strings.Contains(text, "runc") && !strings.Contains(text, "OCI runtime") {
		return &Error{Cause: swarm.CauseEnvironment, Err: err}
	}
	for _, sign := range contentSigns() {
		if strings.Contains(text, sign) {
			return &Error{Cause: swarm.CauseContent, Err: err}
		}
	}
	return &Error{Cause: swarm.CauseEnvironment, Err: err}
}
