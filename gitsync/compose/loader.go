package compose

import (
	"context"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"
)

// loaders is how many children load at once.
const loaders = 2

// Loader loads the stacks of one commit after the other. It can keep a child
// ready, so that a commit need not wait until a process has started; a child
// never sees the stacks of two commits. The zero value is ready for use.
type Loader struct {
	Limits Limits // optional

	mu    sync.Mutex
	ready *child // nil while there is none
}

// LoadAll renders projects of one tree. A child loads one after another; one
// that misbehaves is killed and costs its own project alone.
func (l *Loader) LoadAll(ctx context.Context, tree Tree, projects []Project) []Result {
	results := make([]Result, len(projects))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(loaders, len(projects)) {
		worker := worker{limits: l.Limits.withDefaults(), child: l.take()}
		workers.Go(func() {
			defer worker.close()
			for i := range next {
				results[i].Loaded, results[i].Err = worker.load(ctx, tree, projects[i])
			}
		})
	}
	for i := range projects {
		next <- i
	}
	close(next)
	workers.Wait()
	return results
}

// Prepare starts a child unless one is ready, and has it load a stack of no
// interest, since the first costs ten times the second. Where that fails there
// is none: LoadAll starts its own then, and tells why it can't.
func (l *Loader) Prepare(ctx context.Context) {
	fresh := worker{limits: l.Limits.withDefaults(), child: l.take()}
	if fresh.child == nil {
		if _, err := fresh.render(ctx, confine(specimen{}), Project{Name: "specimen"}); err != nil {
			fresh.close()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = fresh.child
}

// Close ends the child that is ready.
func (l *Loader) Close() {
	if c := l.take(); c != nil {
		c.end()
	}
}

// take hands out the child that is ready, if it lives.
func (l *Loader) take() *child {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.ready
	l.ready = nil
	if c != nil && !c.alive() {
		c.end()
		return nil
	}
	return c
}

// alive reports whether the process has not ended, which may be for want of
// memory.
func (c *child) alive() bool {
	var ended unix.Siginfo
	err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, &ended, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && ended.Signo == 0
}

// specimen is a tree with one small stack.
type specimen struct{}

const specimenFile = "compose.yaml"

func (specimen) ReadFile(path string, _ int64) ([]byte, error) {
	if path != specimenFile {
		return nil, fs.ErrNotExist
	}
	return []byte("services: {web: {image: example, environment: {A: \"${B:-c}\"}, deploy: {replicas: 2}}}\n"), nil
}

func (specimen) ReadDir(string) ([]Entry, error) {
	return []Entry{{Name: specimenFile, Kind: KindFile}}, nil
}
