package store

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// filledPlace is a place with a snapshot and some entries after it, closed.
func filledPlace(t testing.TB) place {
	t.Helper()
	p := newPlace(t)
	s := p.open(t)
	propose(t, s, putSource("main"))
	for i := range 5 {
		propose(t, s, accept(fmt.Sprintf("stack%d", i), "v1"))
	}
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		propose(t, s, accept(fmt.Sprintf("later%d", i), "v1"))
	}
	shut(t, s)
	return p
}

func only(t testing.TB, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) != 1 {
		t.Fatalf("%s: %v, %v", pattern, paths, err)
	}
	return paths[0]
}

// used is how many bytes of a log file hold entries.
func used(data []byte) int { return len(bytes.TrimRight(data, "\x00")) }

func TestAFlippedBitInTheLogIsRefused(t *testing.T) {
	whole := filledPlace(t)
	data, err := os.ReadFile(only(t, filepath.Join(whole.dir, logDir, "*.wal")))
	if err != nil {
		t.Fatal(err)
	}
	end := used(data)
	step := max(1, end/25)
	for at := 0; at < end; at += step {
		p := place{dir: filepath.Join(t.TempDir(), "store"), keyring: whole.keyring}
		copyDir(t, whole.dir, p.dir)
		flipped := bytes.Clone(data)
		flipped[at] ^= 1
		os.WriteFile(only(t, filepath.Join(p.dir, logDir, "*.wal")), flipped, 0o600)

		s, err := Open(p.config())
		if err == nil {
			if n := len(s.View().Stacks()); n != 10 {
				t.Errorf("byte %d of %d: opened with %d of 10 stacks", at, end, n)
			}
			s.Close()
		} else if !strings.Contains(err.Error(), p.dir) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
}

func TestALogThatWasCutOffIsRefused(t *testing.T) {
	whole := filledPlace(t)
	data, _ := os.ReadFile(only(t, filepath.Join(whole.dir, logDir, "*.wal")))
	for _, keep := range []int{0, 40, used(data) / 2, used(data) - 20} {
		p := place{dir: filepath.Join(t.TempDir(), "store"), keyring: whole.keyring}
		copyDir(t, whole.dir, p.dir)
		cut := bytes.Clone(data)
		clear(cut[keep:])
		os.WriteFile(only(t, filepath.Join(p.dir, logDir, "*.wal")), cut, 0o600)
		if why := p.refused(t); !strings.Contains(why, "acknowledged") || !strings.Contains(why, "backup") {
			t.Errorf("cut to %d: %s", keep, why)
		}
	}
}

func TestMissingAndDamagedFilesAreRefusedByName(t *testing.T) {
	whole := filledPlace(t)
	for _, test := range []struct {
		file   string
		damage func(path string) error
		want   string
	}{
		{snapDir + "/*.snap", flip(100), "changed after it was sealed"},
		{snapDir + "/*.snap", truncate(0), "cut off"},
		{snapDir + "/*.snap", truncate(-1), "changed after it was sealed"},
		{logDir + "/*.wal", os.Remove, "acknowledged"},
		{logDir + "/meta", flip(60), "changed after it was sealed"},
		{logDir + "/meta", os.Remove, "is missing beside"},
		{formatFile, os.Remove, "is missing beside"},
		{formatFile, truncate(0), `says ""`},
	} {
		p := place{dir: filepath.Join(t.TempDir(), "store"), keyring: whole.keyring}
		copyDir(t, whole.dir, p.dir)
		if err := test.damage(only(t, filepath.Join(p.dir, test.file))); err != nil {
			t.Fatal(err)
		}
		if why := p.refused(t); !strings.Contains(why, test.want) {
			t.Errorf("%s: %s", test.file, why)
		}
	}
}

func TestALostSnapshotIsNoticed(t *testing.T) {
	p := newPlace(t)
	cfg := p.config()
	cfg.TrailingLogs = 1
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	propose(t, s, putSource("main"))
	propose(t, s, accept("shop", "v1"))
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	propose(t, s, accept("blog", "v1"))
	shut(t, s)
	os.Remove(only(t, filepath.Join(p.dir, snapDir, "*.snap")))
	if why := p.refused(t); !strings.Contains(why, "a snapshot was lost") {
		t.Error(why)
	}
}

func TestAnotherKeyringDoesNotOpenTheStore(t *testing.T) {
	p := filledPlace(t)
	p.keyring = newPlace(t).keyring
	if why := p.refused(t); !strings.Contains(why, seal.ErrUnknownKey.Error()) {
		t.Error(why)
	}
}

func TestABeginningThatWasCutOffBeginsAgain(t *testing.T) {
	p := newPlace(t)
	os.MkdirAll(filepath.Join(p.dir, logDir), 0o700)
	if err := checkFormat(p.dir); err != nil {
		t.Fatal(err)
	}
	log, err := openLog(filepath.Join(p.dir, logDir), p.dir, p.keyring, nil, newLatch())
	if err != nil {
		t.Fatal(err)
	}
	if err := log.SetUint64([]byte(termKey), 1); err != nil { // as raft's bootstrap does first
		t.Fatal(err)
	}
	log.close()
	propose(t, p.open(t), putSource("main"))
}

func flip(at int64) func(string) error {
	return func(path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data[at] ^= 1
		return os.WriteFile(path, data, 0o600)
	}
}

func truncate(to int64) func(string) error {
	return func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if to < 0 {
			return os.Truncate(path, info.Size()+to)
		}
		return os.Truncate(path, to)
	}
}

// failingDisk fails its writes, or only its fsyncs, once told to.
type failingDisk struct {
	types.VFS
	mu   sync.Mutex
	sync error
	full error
}

func (d *failingDisk) fail(sync, full error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sync, d.full = sync, full
}

func (d *failingDisk) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := d.VFS.Create(dir, name, size)
	return failingFile{f, d}, err
}

func (d *failingDisk) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := d.VFS.OpenWriter(dir, name)
	return failingFile{f, d}, err
}

type failingFile struct {
	types.WritableFile
	disk *failingDisk
}

func (f failingFile) WriteAt(p []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.full != nil {
		return 0, f.disk.full
	}
	return f.WritableFile.WriteAt(p, at)
}

func (f failingFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.sync != nil {
		return f.disk.sync
	}
	return f.WritableFile.Sync()
}

func TestADiskThatFailsClosesTheStoreForGood(t *testing.T) {
	for name, test := range map[string]struct {
		sync, full error
		want       string
	}{
		"fsync":     {sync: syscall.EIO, want: "dmesg"},
		"full disk": {full: syscall.ENOSPC, want: "free some space"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			disk := &failingDisk{VFS: walfs.New()}
			cfg := p.config()
			cfg.vfs = disk
			s, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			propose(t, s, putSource("main"))
			propose(t, s, accept("kept", "v1"))

			disk.fail(test.sync, test.full)
			if _, err := s.Propose(t.Context(), accept("lost", "v1")); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the failure: %v", err)
			}
			disk.fail(nil, nil) // the disk says yes again
			if _, err := s.Propose(t.Context(), accept("after", "v1")); !errors.Is(err, ErrFailed) {
				t.Errorf("after the failure: %v", err)
			}
			select {
			case err := <-s.Failed():
				if !errors.Is(err, ErrFailed) {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("nobody was told")
			}
			shut(t, s)

			s = p.open(t)
			if _, ok := s.View().Stack("kept"); !ok {
				t.Error("what was acknowledged is lost")
			}
			propose(t, s, accept("again", "v1"))
		})
	}
}

func TestAFailureWhileNobodyProposesIsToldToo(t *testing.T) {
	s := newPlace(t).open(t)
	want := s.latch.fail("test", syscall.EIO)
	if err := <-s.Failed(); !errors.Is(err, want) {
		t.Error(err)
	}
	if err := s.log.SetUint64([]byte(termKey), 99); err != nil {
		t.Errorf("raft would panic: %v", err)
	}
}

func TestAnUnknownCommandStopsTheManager(t *testing.T) {
	for name, entry := range map[string][]byte{
		"command": {entryFormat, 0xa1, 0x18, 99, 0xa0},                              // {99: {}}
		"field":   {entryFormat, 0xa1, 0x10, 0xa2, 0x01, 0x61, 'n', 0x18, 99, 0x01}, // {16: {1: "n", 99: 1}}
		"format":  {77, 0xa0},
		"empty":   {},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			s := p.open(t)
			propose(t, s, putSource("main"))
			if _, err := s.append(entry); !errors.Is(err, ErrFailed) {
				t.Errorf("got %v", err)
			}
			if _, err := s.Propose(t.Context(), putSource("late")); !errors.Is(err, ErrFailed) {
				t.Errorf("goes on: %v", err)
			}
			shut(t, s)
			if why := p.refused(t); !strings.Contains(why, "log entry") {
				t.Error(why)
			}
		})
	}
}

// TestKilledAtAnyMomentItLosesNothingAcknowledged runs this test binary as a
// manager, kills it, and looks for all that it had acknowledged.
func TestKilledAtAnyMomentItLosesNothingAcknowledged(t *testing.T) {
	if dir := os.Getenv("GITSWARM_TEST_STORE"); dir != "" {
		proposeForEver(t, dir)
		return
	}
	p := newPlace(t)
	acknowledged := 0
	for round := range 8 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), "GITSWARM_TEST_STORE="+p.dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < 20+7*round && lines.Scan(); n++ {
			fmt.Sscanf(lines.Text(), "acknowledged %d", &acknowledged)
		}
		child.Process.Kill()
		for lines.Scan() { // what it said until it died
			fmt.Sscanf(lines.Text(), "acknowledged %d", &acknowledged)
		}
		child.Wait()

		s := p.open(t)
		for n := 1; n <= acknowledged; n++ {
			if _, ok := s.View().Source(swarm.SourceID(fmt.Sprintf("s%06d", n))); !ok {
				t.Fatalf("round %d: source %d of %d is lost", round, n, acknowledged)
			}
		}
		shut(t, s)
	}
	if acknowledged < 100 {
		t.Errorf("only %d commands", acknowledged)
	}
}

func proposeForEver(t *testing.T, dir string) {
	keyring, err := seal.Open(filepath.Join(filepath.Dir(dir), "keyring"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{
		Dir: dir, Node: "m1", Keyring: keyring,
		SnapshotThreshold: 10, SnapshotInterval: 5 * time.Millisecond, TrailingLogs: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := len(s.View().Sources()) + 1; ; n++ {
		propose(t, s, putSource(fmt.Sprintf("s%06d", n)))
		fmt.Printf("acknowledged %d\n", n)
	}
}
