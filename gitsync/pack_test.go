package gitsync

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // git's format
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
)

func nothingKept(plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	return plumbing.InvalidObject, nil, plumbing.ErrObjectNotFound
}

// packOf writes a pack of encoded entries.
func packOf(count int, entries ...[]byte) []byte {
	b := []byte("PACK\x00\x00\x00\x02")
	b = binary.BigEndian.AppendUint32(b, uint32(count))
	b = append(b, bytes.Join(entries, nil)...)
	sum := sha1.Sum(b) //nolint:gosec // git's format
	return append(b, sum[:]...)
}

func encoded(t testing.TB, kind plumbing.ObjectType, content []byte) []byte {
	t.Helper()
	entry, err := encodeObject(kind, content)
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

// refDelta is an entry that is the difference from another object.
func refDelta(t testing.TB, base plumbing.Hash, delta []byte) []byte {
	t.Helper()
	entry := encoded(t, plumbing.REFDeltaObject, delta)
	header := 1
	for entry[header-1]&0x80 != 0 {
		header++
	}
	return append(append(bytes.Clone(entry[:header]), base[:]...), entry[header:]...)
}

// repeat is a delta that says it makes size bytes, from the first byte of a base again and again.
func repeatDelta(baseSize, size uint64) []byte {
	delta := binary.AppendUvarint(nil, baseSize)
	delta = binary.AppendUvarint(delta, size)
	return append(delta, 0x90, 1) // copy one byte from the beginning
}

func tryPack(t testing.TB, pack []byte, kept outside) (*idxfile.MemoryIndex, []byte, error) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "pack")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(pack); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	index, err := indexPack(context.Background(), f, kept)
	after, readErr := os.ReadFile(f.Name())
	return index, after, errors.Join(err, readErr)
}

func TestNamesObjectsAsGitDoes(t *testing.T) {
	r := newRepository(t)
	for i := range 30 { // many versions make chains of differences
		r.write(map[string]string{"long": strings.Repeat("a line that stays\n", 500) + strings.Repeat(fmt.Sprintf("line %d\n", i), i+1), fmt.Sprintf("f%d", i): fmt.Sprint(i)})
		r.git("add", "-A")
		r.git("commit", "-q", "-m", "one more")
	}
	r.git("gc", "-q", "--aggressive", "--prune=now")
	packs, err := filepath.Glob(filepath.Join(r.work, ".git/objects/pack/*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatalf("%q, %v", packs, err)
	}
	pack, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}

	index, _, err := tryPack(t, pack, nothingKept)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := idxfile.NewEncoder(&got).Encode(index); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(strings.TrimSuffix(packs[0], ".pack") + ".idx")
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the index differs from git's (%d and %d bytes), %v", got.Len(), len(want), err)
	}
}

func TestMakesThinPacksWholeAsGitWould(t *testing.T) {
	base := []byte(strings.Repeat("kept before\n", 100))
	id := plumbing.ComputeHash(plumbing.BlobObject, base)
	kept := func(asked plumbing.Hash) (plumbing.ObjectType, []byte, error) {
		if asked == id {
			return plumbing.BlobObject, base, nil
		}
		return nothingKept(asked)
	}
	delta := repeatDelta(uint64(len(base)), 1)
	index, whole, err := tryPack(t, packOf(2, refDelta(t, id, delta), encoded(t, plumbing.BlobObject, []byte("other"))), kept)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := index.Count(); err != nil || n != 3 {
		t.Errorf("%d objects, %v", n, err)
	}

	name := filepath.Join(t.TempDir(), "pack-x.pack")
	if err := os.WriteFile(name, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("git", "index-pack", "--strict", name).CombinedOutput(); err != nil {
		t.Errorf("git does not take the pack: %v: %s", err, out)
	}
}

func TestRefusesPacksThatUnfoldWithoutEnd(t *testing.T) {
	one := []byte("x")
	id := plumbing.ComputeHash(plumbing.BlobObject, one)
	small := encoded(t, plumbing.BlobObject, one)
	huge := make([]byte, maxBase+1)
	hugeID := plumbing.ComputeHash(plumbing.BlobObject, huge)

	for name, c := range map[string]struct {
		pack []byte
		want string
	}{
		"target of 1 TiB":       {packOf(2, small, refDelta(t, id, repeatDelta(1, 1<<40))), "limit"},
		"base over the limit":   {packOf(2, encoded(t, plumbing.BlobObject, huge), refDelta(t, hugeID, repeatDelta(uint64(len(huge)), 1))), "limit"},
		"delta over the limit":  {packOf(2, small, refDelta(t, id, huge)), "limit"},
		"too many objects":      {packOf(maxObjects+1, small), "limit"},
		"fewer objects than it": {packOf(9, small), "valid pack"},
		"base that is nowhere":  {packOf(1, refDelta(t, id, repeatDelta(1, 1))), "not sent"},
		"itself as its base":    {packOf(1, refDelta(t, plumbing.ZeroHash, repeatDelta(1, 1))), "not sent"},
		"no checksum":           {packOf(1, small)[:30], "valid pack"},
		"nothing":               {nil, "valid pack"},
		"a page":                {[]byte("<html>not found</html>"), "valid pack"},
		"a lie about its size":  {packOf(1, append([]byte{0xbf, 0x7f}, small[1:]...)), "valid pack"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			_, _, err := tryPack(t, c.pack, nothingKept)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, errPack) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 || time.Since(began) > 10*time.Second {
				t.Errorf("%d MiB and %s to refuse it", used>>20, time.Since(began))
			}
		})
	}
}

func FuzzPack(f *testing.F) {
	one := []byte("x")
	id := plumbing.ComputeHash(plumbing.BlobObject, one)
	f.Add(packOf(0))
	f.Add(packOf(2, encoded(f, plumbing.BlobObject, one), refDelta(f, id, repeatDelta(1, 1))))
	f.Add(packOf(1, encoded(f, plumbing.TreeObject, []byte("100644 a\x00"+strings.Repeat("x", 20)))))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 20 { // a checksum that fits, so that more than checksums is tried
			sum := sha1.Sum(data[:len(data)-20]) //nolint:gosec // git's format
			data = append(bytes.Clone(data[:len(data)-20]), sum[:]...)
		}
		_, _, _ = tryPack(t, data, nothingKept)
		_, _ = parseFolder(data)
		_, _, _ = parseCommit(data)
	})
}
