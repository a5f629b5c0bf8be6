package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/log"
)

const exitFile = "exit"

// Exit is the record of a task's end.
type Exit struct {
	Code int       `json:"code"` // 128 plus the signal that killed it
	At   time.Time `json:"at"`
	OOM  bool      `json:"oom,omitempty"`  // the kernel killed one of its processes for lack of memory
	Lost bool      `json:"lost,omitempty"` // Code is made up: no one saw the end
}

// ReadExit reads the record in a task's directory; ok is false if there is
// none.
func ReadExit(dir string) (exit Exit, ok bool) {
	data, err := os.ReadFile(filepath.Join(dir, exitFile))
	if err != nil || json.Unmarshal(data, &exit) != nil {
		return Exit{}, false
	}
	return exit, true
}

// WriteExit writes the record, wholly or not at all but for a power cut. A
// directory that is gone is the error os.ErrNotExist.
func WriteExit(dir string, exit Exit) error {
	data, err := json.Marshal(exit)
	if err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	fresh, err := os.CreateTemp(dir, exitFile+".*")
	if err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	_, err = fresh.Write(data)
	if err = errors.Join(err, fresh.Close()); err == nil {
		err = os.Rename(fresh.Name(), filepath.Join(dir, exitFile))
	}
	if err != nil {
		return fmt.Errorf("write exit record: %w", errors.Join(err, os.Remove(fresh.Name())))
	}
	return nil
}

// recordExit waits for the task's end and records it, while its control group
// still tells why.
func (s *service) recordExit(id string, sink Sink) {
	ctx := context.Background()
	end, err := s.TTRPCTaskService.Wait(ctx, &task.WaitRequest{ID: id})
	if err != nil {
		log.G(ctx).WithField("id", id).WithError(err).Error("exit was not seen")
		return
	}
	exit := Exit{Code: int(end.ExitStatus), At: end.ExitedAt.AsTime(), OOM: OOMKilled(sink.Cgroup)}
	if err := WriteExit(sink.Dir, exit); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.G(ctx).WithField("id", id).WithError(err).Error("exit was not recorded")
	}
}

// OOMKilled reports whether the kernel killed a process in the control group
// for lack of memory. Unlike containerd's event it can't be missed.
func OOMKilled(path string) bool {
	if cgroups.Mode() == cgroups.Unified {
		group, err := cgroup2.Load(path)
		if err != nil {
			return false
		}
		stat, err := group.Stat()
		return err == nil && stat.MemoryEvents != nil && stat.MemoryEvents.OomKill > 0
	}
	group, err := cgroup1.Load(cgroup1.StaticPath(path))
	if err != nil {
		return false
	}
	stat, err := group.Stat(cgroup1.IgnoreNotExist)
	return err == nil && stat.MemoryOomControl != nil && stat.MemoryOomControl.OomKill > 0
}
