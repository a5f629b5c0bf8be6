package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/prometheus/client_golang/prometheus"

	// The parts of containerd that run inside this process. CRI, NRI, the
	// restart monitor and the metrics collector stay out.
	_ "github.com/containerd/containerd/v2/core/runtime/v2"
	_ "github.com/containerd/containerd/v2/plugins/content/local/plugin"
	_ "github.com/containerd/containerd/v2/plugins/diff/walking/plugin"
	_ "github.com/containerd/containerd/v2/plugins/events"
	_ "github.com/containerd/containerd/v2/plugins/gc"
	_ "github.com/containerd/containerd/v2/plugins/leases"
	_ "github.com/containerd/containerd/v2/plugins/metadata"
	_ "github.com/containerd/containerd/v2/plugins/mount"
	_ "github.com/containerd/containerd/v2/plugins/sandbox"
	_ "github.com/containerd/containerd/v2/plugins/server/grpc"
	_ "github.com/containerd/containerd/v2/plugins/server/ttrpc"
	_ "github.com/containerd/containerd/v2/plugins/services/containers"
	_ "github.com/containerd/containerd/v2/plugins/services/content"
	_ "github.com/containerd/containerd/v2/plugins/services/diff"
	_ "github.com/containerd/containerd/v2/plugins/services/events"
	_ "github.com/containerd/containerd/v2/plugins/services/healthcheck"
	_ "github.com/containerd/containerd/v2/plugins/services/images"
	_ "github.com/containerd/containerd/v2/plugins/services/introspection"
	_ "github.com/containerd/containerd/v2/plugins/services/leases"
	_ "github.com/containerd/containerd/v2/plugins/services/namespaces"
	_ "github.com/containerd/containerd/v2/plugins/services/opt"
	_ "github.com/containerd/containerd/v2/plugins/services/sandbox"
	_ "github.com/containerd/containerd/v2/plugins/services/snapshots"
	_ "github.com/containerd/containerd/v2/plugins/services/tasks"
	_ "github.com/containerd/containerd/v2/plugins/services/version"
	_ "github.com/containerd/containerd/v2/plugins/services/warning"
	_ "github.com/containerd/containerd/v2/plugins/snapshots/overlay/plugin"

	"github.com/gitswarm/gitswarm/nodeagent/runtime/shim"
)

// maxSocketDir is what containerd allows the path of its shims' sockets.
const maxSocketDir = 42

// embedded is a containerd inside this process.
type embedded struct {
	server  *server.Server
	address string // of its socket
}

// embed starts a containerd that keeps its data in dir and its sockets in
// runDir.
func embed(ctx context.Context, dir, runDir string) (*embedded, error) {
	dropShimPlugins()
	prometheus.DefaultRegisterer = prometheus.NewRegistry() // nobody reads it, and what registers there once more would panic
	address := filepath.Join(runDir, "containerd.sock")
	sockets := filepath.Join(runDir, "s")
	if len(sockets) > maxSocketDir {
		return nil, fmt.Errorf("start containerd: %s is too long a path for sockets: choose a run directory of at most %d bytes", runDir, maxSocketDir-2)
	}
	config := &srvconfig.Config{
		Version: version.ConfigVersion,
		Root:    filepath.Join(dir, "containerd"),
		State:   filepath.Join(runDir, "containerd"),
		Plugins: map[string]any{
			"io.containerd.server.v1.grpc":  map[string]any{"address": address},
			"io.containerd.server.v1.ttrpc": map[string]any{"address": address + ".ttrpc"},
			"io.containerd.shim.v1.manager": map[string]any{"socket_dir": sockets},
			// A removed container's files go soon, not after a hundred further changes.
			"io.containerd.gc.v1.scheduler": map[string]any{"deletion_threshold": 1, "schedule_delay": "200ms"},
		},
	}
	if err := removeStale(address, address+".ttrpc"); err != nil {
		return nil, err
	}
	if err := server.CreateTopLevelDirectories(config); err != nil {
		return nil, fmt.Errorf("create containerd's directories: %w", err)
	}

	s, err := server.New(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	s.Wait()
	return &embedded{server: s, address: address}, nil
}

// dropShimPlugins takes out of containerd's registry, which is one for the
// whole process, what the shim alone needs.
func dropShimPlugins() {
	all := registry.Graph(func(*plugin.Registration) bool { return false })
	registry.Reset()
	for _, r := range all {
		if !shim.Plugin(&r) {
			registry.Register(&r)
		}
	}
}

// removeStale removes the sockets of a daemon that did not end by itself.
func removeStale(paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove stale socket: %w", err)
		}
	}
	return nil
}
