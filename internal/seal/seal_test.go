package seal_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/internal/seal"
)

var context = []byte("entry 7")

func newKeyring(t testing.TB) *seal.Keyring {
	t.Helper()
	k, err := seal.Create(filepath.Join(t.TempDir(), "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOpensWhatItSealed(t *testing.T) {
	k := newKeyring(t)
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		sealed, err := k.Seal(plain, context)
		if err != nil {
			t.Fatal(err)
		}
		if len(sealed) != len(plain)+seal.Overhead {
			t.Fatalf("sealed %d bytes to %d", len(plain), len(sealed))
		}
		got, err := k.Open(sealed, context)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("got %x, %v; want %x", got, err, plain)
		}
	})
}

func TestTellsApartWhyBytesDoNotOpen(t *testing.T) {
	k := newKeyring(t)
	sealed, err := k.Seal([]byte("secret"), context)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(i int) []byte {
		b := bytes.Clone(sealed)
		b[i] ^= 1
		return b
	}
	newer := bytes.Clone(sealed)
	newer[0] = 77

	for _, test := range []struct {
		name    string
		sealed  []byte
		context []byte
		want    error
	}{
		{"empty", nil, context, seal.ErrTruncated},
		{"cut in the header", sealed[:10], context, seal.ErrTruncated},
		{"cut in the ciphertext", sealed[:len(sealed)-1], context, seal.ErrTampered},
		{"key id changed", flip(2), context, seal.ErrUnknownKey},
		{"nonce changed", flip(9), context, seal.ErrTampered},
		{"ciphertext changed", flip(30), context, seal.ErrTampered},
		{"tag changed", flip(len(sealed) - 1), context, seal.ErrTampered},
		{"other context", sealed, []byte("entry 8"), seal.ErrTampered},
		{"newer format", newer, context, seal.ErrFormat},
	} {
		if _, err := k.Open(test.sealed, test.context); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	if _, err := newKeyring(t).Open(sealed, context); !errors.Is(err, seal.ErrUnknownKey) {
		t.Errorf("foreign keyring: got %v", err)
	}
}

func sealStream(t testing.TB, k *seal.Keyring, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := k.NewWriter(&b, context)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, iotest.HalfReader(bytes.NewReader(plain))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openStream(k *seal.Keyring, sealed []byte) ([]byte, error) {
	r, err := k.NewReader(bytes.NewReader(sealed), context)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestOpensStreamsOfEveryLengthAroundAChunk(t *testing.T) {
	k := newKeyring(t)
	const chunk = 64 << 10
	for _, n := range []int{0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3*chunk + 17} {
		plain := make([]byte, n)
		rand.Read(plain)
		got, err := openStream(k, sealStream(t, k, plain))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
}

func TestNoCutOfAStreamOpens(t *testing.T) {
	k := newKeyring(t)
	sealed := sealStream(t, k, make([]byte, 2*(64<<10)+5))
	const chunk = 64<<10 + 16
	for _, n := range []int{0, 1, 5, 23, 24, 40, chunk, 24 + chunk - 1, 24 + chunk, 24 + chunk + 1, 24 + 2*chunk, len(sealed) - 1} {
		_, err := openStream(k, sealed[:n])
		if !errors.Is(err, seal.ErrTruncated) && !errors.Is(err, seal.ErrTampered) {
			t.Errorf("cut to %d of %d: %v", n, len(sealed), err)
		}
	}
	if _, err := openStream(k, sealed[:24+chunk]); !errors.Is(err, seal.ErrTruncated) {
		t.Errorf("cut at a chunk's end: got %v", err)
	}
	if _, err := openStream(k, append(bytes.Clone(sealed), 0)); !errors.Is(err, seal.ErrTampered) {
		t.Errorf("a byte more: got %v", err)
	}
}

func TestEveryFlippedByteOfAStreamIsSeen(t *testing.T) {
	k := newKeyring(t)
	sealed := sealStream(t, k, []byte("some content"))
	for i := range sealed {
		b := bytes.Clone(sealed)
		b[i] ^= 0x40
		if _, err := openStream(k, b); err == nil {
			t.Errorf("byte %d was flipped and nobody saw it", i)
		}
	}
	swapped := sealStream(t, k, make([]byte, 3*(64<<10)))
	const chunk = 64<<10 + 16
	first, second := bytes.Clone(swapped[24:24+chunk]), bytes.Clone(swapped[24+chunk:24+2*chunk])
	copy(swapped[24:], second)
	copy(swapped[24+chunk:], first)
	if _, err := openStream(k, swapped); !errors.Is(err, seal.ErrTampered) {
		t.Errorf("swapped chunks: %v", err)
	}
}

func TestRotationKeepsOldKeysAndSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	k, err := seal.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	old, _ := k.Seal([]byte("old"), nil)
	if err := k.Rotate(); err != nil {
		t.Fatal(err)
	}
	young, _ := k.Seal([]byte("young"), nil)
	if bytes.Equal(old[1:5], young[1:5]) {
		t.Error("the key did not change")
	}

	again, err := seal.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for want, sealed := range map[string][]byte{"old": old, "young": young} {
		if got, err := again.Open(sealed, nil); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", want, got, err)
		}
	}
	if again.SecretDigest([]byte("x")) != k.SecretDigest([]byte("x")) {
		t.Error("a secret has another name after reopening")
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestALockedKeyringNeedsItsKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	k, err := seal.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed, _ := k.Seal([]byte("x"), nil)
	unlock := bytes.Repeat([]byte{7}, seal.UnlockKeySize)
	if err := k.Lock(unlock); err != nil {
		t.Fatal(err)
	}
	if err := k.Rotate(); err != nil { // stays locked
		t.Fatal(err)
	}

	if _, err := seal.Open(path, nil); !errors.Is(err, seal.ErrLocked) {
		t.Errorf("no key: %v", err)
	}
	if _, err := seal.Open(path, bytes.Repeat([]byte{8}, seal.UnlockKeySize)); !errors.Is(err, seal.ErrTampered) {
		t.Errorf("wrong key: %v", err)
	}
	again, err := seal.Open(path, unlock)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Open(sealed, nil); err != nil {
		t.Error(err)
	}
	if err := again.Lock(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Open(path, nil); err != nil {
		t.Errorf("unlocked: %v", err)
	}
}

func TestRefusesKeyringsThatWouldLoseKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	if _, err := seal.Open(path, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := seal.Create(path); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Create(path); err == nil {
		t.Error("a keyring was overwritten")
	}
	whole, _ := os.ReadFile(path)
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1
		os.WriteFile(path, b, 0o600)
		if _, err := seal.Open(path, nil); err == nil {
			t.Errorf("byte %d was flipped and nobody saw it", i)
		}
	}
	os.WriteFile(path, whole[:len(whole)/2], 0o600)
	if _, err := seal.Open(path, nil); !errors.Is(err, seal.ErrTruncated) {
		t.Errorf("half a file: %v", err)
	}
	os.WriteFile(path, whole, 0o600)
	os.Chmod(path, 0o644)
	if _, err := seal.Open(path, nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("world-readable: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	k := newKeyring(f)
	sealed, _ := k.Seal([]byte("seed"), context)
	f.Add(sealed)
	f.Add(sealStream(f, k, []byte("seed")))
	f.Fuzz(func(t *testing.T, data []byte) {
		if plain, err := k.Open(data, context); err == nil && string(plain) != "seed" {
			t.Fatalf("opened %x", data)
		}
		if plain, err := openStream(k, data); err == nil && string(plain) != "seed" {
			t.Fatalf("opened stream %x", data)
		}
	})
}

func BenchmarkSealStream(b *testing.B) {
	k := newKeyring(b)
	plain := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	for b.Loop() {
		w, _ := k.NewWriter(io.Discard, context)
		w.Write(plain)
		w.Close()
	}
}
