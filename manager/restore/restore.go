// Package restore begins a cluster again on an empty machine, from what package
// backup wrote: store, blobs and keyring, so that a daemon starts as the only
// manager. It leaves all of it or nothing, whenever it is cut off, and never
// writes over what is there.
package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gitswarm/gitswarm/internal/durable"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/backup"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// What a manager keeps below its data folder, as docs/architecture.md has it.
const (
	StoreDir    = "raft"
	BlobsDir    = "blobs"
	KeyringFile = "keys"
)

// A restore is made in a folder of its own. Once that is whole it says so, and
// then its parts move to their places; Resume goes on after a crash.
const (
	makingDir = "restoring"
	wholeFile = "whole"
)

// Place is where a backup is restored.
type Place struct {
	Dir  string       // required: the data folder; what a manager keeps there must be absent
	Node swarm.NodeID // required: who will be the only manager
	Now  time.Time    // required
}

// Restored is what a restore made.
type Restored struct {
	backup.Summary
	State swarm.Cluster // of the state; with its Authority the node gets its certificate
	Start uint64        // the state's index now, beyond all that nodes have seen
}

// Backup makes what a manager needs to begin alone with a backup's state:
// store, blobs and keyring, locked by the cluster's unlock key if that had one.
// Nothing is there unless it returns without an error. Errors: those of
// backup.Read, of the disk and of ctx.
func Backup(ctx context.Context, from io.Reader, key backup.Key, place Place) (Restored, error) {
	restored, err := makeAll(ctx, from, key, place)
	if err != nil {
		return Restored{}, fmt.Errorf("restore backup into %s: %w", place.Dir, err)
	}
	return restored, nil
}

func makeAll(ctx context.Context, from io.Reader, key backup.Key, place Place) (Restored, error) {
	if place.Dir == "" || place.Node == "" || place.Now.IsZero() {
		return Restored{}, errors.New("Dir, Node and Now are required")
	}
	if _, err := Resume(place.Dir); err != nil {
		return Restored{}, err
	}
	if err := vacant(place.Dir); err != nil {
		return Restored{}, err
	}
	making := filepath.Join(place.Dir, makingDir)
	if err := os.MkdirAll(making, 0o700); err != nil {
		return Restored{}, err
	}

	b := &builder{ctx: ctx, dir: making, place: place}
	summary, err := backup.Read(from, key, b)
	if err == nil {
		err = b.finish()
	}
	if err == nil {
		err = durable.WriteFile(filepath.Join(making, wholeFile), nil)
	}
	if err != nil {
		return Restored{}, errors.Join(err, os.RemoveAll(making))
	}
	if _, err := Resume(place.Dir); err != nil {
		return Restored{}, err
	}
	return Restored{Summary: summary, State: b.imported.Cluster, Start: b.imported.Index}, nil
}

// vacant refuses a folder in which a manager keeps something.
func vacant(dir string) error {
	for _, name := range []string{StoreDir, BlobsDir, KeyringFile} {
		path := filepath.Join(dir, name)
		entries, err := os.ReadDir(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil: // no folder, for one
			return fmt.Errorf("%s is there already: `gitswarm leave --force` removes what this machine has of a cluster", path)
		case len(entries) > 0:
			return fmt.Errorf("%s is not empty: `gitswarm leave --force` removes what this machine has of a cluster", path)
		}
	}
	return nil
}

// Resume puts right what a crash during Backup left in a data folder: it
// completes a restore that was whole, which it reports, and removes one that
// was not. It is called before anything there is opened.
func Resume(dir string) (completed bool, err error) {
	making := filepath.Join(dir, makingDir)
	whole := filepath.Join(making, wholeFile)
	if _, err := os.Stat(whole); errors.Is(err, fs.ErrNotExist) {
		if err := os.RemoveAll(making); err != nil {
			return false, fmt.Errorf("remove an unfinished restore: %w", err)
		}
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("look for an unfinished restore: %w", err)
	}

	for _, name := range []string{BlobsDir, StoreDir, KeyringFile} {
		made, to := filepath.Join(making, name), filepath.Join(dir, name)
		if _, err := os.Lstat(made); errors.Is(err, fs.ErrNotExist) {
			continue // it moved before the crash
		}
		_ = syscall.Rmdir(to) // if it is an empty folder
		if err := os.Rename(made, to); err != nil {
			return false, fmt.Errorf("complete a restore: %w", err)
		}
	}
	if err := durable.SyncFolder(dir); err != nil {
		return false, fmt.Errorf("complete a restore: %w", err)
	}
	if err := errors.Join(os.Remove(whole), os.RemoveAll(making)); err != nil {
		return false, fmt.Errorf("complete a restore: %w", err)
	}
	return true, nil
}

// builder takes a backup apart into a folder.
type builder struct {
	ctx      context.Context // of the one call that it is for
	dir      string
	place    Place
	keyring  *seal.Keyring
	blobs    *blobs.Blobs
	imported store.Imported
}

// Begin makes the keyring. It is locked before the cluster's key is in it and
// before anything is sealed, so that nothing of the cluster touches the disk in
// clear.
func (b *builder) Begin(h backup.Header) (err error) {
	if b.keyring, err = seal.Create(filepath.Join(b.dir, KeyringFile)); err != nil {
		return err
	}
	if len(h.Unlock) > 0 {
		if _, err := b.keyring.Follow(h.Unlock); err != nil {
			return err
		}
	}
	if err := b.keyring.SetCluster(h.Naming); err != nil {
		return err
	}
	b.blobs, err = blobs.Open(filepath.Join(b.dir, BlobsDir), b.keyring)
	return err
}

// State implements backup.Taker.
func (b *builder) State(from io.Reader) (err error) {
	b.imported, err = store.Import(store.Config{
		Dir: filepath.Join(b.dir, StoreDir), Node: b.place.Node, Keyring: b.keyring,
	}, from, b.place.Now)
	return err
}

// Blob implements backup.Taker.
func (b *builder) Blob(digest swarm.Digest, data []byte) error {
	return b.blobs.PutBlob(b.ctx, digest, data)
}

func (b *builder) finish() error {
	err := errors.Join(b.ctx.Err(), b.blobs.Close())
	for _, folder := range []string{StoreDir, BlobsDir, "."} {
		err = errors.Join(err, durable.SyncFolder(filepath.Join(b.dir, folder)))
	}
	return err
}
