package gitsync

import (
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long refs must be quiet before they are read: git writes a
// lock file and renames it.
const settle = 3 * time.Millisecond

// refWatcher hears when a branch of a local repository moves. Where the kernel
// grants no watch it stays silent, and asking every localPoll must do.
type refWatcher struct {
	moved  chan struct{} // one value stands for any number of events
	events *fsnotify.Watcher
	done   chan struct{} // closed when the goroutine has ended
	stop   chan struct{}
}

func newRefWatcher(log *slog.Logger) *refWatcher {
	w := &refWatcher{moved: make(chan struct{}, 1), done: make(chan struct{}), stop: make(chan struct{})}
	events, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("file watching refused by the kernel", "error", err)
	}
	w.events = events
	go w.run()
	return w
}

// watch adds the folders that a branch's ref is written in. The kernel forgets
// a folder that was removed, so this is called again and again.
func (w *refWatcher) watch(repository, branch string) {
	if w.events == nil {
		return
	}
	folder := filepath.Join(repository, "refs", "heads")
	folders := []string{repository, filepath.Join(repository, "refs"), folder}
	if branch == "" {
		branch = "x" // HEAD names any; those in folders are found by localPoll
	}
	parts := strings.Split(branch, "/")
	for _, part := range parts[:len(parts)-1] {
		folder = filepath.Join(folder, part)
		folders = append(folders, folder)
	}
	for _, folder := range folders {
		_ = w.events.Add(folder) // it may not exist yet
	}
}

// run passes events on once they pause, and ticks where there are none.
func (w *refWatcher) run() {
	defer close(w.done)
	var events <-chan fsnotify.Event
	var errors <-chan error
	if w.events != nil {
		defer w.events.Close()
		events, errors = w.events.Events, w.events.Errors
	}
	tick := time.NewTicker(localPoll)
	defer tick.Stop()

	var quiet <-chan time.Time
	for {
		select {
		case <-w.stop:
			return
		case event := <-events:
			if quiet == nil && concernsRefs(event.Name) {
				quiet = time.After(settle)
			}
		case <-errors: //nolint:errcheck // whatever it says, events were lost: look
			quiet = time.After(settle)
		case <-quiet:
			quiet = nil
			w.signal()
		case <-tick.C:
			w.signal()
		}
	}
}

func (w *refWatcher) signal() {
	select {
	case w.moved <- struct{}{}:
	default:
	}
}

// concernsRefs passes over what git writes beside its refs.
func concernsRefs(name string) bool {
	base := filepath.Base(name)
	if strings.HasSuffix(base, ".lock") {
		return false
	}
	return base == "HEAD" || base == "packed-refs" || base == "refs" || strings.Contains(name, "/refs/")
}

func (w *refWatcher) close() {
	close(w.stop)
	<-w.done
}
