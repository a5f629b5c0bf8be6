// Package blobs keeps content by its digest, sealed, in files: rendered stacks,
// task specs, files of the repository, secrets. What is put is on the disks of
// a majority of managers before the log may name it; what is missing or damaged
// here comes from another manager. It refuses to give out content that does not
// match its name, and never keeps a byte in clear.
package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// Reasons why a blob is not given out, or not taken.
var (
	ErrMissing = errors.New("the blob is not there")
	ErrDamaged = errors.New("the blob is damaged")
	ErrQuorum  = errors.New("too few managers have it")
	ErrClosed  = errors.New("the blobs were closed")
)

// MaxSize is the largest content in bytes.
const MaxSize = 1 << 30

// Peer is another manager's Blobs. Both calls concern what lies there alone;
// *Blobs is one. Peers are compared by ==: one manager's are equal.
type Peer interface {
	PutBlob(ctx context.Context, digest swarm.Digest, data []byte) error
	GetBlob(ctx context.Context, digest swarm.Digest) ([]byte, error)
}

// Config is what Blobs need.
type Config struct {
	Dir     string        // required: a folder of their own, made if it is absent
	Keyring *seal.Keyring // required
	Peers   func() []Peer // optional: the other voters as they are now; nil means that this manager is alone
	Log     *slog.Logger  // optional: nil drops warnings
}

// Blobs is a folder of sealed content, one of several with equal content. It
// is safe for concurrent use.
type Blobs struct {
	dir     string
	keyring *seal.Keyring
	peers   func() []Peer
	log     *slog.Logger

	mu    sync.RWMutex // held for writing while a file goes, for reading while one is found or made
	holds int          // while it is above 0, no file goes

	asking     singleflight.Group // by digest
	settled    settled
	stragglers budget
	ending     sync.Mutex // held while something begins in the background, or all ends
	running    sync.WaitGroup
	ctx        context.Context // of what goes on in the background
	stop       context.CancelFunc
}

// Open uses dir for a manager that is alone, see New.
func Open(dir string, keyring *seal.Keyring) (*Blobs, error) {
	return New(Config{Dir: dir, Keyring: keyring})
}

// New uses a folder and removes what an interrupted Put left there.
func New(config Config) (*Blobs, error) {
	if config.Dir == "" || config.Keyring == nil {
		return nil, errors.New("open blobs: Dir and Keyring are required")
	}
	if config.Peers == nil {
		config.Peers = func() []Peer { return nil }
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if err := prepare(config.Dir); err != nil {
		return nil, fmt.Errorf("open blobs %s: %w", config.Dir, err)
	}
	b := &Blobs{dir: config.Dir, keyring: config.Keyring, peers: config.Peers, log: config.Log}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b, nil
}

// Close ends what goes on in the background and waits for that. What was put
// stays where it arrived.
func (b *Blobs) Close() error {
	b.ending.Lock()
	b.stop()
	b.ending.Unlock()
	b.running.Wait()
	return nil
}

// begin counts something that goes on in the background, until it calls
// b.running.Done. After Close it returns an error.
func (b *Blobs) begin() error {
	b.ending.Lock()
	defer b.ending.Unlock()
	if b.ctx.Err() != nil {
		return ErrClosed
	}
	b.running.Add(1)
	return nil
}

// Put keeps data and returns its name, "sha256:<hex>". When it returns without
// an error, a majority of the voters has the data, this manager among them, and
// they survive a crash there; the other voters get them in the background.
// Putting content again costs a read. One of its errors is ErrQuorum.
func (b *Blobs) Put(ctx context.Context, data []byte) (swarm.Digest, error) {
	if err := fits(data); err != nil {
		return "", err
	}
	digest := codec.DigestBytes(data)
	return digest, b.put(ctx, digest, data)
}

// PutSecret keeps data as Put does, under a name that only this cluster can
// compute, "hmac-sha256:<hex>".
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
	peers := b.peers()
	if b.settled.has(digest, peers, time.Now()) {
		peers = nil
	}

	sent := b.deliver(peers, digest, data)
	if err := b.keep(digest, data); err != nil {
		sent.cancel()
		return err
	}
	if len(peers) == 0 {
		sent.cancel()
		return nil
	}
	if err := b.awaitMajority(ctx, sent); err != nil {
		return fmt.Errorf("put blob %s: %w", digest, err)
	}
	b.settled.note(digest, peers, time.Now())
	return nil
}

// PutBlob keeps here what another manager gives, if it is what its name says.
// When it returns, the data survive a crash of this manager.
func (b *Blobs) PutBlob(ctx context.Context, digest swarm.Digest, data []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put blob %s: %w", digest, err)
	}
	if err := fits(data); err != nil {
		return err
	}
	if _, err := b.path(digest); err != nil {
		return fmt.Errorf("put blob: %w", err)
	}
	if b.name(digest, data) != digest {
		return fmt.Errorf("put blob %s: %w: its content has another name here", digest, ErrDamaged)
	}
	return b.keep(digest, data)
}

// keep writes a blob to this manager's disk.
func (b *Blobs) keep(digest swarm.Digest, data []byte) error {
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

// Get returns the content of that name. If it is missing or damaged here,
// other managers are asked, and what they give is verified and kept. Its
// errors are ErrMissing, ErrDamaged, and those of ctx.
func (b *Blobs) Get(ctx context.Context, digest swarm.Digest) ([]byte, error) {
	data, err := b.GetBlob(ctx, digest)
	if !errors.Is(err, ErrMissing) && !errors.Is(err, ErrDamaged) || len(b.peers()) == 0 {
		return data, err
	}
	data, asked := b.fetch(ctx, digest)
	if asked != nil {
		return nil, fmt.Errorf("%w; other managers were asked: %w", err, asked)
	}
	if errors.Is(err, ErrDamaged) {
		b.log.Warn("damaged blob was replaced by another manager's", "blob", digest, "err", err)
	}
	return data, nil
}

// GetBlob returns the content of that name if it is whole here. Its errors are
// ErrMissing and ErrDamaged.
func (b *Blobs) GetBlob(ctx context.Context, digest swarm.Digest) ([]byte, error) {
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

// Has reports whether content of that name is kept here; it does not read it.
func (b *Blobs) Has(digest swarm.Digest) bool {
	path, err := b.path(digest)
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// All are the names of everything that is kept here, in no useful order.
func (b *Blobs) All() ([]swarm.Digest, error) {
	var all []swarm.Digest
	err := b.walk(func(_ string, digest swarm.Digest) error {
		all = append(all, digest)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list blobs %s: %w", b.dir, err)
	}
	return all, nil
}

// walk calls do for each blob, by path.
func (b *Blobs) walk(do func(path string, digest swarm.Digest) error) error {
	return filepath.WalkDir(b.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a file may go meanwhile
			return err
		}
		digest, ok := b.digest(path)
		if !ok || err != nil {
			return nil
		}
		return do(path, digest)
	})
}
