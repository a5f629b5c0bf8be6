package blobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/swarm"
)

func open(t testing.TB) (*blobs.Blobs, string, *seal.Keyring) {
	t.Helper()
	keyring, err := seal.Create(filepath.Join(t.TempDir(), "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "blobs")
	b, err := blobs.Open(dir, keyring)
	if err != nil {
		t.Fatal(err)
	}
	return b, dir, keyring
}

func put(t testing.TB, b *blobs.Blobs, data string) swarm.Digest {
	t.Helper()
	digest, err := b.Put(t.Context(), []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// files are the paths of all blobs.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var paths []string
	filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	return paths
}

func TestGivesBackWhatWasPutAfterReopening(t *testing.T) {
	b, dir, keyring := open(t)
	for _, data := range []string{"", "hello", strings.Repeat("long ", 100_000)} {
		digest := put(t, b, data)
		if digest != codec.DigestBytes([]byte(data)) {
			t.Errorf("named %s", digest)
		}
		if put(t, b, data) != digest {
			t.Error("the same content has two names")
		}
		again, err := blobs.Open(dir, keyring)
		if err != nil {
			t.Fatal(err)
		}
		got, err := again.Get(t.Context(), digest)
		if err != nil || string(got) != data || !again.Has(digest) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	}
	if n := len(files(t, dir)); n != 3 {
		t.Errorf("%d files for 3 blobs", n)
	}
}

func TestASecretIsNeitherInAFileNorInAName(t *testing.T) {
	b, dir, _ := open(t)
	secret := []byte("correct horse battery staple")
	digest, err := b.PutSecret(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(digest), "hmac-sha256:") || strings.Contains(string(digest), string(codec.DigestBytes(secret))[7:]) {
		t.Errorf("named %s", digest)
	}
	if got, err := b.Get(t.Context(), digest); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("got %q, %v", got, err)
	}
	other, _, _ := open(t)
	if d, _ := other.PutSecret(t.Context(), secret); d == digest {
		t.Error("two clusters give a secret the same name")
	}
	for _, path := range files(t, dir) {
		data, _ := os.ReadFile(path)
		if bytes.Contains(data, secret[:8]) {
			t.Errorf("%s holds the secret in clear", path)
		}
	}
}

func TestMissingAndDamagedBlobsAreNamedWithTheWayOut(t *testing.T) {
	b, dir, _ := open(t)
	digest := put(t, b, strings.Repeat("content ", 20_000)) // three chunks
	path := files(t, dir)[0]
	whole, _ := os.ReadFile(path)
	other := put(t, b, "other")

	check := func(name string, data []byte, want error) {
		t.Helper()
		os.WriteFile(path, data, 0o600)
		_, err := b.Get(t.Context(), digest)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), string(digest)) || !strings.Contains(err.Error(), "backup") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := 0; i < len(whole); i += 997 {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 4
		check(fmt.Sprintf("byte %d flipped", i), flipped, blobs.ErrDamaged)
	}
	for _, n := range []int{0, 10, 65576, len(whole) - 1} {
		check(fmt.Sprintf("cut to %d", n), whole[:n], blobs.ErrDamaged)
	}
	elsewhere := filepath.Join(dir, string(other)[7:9], string(other)[7:])
	swapped, _ := os.ReadFile(elsewhere)
	check("another blob's file", swapped, blobs.ErrDamaged)

	if put(t, b, strings.Repeat("content ", 20_000)) != digest {
		t.Error("another name")
	}
	if _, err := b.Get(t.Context(), digest); err != nil {
		t.Errorf("putting it again did not heal it: %v", err)
	}
	os.Remove(path)
	if _, err := b.Get(t.Context(), digest); !errors.Is(err, blobs.ErrMissing) || b.Has(digest) {
		t.Errorf("gone: %v", err)
	}
}

func TestRefusesNamesThatAreNoDigests(t *testing.T) {
	b, _, _ := open(t)
	for _, digest := range []swarm.Digest{"", "sha256:", "sha256:../../etc/passwd", "md5:00", swarm.Digest("sha256:" + strings.Repeat("A", 64)), swarm.Digest("sha256:" + strings.Repeat("z", 64))} {
		if _, err := b.Get(t.Context(), digest); err == nil || b.Has(digest) {
			t.Errorf("%q was taken", digest)
		}
	}
	if _, err := b.Put(t.Context(), make([]byte, blobs.MaxSize+1)); err == nil {
		t.Error("a blob beyond the limit was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Put(ctx, []byte("late")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSweepRemovesOnlyWhatIsOldAndNotLive(t *testing.T) {
	b, dir, _ := open(t)
	live, old, young, again := put(t, b, "live"), put(t, b, "old"), put(t, b, "young"), put(t, b, "again")
	secret, err := b.PutSecret(t.Context(), []byte("old secret"))
	if err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-2 * time.Hour)
	for _, path := range files(t, dir) {
		if !strings.HasSuffix(path, string(young)[7:]) {
			os.Chtimes(path, past, past)
		}
	}
	put(t, b, "again") // it is about to be named

	n, err := b.Sweep(func(d swarm.Digest) bool { return d == live })
	if err != nil || n != 2 {
		t.Errorf("removed %d, %v", n, err)
	}
	for digest, want := range map[swarm.Digest]bool{live: true, old: false, young: true, again: true, secret: false} {
		if b.Has(digest) != want {
			t.Errorf("%s: %v", digest, !want)
		}
	}
}

func TestConcurrentPutsAndSweepsLoseNothing(t *testing.T) {
	b, _, _ := open(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 10 {
				data := fmt.Sprint("blob ", i)
				digest, err := b.Put(t.Context(), []byte(data))
				if err != nil {
					t.Error(err)
				}
				if got, err := b.Get(t.Context(), digest); err != nil || string(got) != data {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			if _, err := b.Sweep(func(swarm.Digest) bool { return false }); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

func TestLeavesNoUnfinishedFiles(t *testing.T) {
	b, dir, keyring := open(t)
	put(t, b, "done")
	os.WriteFile(filepath.Join(dir, "tmp", "put-1"), []byte("half"), 0o600)
	if _, err := blobs.Open(dir, keyring); err != nil {
		t.Fatal(err)
	}
	if n := len(files(t, dir)); n != 1 {
		t.Errorf("%d files", n)
	}
}

func BenchmarkPut(b *testing.B) {
	store, _, _ := open(b)
	for i := 0; b.Loop(); i++ {
		store.Put(b.Context(), fmt.Appendf(nil, "blob %d", i))
	}
}

func BenchmarkGet1MiB(b *testing.B) {
	store, _, _ := open(b)
	digest := put(b, store, strings.Repeat("x", 1<<20))
	b.SetBytes(1 << 20)
	for b.Loop() {
		if _, err := store.Get(b.Context(), digest); err != nil {
			b.Fatal(err)
		}
	}
}
