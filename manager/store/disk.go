package store

import (
	"io"

	"github.com/hashicorp/raft-wal/types"
)

// Disk is where the log's segments lie, for those who play with one: see
// Config.Disk. Names are within dir, which is there. What Create and Delete did
// outlives a crash; what was written does once Sync has returned.
type Disk interface {
	List(dir string) ([]string, error) // sorted
	Create(dir, name string, size uint64) (DiskFile, error)
	Delete(dir, name string) error // fs.ErrNotExist where it is not there
	Open(dir, name string) (DiskFile, error)
}

// DiskFile is a segment. Bytes that were never written are zero.
type DiskFile interface {
	io.WriterAt
	io.ReaderAt
	io.Closer
	Sync() error
}

// files is what the log's segments are read and written through; nil means the
// file system.
func (cfg Config) files() types.VFS {
	if cfg.Disk != nil {
		return played{cfg.Disk}
	}
	return cfg.vfs
}

// played shows a Disk to the log.
type played struct{ disk Disk }

// ListDir implements types.VFS.
func (p played) ListDir(dir string) ([]string, error) { return p.disk.List(dir) }

// Create implements types.VFS.
func (p played) Create(dir, name string, size uint64) (types.WritableFile, error) {
	return p.disk.Create(dir, name, size)
}

// Delete implements types.VFS.
func (p played) Delete(dir, name string) error { return p.disk.Delete(dir, name) }

// OpenReader implements types.VFS.
func (p played) OpenReader(dir, name string) (types.ReadableFile, error) {
	return p.disk.Open(dir, name)
}

// OpenWriter implements types.VFS.
func (p played) OpenWriter(dir, name string) (types.WritableFile, error) {
	return p.disk.Open(dir, name)
}
