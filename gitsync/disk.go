package gitsync

import (
	"crypto/sha1" //nolint:gosec // git's format, against bit rot only
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
)

func newSHA1() hash.Hash { return sha1.New() } //nolint:gosec // see above

// writeDurably replaces a file by another content, wholly or not at all.
func writeDurably(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "incoming-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(f.Name())

	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return syncFolder(filepath.Dir(name))
}

func syncFolder(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}
