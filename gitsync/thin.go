package gitsync

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// A thin pack holds differences from objects that the receiver has said it
// has. These are appended to it, since a pack on disk must stand alone.

// outside reads an object that is kept already.
type outside func(id plumbing.Hash) (plumbing.ObjectType, []byte, error)

// complete appends the missing bases that are kept. It reports whether there were any.
func (x *indexer) complete() (bool, error) {
	missing := map[plumbing.Hash]bool{}
	before := len(x.objects)
	for i := range before {
		object := x.objects[i]
		if _, here := x.byHash[object.Reference]; !object.hash.IsZero() || object.Type != plumbing.REFDeltaObject || here || missing[object.Reference] {
			continue
		}
		missing[object.Reference] = true
		kind, content, err := x.outside(object.Reference)
		if err != nil {
			continue // another pass may name it; if none does, that is told
		}
		if err := x.append(object.Reference, kind, content); err != nil {
			return false, err
		}
	}
	return len(x.objects) > before, nil
}

// append writes an object where the checksum was, which moves to the new end.
func (x *indexer) append(id plumbing.Hash, kind plumbing.ObjectType, content []byte) error {
	end, err := x.pack.Seek(-int64(len(id)), io.SeekEnd)
	if err != nil {
		return err
	}
	entry, err := encodeObject(kind, content)
	if err != nil {
		return err
	}
	if _, err := x.pack.Write(append(entry, make([]byte, len(id))...)); err != nil {
		return err
	}

	x.byOffset[end], x.byHash[id] = len(x.objects), len(x.objects)
	x.objects = append(x.objects, packed{
		ObjectHeader: packfile.ObjectHeader{Type: kind, Offset: end, Length: int64(len(content))},
		hash:         id,
		crc:          crc32.ChecksumIEEE(entry),
	})
	x.bases.Put(end, content)
	x.appended = true
	return nil
}

// encodeObject writes an object as packs have it: type and size, seven bits to
// a byte but four in the first, then the content deflated.
func encodeObject(kind plumbing.ObjectType, content []byte) ([]byte, error) {
	var b bytes.Buffer
	size := uint64(len(content))
	first := byte(kind)<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		b.WriteByte(first | 0x80)
		first = byte(size & 0x7f)
	}
	b.WriteByte(first)

	w := zlib.NewWriter(&b)
	_, err := w.Write(content)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("deflate object: %w", err)
	}
	return b.Bytes(), nil
}

// seal corrects the count of objects and the checksum of a pack that was appended to.
func (x *indexer) seal() (plumbing.Hash, error) {
	var count [4]byte
	binary.BigEndian.PutUint32(count[:], uint32(len(x.objects)))
	if _, err := x.pack.Seek(8, io.SeekStart); err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := x.pack.Write(count[:]); err != nil {
		return plumbing.ZeroHash, err
	}

	end, err := x.pack.Seek(-int64(len(plumbing.ZeroHash)), io.SeekEnd)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := x.pack.Seek(0, io.SeekStart); err != nil {
		return plumbing.ZeroHash, err
	}
	hasher := newSHA1()
	if _, err := io.CopyN(hasher, x.pack, end); err != nil {
		return plumbing.ZeroHash, err
	}
	sum := plumbing.Hash(hasher.Sum(nil))
	_, err = x.pack.Write(sum[:])
	return sum, err
}
