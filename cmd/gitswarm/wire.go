package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gitswarm/gitswarm/internal/durable"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/allocator"
	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/dispatcher"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/nodeagent/network"
	"github.com/gitswarm/gitswarm/swarm"
)

// The usual folders.
const (
	defaultDataDir = "/var/lib/gitswarm"
	defaultRunDir  = "/run/gitswarm"
)

func versionOf(node swarm.NodeID) api.Version {
	v := buildVersion()
	v.Node = string(node)
	return v
}

// failed waits for the failure that latches the store closed: a manager that
// can't write its log must not go on.
func failed(ctx context.Context, state *store.Store) error {
	select {
	case err := <-state.Failed():
		return fmt.Errorf("keep the cluster's log: %w", err)
	case <-ctx.Done():
		return nil
	}
}

// checkNetworkEvery is how often the kernel is compared with what the agent
// last set.
const checkNetworkEvery = 30 * time.Second

// repairNetwork puts right what other programs changed.
func repairNetwork(ctx context.Context, log *slog.Logger, links *network.Network) error {
	tick := time.NewTicker(checkNetworkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		repairs, err := links.Check(ctx)
		if ctx.Err() == nil && (err != nil || len(repairs) > 0) {
			log.Warn("network was put right", "commands", repairs, "err", err)
		}
	}
}

// streams is the dispatcher as the control API sees it.
type streams struct{ *dispatcher.Dispatcher }

// Exec runs a process in a task.
func (s streams) Exec(ctx context.Context, request swarm.ExecRequest) (api.Conversation, error) {
	process, err := s.Dispatcher.Exec(ctx, request)
	if err != nil {
		return nil, err
	}
	return process, nil
}

// lock keeps a second daemon away from the same folders.
func (c daemonConfig) lock() (unlock func(), err error) {
	for _, dir := range []string{c.DataDir, c.RunDir} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("start the daemon: %w (run it as root, or give --data-dir and --run-dir)", err)
		}
	}
	file, err := os.OpenFile(filepath.Join(c.DataDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", c.DataDir, err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: another daemon uses it: stop that one first", c.DataDir)
	}
	return func() { file.Close() }, nil
}

// nodeID is random, made once, and kept.
func (c daemonConfig) nodeID() (swarm.NodeID, error) {
	path := filepath.Join(c.DataDir, "node")
	text, err := os.ReadFile(path)
	switch id := strings.TrimSpace(string(text)); {
	case err == nil && id != "":
		return swarm.NodeID(id), nil
	case err == nil:
		return "", fmt.Errorf("read the node's id: %s is empty; write the id there that the cluster's log names", path)
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read the node's id: %w", err)
	}
	var chance [8]byte
	_, _ = rand.Read(chance[:]) // never fails: crypto/rand ends the program instead
	id := hex.EncodeToString(chance[:])
	if err := durable.WriteFile(path, []byte(id+"\n")); err != nil {
		return "", fmt.Errorf("keep the node's id: %w", err)
	}
	return swarm.NodeID(id), nil
}

func (c daemonConfig) agentSocket() string { return filepath.Join(c.RunDir, "agents.sock") }

func (c daemonConfig) pool() allocator.Pool {
	return allocator.Pool{Bases: c.AddressPool, Avoid: hostRoutes()}
}

// openKeyring opens the manager's keys, or makes them on the first start.
func openKeyring(path string) (*seal.Keyring, error) {
	keyring, err := seal.Open(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return seal.Create(path)
	}
	return keyring, err
}

// emptyFolder makes a folder without what a daemon that was killed left in it.
func emptyFolder(path string) (string, error) {
	err := errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o711))
	if err != nil {
		return "", fmt.Errorf("empty folder: %w", err)
	}
	return path, nil
}

// listenPrivately listens on a socket that root alone may use.
func listenPrivately(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen for agents: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for agents: %w", err)
	}
	return listener, os.Chmod(path, 0o600)
}
