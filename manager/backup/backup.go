// Package backup writes a whole cluster into one sealed file and reads it
// again: the state with the certificate authority, every blob, the key that
// names secrets. It decides nothing about when, where to or who may; it writes
// nothing in clear, and takes no file that is not whole. What becomes of what
// it reads is package restore's.
//
// A file is a clear header, see key.go, and a sealed stream of frames:
//
//	kind (1) | length (uvarint, at most 1 MiB) | content
//
// H header · S state, in pieces · B a blob begins · D its content, in pieces ·
// M a blob that no manager had · E end, with counts and a checksum.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// Reasons why a file is not restored.
var (
	ErrNoBackup  = errors.New("that is no backup of gitswarm")
	ErrNewer     = errors.New("a newer build wrote it: restore it with that build")
	ErrKey       = errors.New("the key does not open it: take the one that the backup was made with")
	ErrTruncated = errors.New("it is cut off: copy it again")
	ErrDamaged   = errors.New("it was changed after it was written: take another copy")
)

// frameFormat is what this build writes into H; it reads no later one.
const frameFormat = 1

// Header begins a backup.
type Header struct {
	Format  int       `cbor:"1,keyasint,omitempty"`
	Cluster string    `cbor:"2,keyasint,omitempty"`
	Taken   time.Time `cbor:"3,keyasint,omitzero"`
	Build   string    `cbor:"4,keyasint,omitempty"`
	Naming  []byte    `cbor:"5,keyasint,omitempty"` // the key that names secrets
	Unlock  []byte    `cbor:"6,keyasint,omitempty"` // autolock: what keyrings are wrapped in
}

// blobHeader is frame B.
type blobHeader struct {
	Digest swarm.Digest `cbor:"1,keyasint,omitempty"`
	Size   int64        `cbor:"2,keyasint,omitempty"` // bytes
}

// end is frame E.
type end struct {
	Index   uint64 `cbor:"1,keyasint,omitempty"` // of the state
	Blobs   int    `cbor:"2,keyasint,omitempty"`
	Missing int    `cbor:"3,keyasint,omitempty"`
	Sum     []byte `cbor:"4,keyasint,omitempty"` // SHA-256 of all frames before
}

// State gives out the cluster's state; *store.Store is one.
type State interface {
	Export(to io.Writer) (index uint64, err error)
}

// Blobs give out content; *blobs.Blobs are some.
type Blobs interface {
	Hold() (release func())
	All() ([]swarm.Digest, error)
	Get(ctx context.Context, digest swarm.Digest) ([]byte, error)
}

// Content is what a backup holds.
type Content struct {
	Cluster swarm.Cluster // required: as in the state
	State   State         // required
	Blobs   Blobs         // required
	Naming  []byte        // required: seal.Keyring.ClusterKey
	Build   string        // optional: for people

	// Named are the blobs that the state names; those that are not on this
	// manager's disk come from others. Optional.
	Named func(ctx context.Context) ([]swarm.Digest, error)
}

// Summary is what a backup holds, for people.
type Summary struct {
	Cluster string
	Build   string
	Taken   time.Time
	Index   uint64         // of the state
	Blobs   int            // without Missing
	Missing []swarm.Digest // that the state names and no manager gave
}

// Write writes a backup to to. It is whole only if Write returns no error. A
// blob that no manager has does not hinder it: the summary names it.
func Write(ctx context.Context, to io.Writer, key Key, content Content, now time.Time) (Summary, error) {
	summary, err := write(ctx, to, key, content, now)
	if err != nil {
		return Summary{}, fmt.Errorf("write backup: %w", err)
	}
	return summary, nil
}

func write(ctx context.Context, to io.Writer, key Key, content Content, now time.Time) (Summary, error) {
	release := content.Blobs.Hold()
	defer release()

	sealed, err := newSealedWriter(to, key)
	if err != nil {
		return Summary{}, err
	}
	w := newFrameWriter(sealed)
	w.value(kindHeader, Header{
		Format: frameFormat, Cluster: content.Cluster.ID, Taken: now.UTC(), Build: content.Build,
		Naming: content.Naming, Unlock: content.Cluster.UnlockKey,
	})
	index, err := content.State.Export(pieces{w, kindState})
	if err != nil {
		return Summary{}, err
	}
	summary := Summary{Cluster: content.Cluster.ID, Build: content.Build, Taken: now.UTC(), Index: index}
	if err := writeBlobs(ctx, w, content, &summary); err != nil {
		return Summary{}, err
	}
	w.value(kindEnd, end{Index: index, Blobs: summary.Blobs, Missing: len(summary.Missing), Sum: w.sum.Sum(nil)})
	if w.err != nil {
		return Summary{}, w.err
	}
	return summary, sealed.Close()
}

// writeBlobs writes what the state names, and what lies on this manager's disk
// although nothing names it yet.
func writeBlobs(ctx context.Context, w *frameWriter, content Content, summary *Summary) error {
	named := make(map[swarm.Digest]bool)
	all, err := content.Blobs.All()
	if err != nil {
		return err
	}
	if content.Named != nil {
		names, err := content.Named(ctx)
		if err != nil {
			return fmt.Errorf("find the blobs in use: %w", err)
		}
		for _, digest := range names {
			named[digest] = true
		}
		all = append(all, names...)
	}
	slices.Sort(all)

	for _, digest := range slices.Compact(all) {
		if digest == "" {
			continue
		}
		data, err := content.Blobs.Get(ctx, digest)
		switch {
		case err == nil:
			w.blob(digest, data)
			summary.Blobs++
		case ctx.Err() != nil:
			return ctx.Err()
		case named[digest] || content.Named == nil:
			w.value(kindMissing, digest)
			summary.Missing = append(summary.Missing, digest)
		}
		if w.err != nil {
			return w.err
		}
	}
	return w.err
}

// Taker takes what a backup holds: Begin and State once, in this order, then
// Blob for each blob. It counts only once Read returns without an error.
type Taker interface {
	Begin(Header) error
	State(from io.Reader) error // reads all of it
	Blob(digest swarm.Digest, data []byte) error
}

// Read verifies a whole backup and gives what it holds to to; nil is for who
// only wants to know. Errors: ErrNoBackup, ErrNewer, ErrKey, ErrTruncated,
// ErrDamaged, and those of to.
func Read(from io.Reader, key Key, to Taker) (Summary, error) {
	if to == nil {
		to = nowhere{}
	}
	sealed, err := newSealedReader(from, key)
	if err != nil {
		return Summary{}, fmt.Errorf("read backup: %w", err)
	}
	summary, err := readFrames(sealed, to)
	if err != nil {
		return Summary{}, fmt.Errorf("read backup: %w", reason(err))
	}
	return summary, nil
}

// nowhere is where a backup goes that is only verified.
type nowhere struct{}

// Begin implements Taker.
func (nowhere) Begin(Header) error { return nil }

// State implements Taker.
func (nowhere) State(from io.Reader) error {
	_, err := io.Copy(io.Discard, from)
	return err
}

// Blob implements Taker.
func (nowhere) Blob(swarm.Digest, []byte) error { return nil }

// reason turns what a sealed stream says into what a person can act on.
func reason(err error) error {
	switch {
	case errors.Is(err, seal.ErrUnknownKey):
		return ErrKey
	case errors.Is(err, seal.ErrTruncated):
		return ErrTruncated
	case errors.Is(err, seal.ErrTampered), errors.Is(err, seal.ErrFormat):
		return fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	return err
}
