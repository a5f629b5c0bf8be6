package manager

import (
	"context"
	"errors"

	"github.com/gitswarm/gitswarm/manager/api"
)

// Upgrade is not there yet.
func (m *Manager) Upgrade(context.Context, api.Upgrading, string, func(string) error) error {
	return errors.New("upgrade: this build can't; replace the binary and restart the daemon on each node, workers first")
}
