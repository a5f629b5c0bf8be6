package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"sync"
	"time"
)

// A journal takes the daemons' logs and finds lines in them.
type journal struct {
	file *os.File // nil: kept nowhere

	mu      sync.Mutex
	rest    []byte // of a line that is not whole yet
	lines   []string
	changed chan struct{}
}

func openJournal(path string) (*journal, error) {
	j := &journal{changed: make(chan struct{})}
	if path == "" {
		return j, nil
	}
	file, err := os.Create(path)
	j.file = file
	return j, err
}

// Write takes what a daemon logs.
func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file != nil {
		if _, err := j.file.Write(p); err != nil {
			return 0, err
		}
	}
	j.rest = append(j.rest, p...)
	for {
		line, rest, whole := bytes.Cut(j.rest, []byte{'\n'})
		if !whole {
			break
		}
		j.lines, j.rest = append(j.lines, string(line)), rest
	}
	close(j.changed)
	j.changed = make(chan struct{})
	return len(p), nil
}

// find waits for a line that matches, and returns the match's parts.
func (j *journal) find(ctx context.Context, pattern string) ([]string, error) {
	sought := regexp.MustCompile(pattern)
	late := time.After(patience)
	for seen := 0; ; {
		j.mu.Lock()
		lines, changed := j.lines[seen:], j.changed
		seen = len(j.lines)
		j.mu.Unlock()
		for _, line := range lines {
			if match := sought.FindStringSubmatch(line); match != nil {
				return match, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-late:
			return nil, fmt.Errorf("find %q in the daemon's log: not within %s", pattern, patience)
		}
	}
}
