package sim

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/gitswarm/gitswarm/manager/store"
)

// disk holds the segments of one manager's log. It knows what was written and
// not yet synced, and loses a part of that in a crash.
type disk struct {
	mu    sync.Mutex
	files map[string]*file
	full  bool
	syncs int   // until the disk breaks; 0 is never
	lame  error // of every write and Sync
}

func newDisk() *disk { return &disk{files: make(map[string]*file)} }

// file is one segment. Bytes after data are zero.
type file struct {
	disk    *disk
	size    int64
	data    []byte // as it reads
	durable []byte // as it would read after a crash that loses all
	pending []span // written since the last Sync
	named   bool   // it was synced once, so its name is on the disk
}

// span is a write: from this offset, that many bytes.
type span struct{ at, length int }

// List implements store.Disk.
func (d *disk) List(string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.files)), nil
}

// Create implements store.Disk.
func (d *disk) Create(_, name string, size uint64) (store.DiskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lame != nil {
		return nil, d.lame
	}
	if d.full {
		return nil, syscall.ENOSPC
	}
	if d.files[name] != nil {
		return nil, fmt.Errorf("create %s: %w", name, fs.ErrExist)
	}
	d.files[name] = &file{disk: d, size: int64(size)}
	return d.files[name], nil
}

// Delete implements store.Disk.
func (d *disk) Delete(_, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[name] == nil {
		return fmt.Errorf("delete %s: %w", name, fs.ErrNotExist)
	}
	delete(d.files, name)
	return nil
}

// Open implements store.Disk.
func (d *disk) Open(dir, name string) (store.DiskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[name] == nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Join(dir, name), fs.ErrNotExist)
	}
	return d.files[name], nil
}

// crashed is the disk as the next start finds it: of what was not synced, it
// has some writes, some parts of writes, in any order.
func (d *disk) crashed(chance *rand.Rand) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := newDisk()
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[name]
		if !f.named && chance.IntN(2) == 0 {
			continue
		}
		kept := &file{disk: after, size: f.size, data: slices.Clone(f.durable), named: true}
		for _, s := range f.pending {
			kept.put(s.at, f.data[s.at:s.at+chance.IntN(s.length+1)])
		}
		kept.durable = slices.Clone(kept.data)
		after.files[name] = kept
	}
	return after
}

// left is the disk as it is after a process died: the kernel has what was
// written.
func (d *disk) left() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := newDisk()
	for name, f := range d.files {
		after.files[name] = &file{
			disk: after, size: f.size, data: slices.Clone(f.data), durable: slices.Clone(f.durable),
			pending: slices.Clone(f.pending), named: f.named,
		}
	}
	return after
}

// breaks makes the disk fail at that Sync from now on, or at once for 0.
func (d *disk) breaks(syncs int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs = syncs
	if syncs == 0 {
		d.lame = syscall.EIO
	}
}

// fill makes the disk full.
func (d *disk) fill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = true
}

// put writes bytes into data. The caller holds mu.
func (f *file) put(at int, p []byte) {
	if short := at + len(p) - len(f.data); short > 0 {
		f.data = append(f.data, make([]byte, short)...)
	}
	copy(f.data[at:], p)
}

// WriteAt implements io.WriterAt.
func (f *file) WriteAt(p []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.lame != nil {
		return 0, f.disk.lame
	}
	if f.disk.full {
		return 0, syscall.ENOSPC
	}
	f.put(int(at), p)
	f.pending = append(f.pending, span{int(at), len(p)})
	f.size = max(f.size, at+int64(len(p)))
	return len(p), nil
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if at >= f.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), f.size-at))
	clear(p[:n])
	if at < int64(len(f.data)) {
		copy(p[:n], f.data[at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Sync makes what was written outlive a crash.
func (f *file) Sync() error {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.syncs > 0 {
		if d.syncs--; d.syncs == 0 {
			d.lame = syscall.EIO
		}
	}
	if d.lame != nil {
		return d.lame
	}
	if short := len(f.data) - len(f.durable); short > 0 {
		f.durable = append(f.durable, make([]byte, short)...)
	}
	for _, s := range f.pending {
		copy(f.durable[s.at:], f.data[s.at:s.at+s.length])
	}
	f.pending, f.named = nil, true
	return nil
}

// Close implements io.Closer.
func (f *file) Close() error { return nil }
