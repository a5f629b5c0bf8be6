package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// young is how long a blob is kept before anything names it: it is put first,
// by this manager or another one, and the log names it afterwards.
const young = time.Hour

// Sweep removes what is not live and was put more than an hour ago, and
// returns how many blobs went. Each manager sweeps for itself, by a state that
// it has confirmed with the leader: an old one would not know what the log
// names since.
func (b *Blobs) Sweep(live func(swarm.Digest) bool) (int, error) {
	before := time.Now().Add(-young)
	removed := 0
	err := b.walk(func(path string, digest swarm.Digest) error {
		if live(digest) {
			return nil
		}
		gone, err := b.remove(path, before)
		if gone {
			removed++
		}
		return err
	})
	if err != nil {
		return removed, fmt.Errorf("sweep blobs %s: %w", b.dir, err)
	}
	return removed, nil
}

// remove takes one file away unless it was put after the given time.
func (b *Blobs) remove(path string, before time.Time) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()

	info, err := os.Stat(path)
	if err != nil || info.ModTime().After(before) || b.holds > 0 {
		return false, err
	}
	return true, os.Remove(path)
}

// Hold keeps Sweep from removing anything until release is called, as a backup
// needs it: what the state names at its beginning must be there at its end.
func (b *Blobs) Hold() (release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holds++
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.holds--
	})
}

// Keys are the data keys that blobs here are sealed with, see
// seal.Keyring.Retire.
func (b *Blobs) Keys() (map[seal.KeyID]bool, error) {
	keys := make(map[seal.KeyID]bool)
	err := b.walk(func(path string, _ swarm.Digest) error {
		key, err := keyOf(path)
		if err == nil {
			keys[key] = true
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find the keys of blobs %s: %w", b.dir, err)
	}
	return keys, nil
}

// keyOf reads the beginning of one file. One that is gone or was cut off needs
// no key.
func keyOf(path string) (seal.KeyID, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return seal.KeyID{}, nil
	}
	if err != nil {
		return seal.KeyID{}, err
	}
	defer f.Close()
	header := make([]byte, seal.HeaderSize)
	if _, err := io.ReadFull(f, header); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return seal.KeyID{}, err
	}
	key, err := seal.KeyOf(header)
	if errors.Is(err, seal.ErrFormat) { // damaged: no key opens it
		return seal.KeyID{}, nil
	}
	return key, err
}

// Reseal writes every blob anew that is not sealed with the current data key,
// and returns how many. Damaged ones stay as they are: Get heals them.
func (b *Blobs) Reseal(ctx context.Context) (int, error) {
	resealed := 0
	err := b.walk(func(path string, digest swarm.Digest) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		key, err := keyOf(path)
		if err != nil || key == b.keyring.Current() || key == (seal.KeyID{}) {
			return err
		}
		written, err := b.again(path, digest)
		if written {
			resealed++
		}
		return err
	})
	if err != nil {
		return resealed, fmt.Errorf("reseal blobs %s: %w", b.dir, remedy(err))
	}
	return resealed, nil
}

// again rewrites one file; its age stays. Meanwhile nobody makes it young.
func (b *Blobs) again(path string, digest swarm.Digest) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()

	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	data, err := b.read(path)
	if err != nil || b.name(digest, data) != digest {
		return false, nil // damaged
	}
	if err := b.write(path, data); err != nil {
		return false, err
	}
	return true, os.Chtimes(path, info.ModTime(), info.ModTime())
}
