package gitsync

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/gitswarm/gitswarm/internal/durable"
)

// Limits on what one pack may unfold to.
const (
	maxObjects  = 5_000_000
	maxInflated = 16 << 30 // bytes, all objects together; they are streamed, not held
	maxDelta    = maxBase  // bytes of one difference, and of what it is applied to: these are held
	maxChain    = 4095     // differences upon differences; git's own ceiling
)

// errPack marks a pack that is refused for what it is: asking again gives the same.
var errPack = errors.New("what the server sent is refused")

// receivePack writes a pack of at most limit bytes to folder, with the index
// that it computes for it, both durable. An interrupted one leaves nothing
// behind that would be read. Differences may be from objects that are kept.
func receivePack(ctx context.Context, folder string, pack io.Reader, limit int64, kept outside) error {
	f, err := os.CreateTemp(folder, "incoming-*")
	if err != nil {
		return fmt.Errorf("keep pack: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()

	n, err := io.Copy(f, io.LimitReader(pack, limit+1))
	if err != nil {
		return fmt.Errorf("receive objects: %w", err)
	}
	if n > limit {
		return fmt.Errorf("%w: the commit's files take more than %d MiB to send: take large files out of the repository", errPack, limit>>20)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("keep pack: %w", err)
	}

	index, err := indexPack(ctx, f, kept)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("keep pack: %w", err)
	}
	name := filepath.Join(folder, "pack-"+plumbing.Hash(index.PackfileChecksum).String())
	if err := writeIndex(name+".idx", index); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name+".pack"); err != nil {
		return fmt.Errorf("keep pack: %w", err)
	}
	return durable.SyncFolder(folder)
}

func writeIndex(name string, index *idxfile.MemoryIndex) error {
	var b bytes.Buffer
	if _, err := idxfile.NewEncoder(&b).Encode(index); err != nil {
		return fmt.Errorf("index pack: %w", err)
	}
	return durable.WriteFile(name, b.Bytes())
}

// packed is one object of a pack.
type packed struct {
	packfile.ObjectHeader
	hash plumbing.Hash // zero until known
	crc  uint32
}

// indexer finds the name of each object of a pack. What is no difference is
// only streamed through, however large.
type indexer struct {
	ctx      context.Context
	pack     io.ReadWriteSeeker
	outside  outside
	appended bool
	scanner  *packfile.Scanner
	objects  []packed
	byOffset map[int64]int
	byHash   map[plumbing.Hash]int
	bases    *cache.BufferLRU // content by offset
	kinds    map[int]plumbing.ObjectType
}

// indexPack reads a whole pack, checks its checksum, names its objects, and
// makes it whole if it is thin.
func indexPack(ctx context.Context, pack io.ReadWriteSeeker, kept outside) (index *idxfile.MemoryIndex, err error) {
	defer func() {
		if err != nil && ctx.Err() == nil && !errors.Is(err, errPack) {
			err = fmt.Errorf("%w: it is no valid pack: %w", errPack, err)
		}
	}()
	defer recovered(&err)

	x := indexer{
		ctx:      ctx,
		pack:     pack,
		outside:  kept,
		scanner:  packfile.NewScanner(pack),
		byOffset: map[int64]int{},
		byHash:   map[plumbing.Hash]int{},
		bases:    cache.NewBufferLRU(32 * cache.MiByte),
		kinds:    map[int]plumbing.ObjectType{},
	}
	checksum, err := x.scan()
	if err != nil {
		return nil, err
	}
	if err := x.resolve(); err != nil {
		return nil, err
	}
	if x.appended {
		if checksum, err = x.seal(); err != nil {
			return nil, err
		}
	}

	var w idxfile.Writer
	for _, object := range x.objects {
		w.Add(object.hash, uint64(object.Offset), object.crc)
	}
	if err := w.OnFooter(checksum); err != nil {
		return nil, err
	}
	return w.Index()
}

// scan reads the pack once from its beginning to its end.
func (x *indexer) scan() (plumbing.Hash, error) {
	_, count, err := x.scanner.Header()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if count > maxObjects {
		return plumbing.ZeroHash, fmt.Errorf("%w: %d objects, the limit is %d", errPack, count, maxObjects)
	}

	var inflated int64
	for i := range int(count) {
		if err := x.ctx.Err(); err != nil {
			return plumbing.ZeroHash, err
		}
		header, err := x.scanner.NextObjectHeader()
		if err != nil {
			return plumbing.ZeroHash, err
		}
		if inflated += header.Length; header.Length < 0 || inflated > maxInflated {
			return plumbing.ZeroHash, fmt.Errorf("%w: its objects unfold to more than %d GiB", errPack, maxInflated>>30)
		}
		object, err := x.pass(*header)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		x.objects = append(x.objects, object)
		x.byOffset[object.Offset] = i
		if !object.hash.IsZero() {
			x.byHash[object.hash] = i
		}
	}
	return x.scanner.Checksum()
}

func (x *indexer) pass(header packfile.ObjectHeader) (packed, error) {
	object := packed{ObjectHeader: header}
	if header.Type.IsDelta() {
		if header.Length > maxDelta {
			return object, fmt.Errorf("%w: a difference of %d bytes, the limit is %d", errPack, header.Length, maxDelta)
		}
		n, crc, err := x.scanner.NextObject(io.Discard)
		if err == nil && n != header.Length {
			err = io.ErrUnexpectedEOF
		}
		object.crc = crc
		return object, err
	}

	hasher := plumbing.NewHasher(header.Type, header.Length)
	n, crc, err := x.scanner.NextObject(hasher)
	if err != nil {
		return object, err
	}
	if n != header.Length {
		return object, io.ErrUnexpectedEOF
	}
	object.crc, object.hash = crc, hasher.Sum()
	return object, nil
}

// resolve names the objects that are kept as differences. Those whose base is
// named only by its hash may have to wait for others.
func (x *indexer) resolve() error {
	for {
		waiting, progress := 0, false
		for i := range x.objects {
			if !x.objects[i].hash.IsZero() {
				continue
			}
			if err := x.ctx.Err(); err != nil {
				return err
			}
			known, err := x.name(i)
			if err != nil {
				return err
			}
			if progress = progress || known; !known {
				waiting++
			}
		}
		if waiting == 0 {
			return nil
		}
		if progress {
			continue
		}
		if more, err := x.complete(); err != nil {
			return err
		} else if !more {
			return fmt.Errorf("%d objects are differences from objects that were not sent", waiting)
		}
	}
}

// name computes the hash of object i. It is false if a base is not known yet.
func (x *indexer) name(i int) (bool, error) {
	chain := []int{i} // from the object down to what is whole or remembered
	for {
		last := chain[len(chain)-1]
		if !x.objects[last].Type.IsDelta() {
			break
		}
		if _, ok := x.bases.Get(x.objects[last].Offset); ok {
			break
		}
		base, ok := x.base(last)
		if !ok {
			return false, nil
		}
		if chain = append(chain, base); len(chain) > maxChain {
			return false, fmt.Errorf("%w: differences upon differences, more than %d", errPack, maxChain)
		}
	}

	content, kind, err := x.whole(chain[len(chain)-1])
	for at := len(chain) - 2; at >= 0 && err == nil; at-- {
		content, err = x.apply(chain[at], content, kind)
	}
	return err == nil, err
}

func (x *indexer) base(i int) (int, bool) {
	object := x.objects[i]
	if object.Type == plumbing.OFSDeltaObject {
		base, ok := x.byOffset[object.OffsetReference]
		return base, ok && base < i
	}
	base, ok := x.byHash[object.Reference]
	return base, ok
}

// whole returns the content of an object that needs no base, or is remembered.
func (x *indexer) whole(i int) ([]byte, plumbing.ObjectType, error) {
	object := x.objects[i]
	kind := object.Type
	if kind.IsDelta() {
		kind = x.kinds[i]
	}
	if content, ok := x.bases.Get(object.Offset); ok {
		return content, kind, nil
	}
	content, err := x.inflate(i)
	if err == nil {
		x.bases.Put(object.Offset, content)
	}
	return content, kind, err
}

func (x *indexer) inflate(i int) ([]byte, error) {
	object := x.objects[i]
	if object.Length > maxBase {
		return nil, fmt.Errorf("%w: a difference from an object of %d bytes, the limit is %d", errPack, object.Length, maxBase)
	}
	if _, err := x.scanner.SeekObjectHeader(object.Offset); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(int(object.Length))
	_, _, err := x.scanner.NextObject(&b)
	return b.Bytes(), err
}

func (x *indexer) apply(i int, base []byte, kind plumbing.ObjectType) ([]byte, error) {
	delta, err := x.inflate(i)
	if err != nil {
		return nil, err
	}
	size, err := deltaTarget(delta)
	if err != nil {
		return nil, err
	}
	if size > maxBase {
		return nil, fmt.Errorf("%w: a difference that makes an object of %d bytes, the limit is %d", errPack, size, maxBase)
	}
	content, err := packfile.PatchDelta(base, delta)
	if err != nil {
		return nil, err
	}

	object := &x.objects[i]
	if object.hash.IsZero() {
		object.hash = plumbing.ComputeHash(kind, content)
		x.byHash[object.hash] = i
		x.kinds[i] = kind
	}
	x.bases.Put(object.Offset, content)
	return content, nil
}

// deltaTarget reads how long the result of a delta is: its second number.
func deltaTarget(delta []byte) (uint64, error) {
	r := bufio.NewReader(bytes.NewReader(delta))
	var size uint64
	for range 2 {
		size = 0
		for shift := 0; ; shift += 7 {
			b, err := r.ReadByte()
			if err != nil || shift > 56 {
				return 0, errors.New("a difference is malformed")
			}
			size |= uint64(b&0x7f) << shift
			if b&0x80 == 0 {
				break
			}
		}
	}
	return size, nil
}
