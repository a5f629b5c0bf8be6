package main

import (
	"context"
	"fmt"
	"time"
)

// How often a manager looks after its disk, and how soon again if that did
// not succeed.
const (
	upkeepEvery = time.Hour
	upkeepAgain = 5 * time.Minute
)

// keepDisk keeps this manager's blobs complete and its old data keys few,
// whether it leads or not.
func (m *managing) keepDisk(ctx context.Context) error {
	for {
		wait := upkeepEvery
		if err := m.tidyDisk(ctx); err != nil && ctx.Err() == nil {
			m.config.Log.Warn("disk not looked after; it is tried again", "err", err)
			wait = upkeepAgain
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (m *managing) tidyDisk(ctx context.Context) error {
	if _, err := m.awaitCluster(ctx); err != nil {
		return err
	}
	if err := m.leader.KeepBlobs(ctx); err != nil {
		return err
	}
	return m.retireKeys(ctx)
}

// retireKeys seals anew what former data keys sealed, and forgets those that
// nothing needs any more: those from before autolock were on the disk in clear.
func (m *managing) retireKeys(ctx context.Context) error {
	keyring := m.now.keyring
	if len(keyring.Former()) == 0 {
		return nil
	}
	if err := m.now.self.Seal(keyring); err != nil {
		return err
	}
	if _, err := m.blobs.Reseal(ctx); err != nil {
		return err
	}
	if err := m.store.Snapshot(); err != nil {
		return err
	}
	gone, err := keyring.Retire(time.Now(), m.blobs.Keys, m.store.Keys)
	if err != nil {
		return fmt.Errorf("keep keys: %w", err)
	}
	if gone > 0 {
		m.config.Log.Info("old data keys were forgotten", "keys", gone)
	}
	return nil
}
