// Package shim is what a container's own processes are made of: the shim that
// stands between containerd and runc and keeps the container when the daemon
// is gone, with the container's log in it, and the init process that a task
// may ask for. One binary is all of them; the name it is started under tells
// which. The package knows no cluster and decides nothing.
package shim

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task/plugin" // the runc task service
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

const (
	// Name is the file name under which the binary is a shim. containerd
	// gives it to the first process, which gives it to the one that stays.
	Name = "containerd-shim-runc-v2"

	// InitName is the file name under which the binary is an init process.
	InitName = "gitswarm-init"

	// gcPercent is low: a shim lives long, does little and is one of many.
	gcPercent = 10
)

// Main returns at once unless this process was started as a shim or as an init
// process; then it does that work and never returns. It must be the first
// thing that main does.
func Main() {
	switch filepath.Base(os.Args[0]) {
	case Name:
		register()
		shim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
		os.Exit(0)
	case InitName:
		os.Exit(runInit(os.Args[1:]))
	}
}

// Plugin reports whether a registered containerd plugin is the shim's and must
// not be loaded by a daemon in the same binary.
func Plugin(r *plugin.Registration) bool { return r.Type == plugins.TTRPCPlugin && r.ID == "task" }

// beSmall trades speed that a shim does not need for memory. RunShim has set
// the same before, to larger values.
func beSmall() {
	debug.SetGCPercent(gcPercent)
	runtime.GOMAXPROCS(2)
}

// register leaves the shim's plugin alone in containerd's registry, with a
// task service that writes logs.
func register() {
	all := registry.Graph(func(*plugin.Registration) bool { return false })
	registry.Reset()
	for _, r := range all {
		if !Plugin(&r) {
			continue
		}
		inner := r.InitFn
		r.InitFn = func(ic *plugin.InitContext) (any, error) {
			beSmall()
			service, err := inner(ic)
			if err != nil {
				return nil, err
			}
			return newService(service)
		}
		registry.Register(&r)
	}
}
