package main

import (
	"context"
	"errors"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"syscall"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/nodeagent/network"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
	"github.com/gitswarm/gitswarm/swarm"
)

// openNode opens the node's containers and its network. Daemons with other
// data folders on the same machine have other names for both.
func openNode(ctx context.Context, config daemonConfig) (*runtime.Runtime, *network.Network, error) {
	name := config.instance()
	containers, err := runtime.Open(ctx, runtime.Config{
		Dir: config.DataDir, RunDir: config.RunDir, Namespace: "gitswarm" + name, Log: config.Log,
		Socket: config.Containerd, CredentialsFile: config.RegistryConfig,
	})
	if err != nil {
		return nil, nil, err
	}
	prefix := "gs"
	if name != "" {
		prefix = "g" + name[1:4]
	}
	links, err := network.Open(ctx, network.Options{
		Dir: filepath.Join(config.DataDir, "network"), RunDir: config.RunDir, Prefix: prefix, Log: config.Log,
	})
	if err != nil {
		return nil, nil, errors.Join(err, containers.Close())
	}
	return containers, links, nil
}

// instance tells daemons on one machine apart: empty for the one with the
// usual folder, "-" and a hash of the folder for others.
func (c daemonConfig) instance() string {
	if c.DataDir == defaultDataDir {
		return ""
	}
	hash := fnv.New32a()
	hash.Write([]byte(c.DataDir))
	text := strconv.FormatUint(uint64(hash.Sum32()), 36)
	return "-" + ("000000" + text)[len(text):]
}

// describe says what this machine is and has. Without links it can't tell which
// ports are busy.
func describe(links *network.Network, offer offer) swarm.NodeDescription {
	hostname, _ := os.Hostname() // empty is shown as such
	var busy []swarm.Port
	if links != nil {
		busy, _ = links.Listening() // a machine that can't tell has none to refuse
	}
	return swarm.NodeDescription{
		Hostname: hostname, OS: goruntime.GOOS, Arch: goruntime.GOARCH, Build: buildName(), BusyPorts: busy, Level: store.Level,
		Labels: offer.labels, Resources: swarm.Resources{NanoCPUs: int64(goruntime.NumCPU()) * 1e9, Memory: totalMemory(), Generic: offer.generic},
	}
}

func totalMemory() int64 {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// hostRoutes are the machine's own addresses: no network may shadow them.
func hostRoutes() []netip.Prefix {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var routes []netip.Prefix
	for _, address := range addresses {
		prefix, err := netip.ParsePrefix(address.String())
		if err == nil && prefix.Addr().Is4() && !prefix.Addr().IsLoopback() {
			routes = append(routes, prefix.Masked())
		}
	}
	return routes
}
