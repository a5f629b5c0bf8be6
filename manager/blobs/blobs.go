// Package blobs keeps content by its digest, sealed, in files: rendered stacks,
// task specs, files of the repository, secrets. It refuses to give out content
// that does not match its name, and never keeps a byte in clear.
package blobs

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// Reasons why a blob is not given out.
var (
	ErrMissing = errors.New("the blob is not there")
	ErrDamaged = errors.New("the blob is damaged")
)

// MaxSize is the largest content in bytes.
const MaxSize = 1 << 30

// young is how long a blob is kept before anything names it: it is put first,
// and the log names it afterwards.
const young = time.Hour

const (
	shaPrefix  = "sha256:"
	secretMark = "hmac-" // begins the file names of secrets
	tempDir    = "tmp"
)

// sealContext binds sealed files to their purpose; their name is verified by
// the content itself.
var sealContext = []byte("gitswarm blob")

// Blobs is a folder of sealed content. It is safe for concurrent use.
type Blobs struct {
	dir     string
	keyring *seal.Keyring
	mu      sync.RWMutex // held for writing while a file goes, for reading while one is found or made
}

// Open uses dir, which it makes if it is absent, and removes what an
// interrupted Put left there.
func Open(dir string, keyring *seal.Keyring) (*Blobs, error) {
	temp := filepath.Join(dir, tempDir)
	if err := os.RemoveAll(temp); err != nil {
		return nil, fmt.Errorf("open blobs %s: %w", dir, err)
	}
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return nil, fmt.Errorf("open blobs %s: %w", dir, err)
	}
	if err := makeFolders(dir); err != nil {
		return nil, fmt.Errorf("open blobs %s: %w", dir, err)
	}
	return &Blobs{dir: dir, keyring: keyring}, nil
}

// makeFolders makes the folders 00 to ff once, so that no Put has to wait for
// a new folder to be safe on disk.
func makeFolders(dir string) error {
	made := false
	for i := range 256 {
		err := os.Mkdir(filepath.Join(dir, fmt.Sprintf("%02x", i)), 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		made = made || err == nil
	}
	if !made {
		return nil
	}
	return syncDir(dir)
}

// Put keeps data and returns its name, "sha256:<hex>". When it returns, the
// data survive a crash. Putting content again costs a read.
func (b *Blobs) Put(ctx context.Context, data []byte) (swarm.Digest, error) {
	if err := fits(data); err != nil {
		return "", err
	}
	digest := codec.DigestBytes(data)
	return digest, b.put(ctx, digest, data)
}

// PutSecret keeps data under a name that only this cluster can compute,
// "hmac-sha256:<hex>".
func (b *Blobs) PutSecret(ctx context.Context, data []byte) (swarm.Digest, error) {
	if err := fits(data); err != nil {
		return "", err
	}
	digest := b.keyring.SecretDigest(data)
	return digest, b.put(ctx, digest, data)
}

func fits(data []byte) error {
	if len(data) > MaxSize {
		return fmt.Errorf("put blob: %d bytes are more than %d", len(data), MaxSize)
	}
	return nil
}

func (b *Blobs) put(ctx context.Context, digest swarm.Digest, data []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put blob %s: %w", digest, err)
	}
	path, err := b.path(digest)
	if err != nil {
		return fmt.Errorf("put blob: %w", err)
	}

	b.mu.RLock()
	defer b.mu.RUnlock()

	if kept, err := b.read(path); err == nil && bytes.Equal(kept, data) {
		now := time.Now()
		if os.Chtimes(path, now, now) == nil { // young again: Sweep leaves it
			return nil
		}
	}
	if err := b.write(path, data); err != nil {
		return fmt.Errorf("put blob %s: %w", digest, remedy(err))
	}
	return nil
}

// Get returns the content of that name. Its errors are ErrMissing, ErrDamaged,
// and those of the disk.
func (b *Blobs) Get(ctx context.Context, digest swarm.Digest) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get blob %s: %w", digest, err)
	}
	path, err := b.path(digest)
	if err != nil {
		return nil, fmt.Errorf("get blob: %w", err)
	}

	b.mu.RLock()
	defer b.mu.RUnlock()

	data, err := b.read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("get blob %s: %w: restore %s from a backup, or push a commit that brings it again", digest, ErrMissing, path)
	case err != nil:
		return nil, fmt.Errorf("get blob %s: %w (%w): remove %s and push a commit that brings it again, or restore it from a backup", digest, ErrDamaged, err, path)
	case b.name(digest, data) != digest:
		return nil, fmt.Errorf("get blob %s: %w (it holds other content): remove %s and push a commit that brings it again, or restore it from a backup", digest, ErrDamaged, path)
	}
	return data, nil
}

// name computes what data are called, in the manner of like.
func (b *Blobs) name(like swarm.Digest, data []byte) swarm.Digest {
	if strings.HasPrefix(string(like), seal.SecretPrefix) {
		return b.keyring.SecretDigest(data)
	}
	return codec.DigestBytes(data)
}

// Has reports whether content of that name is kept; it does not read it.
func (b *Blobs) Has(digest swarm.Digest) bool {
	path, err := b.path(digest)
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// Sweep removes what is not live and was put more than an hour ago, and
// returns how many blobs went.
func (b *Blobs) Sweep(live func(swarm.Digest) bool) (int, error) {
	before := time.Now().Add(-young)
	removed := 0
	err := filepath.WalkDir(b.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		digest, ok := b.digest(path)
		if !ok || live(digest) {
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
	if err != nil || info.ModTime().After(before) {
		return false, err
	}
	return true, os.Remove(path)
}

// path is where content of that name lies: DIR/2 hex/64 hex, or
// DIR/2 hex/hmac-64 hex.
func (b *Blobs) path(digest swarm.Digest) (string, error) {
	mark := ""
	sum, ok := strings.CutPrefix(string(digest), shaPrefix)
	if !ok {
		if sum, ok = strings.CutPrefix(string(digest), seal.SecretPrefix); ok {
			mark = secretMark
		}
	}
	if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != 32 || sum != strings.ToLower(sum) {
		return "", fmt.Errorf("%q is no digest", digest)
	}
	return filepath.Join(b.dir, sum[:2], mark+sum), nil
}

// digest is the inverse of path.
func (b *Blobs) digest(path string) (swarm.Digest, bool) {
	name := filepath.Base(path)
	digest := swarm.Digest(shaPrefix + name)
	if sum, ok := strings.CutPrefix(name, secretMark); ok {
		digest = swarm.Digest(seal.SecretPrefix + sum)
	}
	at, err := b.path(digest)
	return digest, err == nil && at == path
}

func (b *Blobs) read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, err := b.keyring.NewReader(f, sealContext)
	if err != nil {
		return nil, err
	}
	var data bytes.Buffer
	data.Grow(int(min(info.Size(), MaxSize)) + bytes.MinRead)
	if _, err := data.ReadFrom(io.LimitReader(r, MaxSize+1)); err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}

// write makes the file appear whole or not at all, and to stay.
func (b *Blobs) write(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Join(b.dir, tempDir), "put-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // gone once it was renamed

	err = b.seal(temp, data)
	if err == nil {
		err = temp.Sync()
	}
	if err := errors.Join(err, temp.Close()); err != nil {
		return err
	}

	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func (b *Blobs) seal(to io.Writer, data []byte) error {
	w, err := b.keyring.NewWriter(to, sealContext)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Close()
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// remedy adds the way out of a full disk.
func remedy(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: free some space; it is tried again", err)
	}
	return err
}
