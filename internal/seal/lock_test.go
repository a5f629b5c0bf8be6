package seal_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/internal/seal"
)

func TestAKeyIsReadAsAPersonTypesIt(t *testing.T) {
	key := bytes.Repeat([]byte{0xa7, 0x01}, seal.UnlockKeySize/2)
	text := seal.FormatUnlockKey(key)
	if len(text) != len("GSKEY-1-")+7*8+6 || strings.ContainsAny(text[8:], "ILOU") {
		t.Errorf("the text is %s", text)
	}
	lookalike := strings.NewReplacer("0", "o", "1", "l").Replace(text[8:])
	for _, typed := range []string{
		text, strings.ToLower(text), " " + text + "\n", "GSKEY-1-" + strings.ReplaceAll(text[8:], "-", ""),
		strings.ReplaceAll(text, "-", " - "), "gskey-1-" + lookalike,
	} {
		if got, err := seal.ParseUnlockKey(typed); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%q: %x, %v", typed, got, err)
		}
	}
	for _, typed := range []string{"", "GSKEY-2-" + text[8:], "SWMKEY-1-abc", text[8:], strings.Repeat("x", 1<<20)} {
		if _, err := seal.ParseUnlockKey(typed); !errors.Is(err, seal.ErrNoKey) {
			t.Errorf("%.20q: %v", typed, err)
		}
	}
}

func TestATypoInAKeyIsTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), seal.UnlockKeySize, seal.UnlockKeySize).Draw(t, "key")
		text := []byte(seal.FormatUnlockKey(key))
		at := rapid.IntRange(8, len(text)-1).Draw(t, "at")
		letter := rapid.SampledFrom([]byte("0123456789ABCDEFGHJKMNPQRSTVWXYZU!")).Draw(t, "letter")
		if text[at] == '-' || text[at] == letter {
			t.Skip("nothing changes")
		}
		text[at] = letter
		if _, err := seal.ParseUnlockKey(string(text)); !errors.Is(err, seal.ErrTypo) {
			t.Fatalf("%s: %v", text, err)
		} else if strings.Contains(err.Error(), string(text[8:16])) {
			t.Fatalf("the error shows the key: %v", err)
		}
		if _, err := seal.ParseUnlockKey(string(text[:at])); err == nil {
			t.Fatal("half a key was taken")
		}
	})
}

func FuzzParseUnlockKey(f *testing.F) {
	f.Add(seal.FormatUnlockKey(make([]byte, seal.UnlockKeySize)))
	f.Add("GSKEY-1-")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := seal.ParseUnlockKey(text)
		if err != nil {
			return
		}
		again, err := seal.ParseUnlockKey(seal.FormatUnlockKey(key))
		if err != nil || !bytes.Equal(again, key) {
			t.Fatalf("%q is %x, then %x: %v", text, key, again, err)
		}
	})
}

func createAt(t *testing.T, path string) *seal.Keyring {
	t.Helper()
	k, err := seal.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestAManagerThatWasAwayOpensWithTheKeyOfThatTime: the cluster's unlock key
// was rotated while it was off.
func TestAManagerThatWasAwayOpensWithTheKeyOfThatTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	k := createAt(t, path)
	sealed, _ := k.Seal([]byte("x"), nil)
	old, young := seal.NewUnlockKey(), seal.NewUnlockKey()
	if news, err := k.Follow(old); err != nil || !news {
		t.Fatalf("first lock: %v, %v", news, err)
	}

	if _, err := seal.Open(path, young); !errors.Is(err, seal.ErrUnlockKey) {
		t.Errorf("the cluster's key of today: %v", err)
	}
	back, err := seal.Open(path, old)
	if err != nil {
		t.Fatal(err)
	}
	if news, err := back.Follow(young); err != nil || !news {
		t.Errorf("it did not follow: %v, %v", news, err)
	}
	if news, err := back.Follow(bytes.Clone(young)); err != nil || news {
		t.Errorf("the same key is news: %v", err)
	}
	if _, err := seal.Open(path, old); !errors.Is(err, seal.ErrUnlockKey) {
		t.Errorf("the old key still opens it: %v", err)
	}
	if back, err = seal.Open(path, young); err != nil {
		t.Fatal(err)
	}
	if plain, err := back.Open(sealed, nil); err != nil || string(plain) != "x" {
		t.Errorf("what was sealed before the lock: %q, %v", plain, err)
	}
	if news, err := back.Follow(nil); err != nil || !news {
		t.Errorf("lock off: %v, %v", news, err)
	}
	if _, err := seal.Open(path, nil); err != nil {
		t.Errorf("with the lock off: %v", err)
	}
	if _, err := back.Follow([]byte("short")); err == nil {
		t.Error("a short key was taken")
	}
}

func TestALockComesWithADataKeyThatWasNeverOnTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	k := createAt(t, path)
	before, clear := k.Current(), clearOf(t, path)
	if _, err := k.Follow(seal.NewUnlockKey()); err != nil {
		t.Fatal(err)
	}
	if k.Current() == before {
		t.Error("the data key of before still seals")
	}
	if file := clearOf(t, path); bytes.Contains(file, clear[len(clear)-32:]) || bytes.Contains(file, k.ClusterKey()) {
		t.Error("the locked file shows a key")
	}
	if n, err := k.Retire(time.Now().Add(2 * time.Hour)); err != nil || n != 1 {
		t.Errorf("%d keys retired, %v", n, err)
	}
}

func clearOf(t *testing.T, path string) []byte {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestOnlyKeysThatNothingNeedsAreRetired(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	k := createAt(t, path)
	var sealed [][]byte
	needed := make(map[seal.KeyID]bool)
	for i := range 4 {
		s, err := k.Seal([]byte{byte(i)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		sealed = append(sealed, s)
		if err := k.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	stream := sealStream(t, k, []byte("now"))
	for _, s := range [][]byte{sealed[1], stream} {
		id, err := seal.KeyOf(s[:seal.HeaderSize])
		if err != nil {
			t.Fatal(err)
		}
		needed[id] = true
	}
	if !needed[k.Current()] || len(k.Former()) != 4 {
		t.Errorf("needed %v, current %s, former %v", needed, k.Current(), k.Former())
	}

	nothing := func() (map[seal.KeyID]bool, error) { return nil, nil }
	inUse := func() (map[seal.KeyID]bool, error) { return needed, nil }
	broken := func() (map[seal.KeyID]bool, error) { return nil, errors.New("a disk that does not answer") }
	if n, err := k.Retire(time.Now().Add(61*time.Minute), nothing, broken); err == nil || n != 0 {
		t.Errorf("keys went although nobody knows what needs them: %d, %v", n, err)
	}
	if n, err := k.Retire(time.Now(), inUse); err != nil || n != 0 {
		t.Errorf("keys went at once: %d, %v", n, err)
	}
	if n, err := k.Retire(time.Now().Add(61*time.Minute), inUse, nothing); err != nil || n != 3 {
		t.Errorf("%d keys went, %v", n, err)
	}
	again, err := seal.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range sealed {
		_, err := again.Open(s, nil)
		if want := i != 1; errors.Is(err, seal.ErrUnknownKey) != want {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	if plain, err := openStream(again, stream); err != nil || string(plain) != "now" {
		t.Errorf("the current key: %q, %v", plain, err)
	}
	if n, err := again.Retire(time.Now()); err != nil || n != 1 {
		t.Errorf("after a restart nothing is under way: %d, %v", n, err)
	}
	if _, err := seal.KeyOf([]byte{1, 2}); !errors.Is(err, seal.ErrTruncated) {
		t.Errorf("two bytes: %v", err)
	}
	if _, err := seal.KeyOf([]byte("hello")); !errors.Is(err, seal.ErrFormat) {
		t.Errorf("clear text: %v", err)
	}
}

func TestManagersOfOneClusterNameASecretAlike(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	first, joiner := newKeyring(t), createAt(t, path)
	secret := []byte("hunter2")
	if first.SecretDigest(secret) == joiner.SecretDigest(secret) {
		t.Error("two clusters name it alike")
	}
	unlock := seal.NewUnlockKey()
	if _, err := joiner.Follow(unlock); err != nil {
		t.Fatal(err)
	}
	if err := joiner.SetCluster(first.ClusterKey()); err != nil {
		t.Fatal(err)
	}
	again, err := seal.Open(path, unlock)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]*seal.Keyring{"at once": joiner, "after a restart": again} {
		if k.SecretDigest(secret) != first.SecretDigest(secret) {
			t.Errorf("%s it names a secret otherwise", name)
		}
	}
	if err := joiner.SetCluster(secret); err == nil {
		t.Error("a short key was taken")
	}
}

func TestAKeyringOfOneKeyHasNoFile(t *testing.T) {
	key := seal.NewUnlockKey()
	one, err := seal.Of(key)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := seal.Of(key)
	plain, err := openStream(other, sealStream(t, one, []byte("backup")))
	if err != nil || string(plain) != "backup" {
		t.Errorf("%q, %v", plain, err)
	}
	if one.Rotate() == nil || one.Lock(key) == nil || one.SetCluster(seal.NewUnlockKey()) == nil {
		t.Error("it was changed")
	}
	if _, err := seal.Of([]byte("short")); err == nil {
		t.Error("a short key was taken")
	}
	if text := hex.EncodeToString(key); strings.Contains(one.Current().String(), text[:16]) {
		t.Error("its id shows the key")
	}
}
