package gitsync

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/go-git/go-billy/v5/memfs"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// Limits on single objects, in bytes.
const (
	maxCommit = 1 << 20
	maxFolder = 32 << 20
	maxBase   = 128 << 20 // of what a delta is applied to
)

// Errors that a caller may want to tell apart.
var (
	// ErrTooLarge marks a file that is larger than the caller's limit.
	ErrTooLarge = errors.New("file is too large")
	// errDamaged marks an object that is missing, or is not what its name says.
	errDamaged = errors.New("object is missing or damaged")
)

// objects reads the objects of one repository folder. Each is checked against
// its name, so what is read is what was committed.
type objects struct {
	remedy  string // what to do about a damaged object
	damaged func() // told when one is met; may be nil

	mu      sync.Mutex // go-git's storage is for one goroutine
	git     *filesystem.Storage
	folders map[plumbing.Hash][]Entry // decoded, checked
	held    int                       // entries in folders
	names   map[plumbing.Hash]named   // of compose files, see stackName
}

// maxHeld is how many decoded folder entries are kept in memory.
const maxHeld = 200_000

// openObjects reads the repository whose HEAD and objects are in dir. What is
// outside of dir is out of reach: links and alternates included.
func openObjects(dir, remedy string) *objects {
	git := filesystem.NewStorageWithOptions(
		osfs.New(dir, osfs.WithBoundOS()),
		cache.NewObjectLRU(8*cache.MiByte),
		filesystem.Options{AlternatesFS: memfs.New()},
	)
	return &objects{git: git, remedy: remedy, folders: map[plumbing.Hash][]Entry{}, names: map[plumbing.Hash]named{}}
}

// refresh looks for packs that are new.
func (o *objects) refresh() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.git.Reindex()
}

// read returns the content of an object of at most limit bytes. The size is
// looked at before the content.
func (o *objects) read(kind plumbing.ObjectType, id plumbing.Hash, limit int64) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.readLocked(kind, id, limit)
}

func (o *objects) readLocked(kind plumbing.ObjectType, id plumbing.Hash, limit int64) ([]byte, error) {
	data, err := o.load(kind, id, limit)
	if err != nil && !errors.Is(err, ErrTooLarge) {
		o.git.Reindex() // git may have packed the repository anew
		data, err = o.load(kind, id, limit)
	}

	if err == nil && plumbing.ComputeHash(kind, data) != id {
		err = errors.New("content does not match its name")
	}
	if err == nil || errors.Is(err, ErrTooLarge) {
		return data, err
	}
	if o.damaged != nil {
		o.damaged()
	}
	return nil, fmt.Errorf("%s %s: %w (%w): %s", kind, id, errDamaged, err, o.remedy)
}

func (o *objects) load(kind plumbing.ObjectType, id plumbing.Hash, limit int64) (data []byte, err error) {
	defer recovered(&err)

	size, err := o.git.EncodedObjectSize(id)
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, size, limit)
	}
	if err := o.checkBases(id); err != nil {
		return nil, err
	}

	object, err := o.git.EncodedObject(kind, id)
	if err != nil {
		return nil, err
	}
	r, err := object.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, limit+1))
}

// any returns an object of whichever kind.
func (o *objects) any(id plumbing.Hash, limit int64) (plumbing.ObjectType, []byte, error) {
	for _, kind := range []plumbing.ObjectType{plumbing.BlobObject, plumbing.TreeObject, plumbing.CommitObject} {
		o.mu.Lock()
		data, err := o.load(kind, id, limit)
		o.mu.Unlock()
		if err == nil && plumbing.ComputeHash(kind, data) == id {
			return kind, data, nil
		}
	}
	return plumbing.InvalidObject, nil, plumbing.ErrObjectNotFound
}

// checkBases refuses a small object that is kept as the difference from a huge
// one, which would have to be held in memory.
func (o *objects) checkBases(id plumbing.Hash) error {
	for range 4096 {
		size, err := o.git.EncodedObjectSize(id)
		if err != nil {
			return err
		}
		if size > maxBase {
			return fmt.Errorf("it is kept as the difference from an object of %d bytes, the limit is %d", size, maxBase)
		}

		object, err := o.git.DeltaObject(plumbing.AnyObject, id)
		if err != nil {
			return err
		}
		delta, ok := object.(plumbing.DeltaObject)
		if !ok {
			return nil
		}
		id = delta.BaseHash()
	}
	return errors.New("its chain of differences is too long")
}

// size returns how long an object is, without reading it.
func (o *objects) size(id plumbing.Hash) (size int64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer recovered(&err)

	if size, err = o.git.EncodedObjectSize(id); err != nil {
		o.git.Reindex()
		size, err = o.git.EncodedObjectSize(id)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w (%w): %s", id, errDamaged, err, o.remedy)
	}
	return size, nil
}

// has reports whether the object is there, without reading it.
func (o *objects) has(id plumbing.Hash) (there bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer recovered(&err)

	if o.git.HasEncodedObject(id) == nil {
		return true, nil
	}
	o.git.Reindex()
	return o.git.HasEncodedObject(id) == nil, nil
}

// folder returns the entries of a tree object, by name.
func (o *objects) folder(id plumbing.Hash) ([]Entry, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if entries, ok := o.folders[id]; ok {
		return entries, nil
	}

	data, err := o.readLocked(plumbing.TreeObject, id, maxFolder)
	if err != nil {
		return nil, err
	}
	entries, err := parseFolder(data)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", id, err)
	}

	if o.held += len(entries) + 1; o.held > maxHeld {
		clear(o.folders)
		o.held = len(entries) + 1
	}
	o.folders[id] = entries
	return entries, nil
}

// recovered turns a panic of the git library into an error: what it reads
// comes from outside.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the git library gave up: %v", p)
	}
}
