package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/backup"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/restore"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestAnEmptyMachineGoesOnWhereTheBackupWasTaken(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	unlock := seal.NewUnlockKey()
	for name, text := range map[string]string{"key": seal.FormatUnlockKey(unlock), "passphrase": "a long passphrase"} {
		t.Run(name, func(t *testing.T) {
			m, k := begin(t, unlock), key(t, text)
			large := m.put(strings.Repeat("large ", 500_000)) // several frames
			file := written(t, k, m.content())
			index := m.store.View().Index()

			if s, err := backup.Read(bytes.NewReader(file), k, nil); err != nil || s.Cluster != "c1" || s.Index != index || s.Blobs != 3 || s.Build != "1.2.3" {
				t.Errorf("it holds %+v, %v", s, err)
			}
			dir := filepath.Join(t.TempDir(), "gitswarm")
			restored, err := restore.Backup(t.Context(), bytes.NewReader(file), k, place(dir))
			if err != nil {
				t.Fatal(err)
			}
			if restored.Index != index || restored.Start < index+1_000_000 || restored.Blobs != 3 || !restored.Taken.Equal(noon) {
				t.Errorf("restored %+v", restored)
			}
			if !bytes.Equal(restored.State.Authority.Key, m.cluster.Authority.Key) || restored.State.Tokens != m.cluster.Tokens {
				t.Errorf("the cluster is %+v", restored.State)
			}

			path := filepath.Join(dir, restore.KeyringFile)
			if _, err := seal.Open(path, nil); !errors.Is(err, seal.ErrLocked) {
				t.Errorf("autolock was on, and the keyring opens: %v", err)
			}
			keyring, err := seal.Open(path, unlock)
			if err != nil {
				t.Fatal(err)
			}
			back := open(t, dir, keyring, "new")
			for digest, want := range map[swarm.Digest]string{m.secret: secretText, m.blob: "rendered stack", large: strings.Repeat("large ", 500_000)} {
				if got, err := back.blobs.Get(t.Context(), digest); err != nil || string(got) != want {
					t.Errorf("%s: %d bytes, %v", digest, len(got), err)
				}
			}
			if again, err := back.blobs.PutSecret(t.Context(), []byte(secretText)); err != nil || again != m.secret {
				t.Errorf("the secret is now called %s, %v", again, err)
			}
			if source, ok := back.store.View().Source("main"); !ok || source.Credential != m.secret {
				t.Errorf("the source is %+v", source)
			}
			back.propose(store.Command{At: noon, PutSource: &swarm.Source{ID: "later", URL: "file:///srv/later.git"}})
			if n := len(entries(t, dir)); n != 3 {
				t.Errorf("the folder holds %v", entries(t, dir))
			}
		})
	}
}

func entries(t testing.TB, dir string) []string {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range found {
		names = append(names, entry.Name())
	}
	return names
}

func TestABackupShowsNothing(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	unlock := seal.NewUnlockKey()
	m := begin(t, unlock)
	file := written(t, key(t, "a long passphrase"), m.content())
	for name, clear := range planted(m, unlock) {
		if bytes.Contains(file, clear) {
			t.Errorf("it shows %s", name)
		}
	}
}

func TestOnlyAWholeBackupWithItsKeyIsRestored(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	m := begin(t, nil)
	k := chanceKey(t)
	file := written(t, k, m.content())
	newer := bytes.Clone(file)
	newer[len("gitswarm backup\n")]++
	dear := bytes.Clone(file)
	dear[len("gitswarm backup\n")+1] = 2 // as if it cost hours to open
	copy(dear[len("gitswarm backup\n")+2:], "\xff\xff\xff\xff\xff\xff\xff\xff")

	for _, test := range []struct {
		name string
		file []byte
		key  backup.Key
		want error
	}{
		{"another key", file, chanceKey(t), backup.ErrKey},
		{"a passphrase for a key", file, key(t, "a long passphrase"), backup.ErrKey},
		{"another passphrase", written(t, key(t, "a long passphrase"), m.content()), key(t, "another passphrase"), backup.ErrKey},
		{"nothing", nil, k, backup.ErrNoBackup},
		{"a text", []byte("services:\n  web:\n    image: nginx, and so on and on\n"), k, backup.ErrNoBackup},
		{"a beginning", file[:20], k, backup.ErrTruncated},
		{"a newer build's", newer, k, backup.ErrNewer},
		{"one that costs hours", dear, key(t, "a long passphrase"), backup.ErrDamaged},
		{"one with more behind it", append(bytes.Clone(file), 0), k, backup.ErrDamaged},
	} {
		dir := t.TempDir()
		_, err := restore.Backup(t.Context(), bytes.NewReader(test.file), test.key, place(dir))
		if !errors.Is(err, test.want) || len(entries(t, dir)) > 0 {
			t.Errorf("%s: %v, and %v is there", test.name, err, entries(t, dir))
		}
	}

	for at := 0; at < len(file); at += len(file)/150 + 1 {
		changed := bytes.Clone(file)
		changed[at] ^= 0x10
		if _, err := backup.Read(bytes.NewReader(changed), k, nil); err == nil {
			t.Errorf("byte %d was flipped and nobody saw it", at)
		}
		if _, err := backup.Read(bytes.NewReader(file[:at]), k, nil); !errors.Is(err, backup.ErrTruncated) && !errors.Is(err, backup.ErrNoBackup) && !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("cut to %d: %v", at, err)
		}
	}
	dir := t.TempDir()
	changed := bytes.Clone(file)
	changed[len(file)-1] ^= 1 // all but the end is well
	if _, err := restore.Backup(t.Context(), bytes.NewReader(changed), k, place(dir)); !errors.Is(err, backup.ErrDamaged) || len(entries(t, dir)) > 0 {
		t.Errorf("a damaged end: %v, and %v is there", err, entries(t, dir))
	}
}

func TestKeysAreReadAsPeopleGiveThem(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	text := seal.FormatUnlockKey(seal.NewUnlockKey())
	if _, err := backup.ParseKey("\n" + strings.ToLower(text) + " \n"); err != nil {
		t.Error(err)
	}
	if _, err := backup.ParseKey(text[:len(text)-3] + "zzz"); !errors.Is(err, seal.ErrTypo) {
		t.Errorf("a typo is a passphrase: %v", err)
	}
	if _, err := backup.ParseKey("short"); err == nil || !strings.Contains(err.Error(), "12") {
		t.Errorf("a short passphrase: %v", err)
	}
	if _, err := backup.Write(t.Context(), io.Discard, backup.Key{}, begin(t, nil).content(), noon); err == nil {
		t.Error("no key was taken")
	}
}

func TestRestoresOverNothing(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	m := begin(t, nil)
	k := chanceKey(t)
	file := written(t, k, m.content())
	for _, there := range []string{restore.KeyringFile, filepath.Join(restore.StoreDir, "FORMAT"), filepath.Join(restore.BlobsDir, "x")} {
		dir := t.TempDir()
		os.MkdirAll(filepath.Dir(filepath.Join(dir, there)), 0o700)
		os.WriteFile(filepath.Join(dir, there), []byte("mine"), 0o600)
		_, err := restore.Backup(t.Context(), bytes.NewReader(file), k, place(dir))
		if err == nil || !strings.Contains(err.Error(), "gitswarm leave --force") {
			t.Errorf("%s was there: %v", there, err)
		}
		if data, _ := os.ReadFile(filepath.Join(dir, there)); string(data) != "mine" {
			t.Errorf("%s is %q", there, data)
		}
	}
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, restore.StoreDir), 0o700)
	os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600) // the daemon's own
	if _, err := restore.Backup(t.Context(), bytes.NewReader(file), k, place(dir)); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
}

// TestACrashDuringARestoreLeavesAllOrNothing: the parts move to their places
// one after the other.
func TestACrashDuringARestoreLeavesAllOrNothing(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	m := begin(t, nil)
	k := chanceKey(t)
	file := written(t, k, m.content())
	parts := []string{restore.BlobsDir, restore.StoreDir, restore.KeyringFile} // in the order they move
	for moved := range 4 {
		dir := t.TempDir()
		if _, err := restore.Backup(t.Context(), bytes.NewReader(file), k, place(dir)); err != nil {
			t.Fatal(err)
		}
		making := filepath.Join(dir, "restoring")
		os.Mkdir(making, 0o700)
		os.WriteFile(filepath.Join(making, "whole"), nil, 0o600)
		for _, part := range parts[moved:] {
			if err := os.Rename(filepath.Join(dir, part), filepath.Join(making, part)); err != nil {
				t.Fatal(err)
			}
		}
		for round, want := range []bool{true, false} {
			if completed, err := restore.Resume(dir); err != nil || completed != want {
				t.Errorf("%d parts had moved, call %d: %v, %v", moved, round, completed, err)
			}
		}
		keyring, err := seal.Open(filepath.Join(dir, restore.KeyringFile), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := open(t, dir, keyring, "new").store.View().Source("main"); !ok {
			t.Errorf("%d parts had moved: the state is not there", moved)
		}
	}

	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "restoring", restore.StoreDir), 0o700) // not whole
	if completed, err := restore.Resume(dir); err != nil || completed || len(entries(t, dir)) > 0 {
		t.Errorf("half a restore: %v, %v, and %v is there", completed, err, entries(t, dir))
	}
	if completed, err := restore.Resume(filepath.Join(dir, "absent")); err != nil || completed {
		t.Errorf("no folder: %v, %v", completed, err)
	}
}

// sweeping is a state during whose export blobs are swept.
type sweeping struct{ *manager }

func (s sweeping) Export(to io.Writer) (uint64, error) {
	index, err := s.store.Export(to)
	past := time.Now().Add(-2 * time.Hour)
	filepath.WalkDir(filepath.Join(s.dir, restore.BlobsDir), func(path string, _ fs.DirEntry, _ error) error {
		return os.Chtimes(path, past, past)
	})
	_, swept := s.blobs.Sweep(func(swarm.Digest) bool { return false })
	return index, errors.Join(err, swept)
}

func TestABackupHasWhatItsStateNames(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	m := begin(t, nil)
	content := m.content()
	content.State = sweeping{m}
	k := chanceKey(t)
	if s, err := backup.Read(bytes.NewReader(written(t, k, content)), k, nil); err != nil || s.Blobs != 2 {
		t.Errorf("%d blobs, %v", s.Blobs, err)
	}
	if n, err := m.blobs.Sweep(func(swarm.Digest) bool { return false }); err != nil || n != 2 {
		t.Errorf("the next sweep removes %d, %v", n, err)
	}
}

func TestWhatThisManagerLacksComesFromOthersOrIsNamed(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	m := begin(t, nil)
	elsewhere, nowhere := codec.DigestBytes([]byte("elsewhere")), codec.DigestBytes([]byte("nowhere"))
	peer, err := blobs.Open(t.TempDir(), m.keyring)
	if err != nil {
		t.Fatal(err)
	}
	if err := peer.PutBlob(t.Context(), elsewhere, []byte("elsewhere")); err != nil {
		t.Fatal(err)
	}
	joined, err := blobs.New(blobs.Config{
		Dir: filepath.Join(m.dir, restore.BlobsDir), Keyring: m.keyring, Peers: func() []blobs.Peer { return []blobs.Peer{peer} },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer joined.Close()
	garbage := m.put("garbage")
	damage(t, m.dir, garbage)

	content := m.content()
	content.Blobs = joined
	content.Named = func(context.Context) ([]swarm.Digest, error) {
		return []swarm.Digest{m.blob, "", elsewhere, nowhere, m.secret}, nil
	}
	k := chanceKey(t)
	var file bytes.Buffer
	wrote, err := backup.Write(t.Context(), &file, k, content, noon)
	if err != nil || wrote.Blobs != 3 || !slices.Equal(wrote.Missing, []swarm.Digest{nowhere}) {
		t.Errorf("wrote %+v, %v", wrote, err)
	}
	restored, err := restore.Backup(t.Context(), &file, k, place(t.TempDir()))
	if err != nil || restored.Blobs != 3 || !slices.Equal(restored.Missing, wrote.Missing) {
		t.Errorf("restored %+v, %v", restored, err)
	}
}

func damage(t testing.TB, dir string, digest swarm.Digest) {
	t.Helper()
	sum := string(digest)[len("sha256:"):]
	path := filepath.Join(dir, restore.BlobsDir, sum[:2], sum)
	if err := os.Truncate(path, 20); err != nil {
		t.Fatal(err)
	}
}

func TestABackupThatFailsIsNoBackup(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	m := begin(t, nil)
	k := chanceKey(t)
	whole := written(t, k, m.content())
	for _, room := range []int{0, 10, 50, len(whole) - 1} {
		if _, err := backup.Write(t.Context(), &full{room: room}, k, m.content(), noon); !errors.Is(err, errFull) {
			t.Errorf("a disk of %d bytes: %v", room, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := backup.Write(ctx, io.Discard, k, m.content(), noon); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	dir := t.TempDir()
	if _, err := restore.Backup(ctx, bytes.NewReader(whole), k, place(dir)); !errors.Is(err, context.Canceled) || len(entries(t, dir)) > 0 {
		t.Errorf("restore cancelled: %v, and %v is there", err, entries(t, dir))
	}
	if _, err := restore.Backup(t.Context(), bytes.NewReader(whole), k, restore.Place{}); err == nil {
		t.Error("no place was taken")
	}
}

var errFull = fmt.Errorf("no space left on device")

// full is a disk with room for so many bytes.
type full struct{ room int }

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.room {
		return 0, errFull
	}
	f.room -= len(p)
	return len(p), nil
}
