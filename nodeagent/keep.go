package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

// keeper is the agent's folder: "assignment", "managers", "tasks/<id>",
// "blobs/<hex>".
// Nothing secret is ever in it.
type keeper struct {
	dir string
}

// kept is what the agent remembers of a task over its own restarts.
type kept struct {
	Task     swarm.AssignedTask      `cbor:"1,keyasint,omitempty"`
	Networks []swarm.AssignedNetwork `cbor:"2,keyasint,omitempty"`
	Status   swarm.TaskStatus        `cbor:"3,keyasint,omitempty"`
}

func (k *keeper) open() error {
	for _, dir := range []string{"tasks", "blobs"} {
		if err := os.MkdirAll(filepath.Join(k.dir, dir), 0o700); err != nil {
			return fmt.Errorf("make the agent's folder: %w", err)
		}
	}
	return nil
}

// assignment reads the last assignment; the zero Held if there is none.
func (k *keeper) assignment() (held wire.Held, err error) {
	data, err := os.ReadFile(filepath.Join(k.dir, "assignment"))
	if errors.Is(err, fs.ErrNotExist) {
		return held, nil
	}
	if err == nil {
		err = codec.Decode(data, &held)
	}
	if err == nil && wire.Sum(held.Assignment) != held.Hash {
		err = errors.New("its hash does not match")
	}
	if err != nil {
		return wire.Held{}, fmt.Errorf("read kept assignment: %w", err)
	}
	return held, nil
}

// saveAssignment is durable when it returns.
func (k *keeper) saveAssignment(held wire.Held) error {
	data, err := codec.Encode(held)
	if err != nil {
		return err
	}
	return k.writeFile(filepath.Join(k.dir, "assignment"), data, true)
}

func (k *keeper) tasks() ([]kept, error) {
	entries, err := os.ReadDir(filepath.Join(k.dir, "tasks"))
	if err != nil {
		return nil, fmt.Errorf("list kept tasks: %w", err)
	}
	var (
		tasks []kept
		bad   []error
	)
	for _, entry := range entries {
		path := filepath.Join(k.dir, "tasks", entry.Name())
		data, err := os.ReadFile(path)
		var task kept
		if err == nil {
			err = codec.Decode(data, &task)
		}
		if err != nil || k.taskPath(task.Task.ID) != path {
			bad = append(bad, fmt.Errorf("read kept task %s: %w", entry.Name(), errors.Join(err, os.Remove(path))))
			continue
		}
		tasks = append(tasks, task)
	}
	return tasks, errors.Join(bad...)
}

// saveTask survives the agent's end, though perhaps not the machine's: then
// the container is gone too.
func (k *keeper) saveTask(task kept) error {
	data, err := codec.Encode(task)
	if err != nil {
		return err
	}
	return k.writeFile(k.taskPath(task.Task.ID), data, false)
}

func (k *keeper) dropTask(id swarm.TaskID) error {
	if err := os.Remove(k.taskPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (k *keeper) taskPath(id swarm.TaskID) string {
	return filepath.Join(k.dir, "tasks", url.PathEscape(string(id)))
}

// blob reads kept content, if it is there and whole.
func (k *keeper) blob(digest swarm.Digest) ([]byte, bool) {
	name, plain := strings.CutPrefix(string(digest), "sha256:")
	if !plain {
		return nil, false
	}
	data, err := os.ReadFile(filepath.Join(k.dir, "blobs", filepath.Base(name)))
	return data, err == nil && codec.DigestBytes(data) == digest
}

func (k *keeper) saveBlob(digest swarm.Digest, data []byte) error {
	name, plain := strings.CutPrefix(string(digest), "sha256:")
	if !plain {
		return nil
	}
	return k.writeFile(filepath.Join(k.dir, "blobs", filepath.Base(name)), data, false)
}

// sweep removes content that is neither live nor new.
func (k *keeper) sweep(live map[swarm.Digest]bool, before time.Time) error {
	entries, err := os.ReadDir(filepath.Join(k.dir, "blobs"))
	if err != nil {
		return fmt.Errorf("list kept blobs: %w", err)
	}
	var bad []error
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || live[swarm.Digest("sha256:"+entry.Name())] || info.ModTime().After(before) {
			continue
		}
		bad = append(bad, os.Remove(filepath.Join(k.dir, "blobs", entry.Name())))
	}
	return errors.Join(bad...)
}

// writeFile replaces a file whole or not at all.
func (k *keeper) writeFile(path string, data []byte, durable bool) error {
	file, err := os.CreateTemp(k.dir, ".new-*") // not in the folders that are listed
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = file.Write(data)
	if err == nil && durable {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(file.Name())))
	}
	return nil
}

// saveGap is the least time between two writes of the assignment.
const saveGap = 200 * time.Millisecond

// saves knows which assignment is on disk.
type saves struct {
	dirty chan struct{}

	mu    sync.Mutex
	saved uint64
}

func (s *saves) ask() { poke(s.dirty) }

// reached reports whether the assignment of index, or a later one, is on disk.
func (s *saves) reached(index uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved >= index
}

// keepAssignment writes the assignment when it changes, and wakes the workers
// that wait for it to be on disk.
func (a *Agent) keepAssignment(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.saves.dirty:
		}

		a.mu.Lock()
		held := a.held
		a.mu.Unlock()
		if err := a.keep.saveAssignment(held); err != nil {
			a.log.Error("assignment was not kept; it is tried again", "index", held.Index, "error", err)
			a.saves.ask()
		} else {
			a.saves.mu.Lock()
			a.saves.saved = held.Index
			a.saves.mu.Unlock()
			a.wakeReleased()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(saveGap):
		}
	}
}

// wakeReleased wakes the workers of tasks that the assignment does not name.
func (a *Agent) wakeReleased() {
	for _, w := range a.everyone() {
		w.mu.Lock()
		if w.known && w.want == nil {
			poke(w.wake)
		}
		w.mu.Unlock()
	}
}
