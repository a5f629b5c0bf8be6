package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// place is a store's folder and keyring, which outlive it.
type place struct {
	dir     string
	keyring *seal.Keyring
}

func newPlace(t testing.TB) place {
	t.Helper()
	root := t.TempDir()
	keyring, err := seal.Create(filepath.Join(root, "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	return place{dir: filepath.Join(root, "store"), keyring: keyring}
}

func (p place) config() Config { return Config{Dir: p.dir, Node: "m1", Keyring: p.keyring} }

func (p place) open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(p.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// refused opens the store and returns why it does not open.
func (p place) refused(t testing.TB) string {
	t.Helper()
	s, err := Open(p.config())
	if err == nil {
		s.Close()
		t.Fatal("the store opened")
	}
	return err.Error()
}

func shut(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func propose(t testing.TB, s *Store, c Command) uint64 {
	t.Helper()
	index, err := s.Propose(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// state is the whole state in its written form.
func state(t testing.TB, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeState(&b, s.View().txn); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func putSource(id string) Command {
	return Command{At: noon, PutSource: &swarm.Source{ID: swarm.SourceID(id), URL: "file:///srv/" + id + ".git"}}
}

func accept(stack, content string) Command {
	return Command{At: noon, AcceptStacks: &AcceptStacks{Source: "main", Stacks: []AcceptStack{{
		Name: swarm.StackName(stack), Path: stack, Head: rendered(content),
	}}}}
}

func rendered(content string) swarm.Rendered {
	return swarm.Rendered{
		Revision: swarm.NewRevision("main", content+"0000000"),
		Content:  swarm.Digest("sha256:" + content), Author: "Ana", Subject: "bring " + content, Committed: noon,
	}
}

func TestShowsWhatWasProposed(t *testing.T) {
	s := newPlace(t).open(t)
	first := propose(t, s, putSource("main"))
	second := propose(t, s, accept("shop", "v1"))
	if second <= first {
		t.Errorf("indexes %d, %d", first, second)
	}
	view := s.View()
	propose(t, s, accept("shop", "v2"))

	record, ok := view.Stack("shop")
	if !ok || record.Accepted.Content != "sha256:v1" || record.Version != second || record.Source != "main" {
		t.Errorf("an old view shows %+v", record)
	}
	if view.Index() != second || !view.Now().Equal(noon) {
		t.Errorf("index %d, now %v", view.Index(), view.Now())
	}
	if record, _ := s.View().Stack("shop"); record.Accepted.Content != "sha256:v2" {
		t.Errorf("a new view shows %+v", record)
	}
}

func TestRefusesCommandsThatSayNothingOrTwoThings(t *testing.T) {
	s := newPlace(t).open(t)
	two := putSource("main")
	two.Lead = &Lead{}
	for _, c := range []Command{{}, {At: noon}, {DropVolumes: []swarm.KeptVolume{}}, two} {
		if _, err := s.Propose(t.Context(), c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	propose(t, s, putSource("main"))
}

func TestRefusedCommandsChangeNothingButTimeAndIndex(t *testing.T) {
	s := newPlace(t).open(t)
	propose(t, s, putSource("main"))
	propose(t, s, accept("shop", "v1"))

	later := Command{At: noon.Add(time.Hour), Decide: &Decide{Decision: swarm.Decision{
		Stack: "shop", Version: 1, Create: []swarm.Task{{ID: "shop/web.1.a", Service: "shop/web"}},
	}}}
	index, err := s.Propose(t.Context(), later)
	if !errors.Is(err, ErrStale) || index != s.View().Index() {
		t.Errorf("index %d, view %d, %v", index, s.View().Index(), err)
	}
	if len(s.View().AllTasks()) != 0 || !s.View().Now().Equal(later.At) {
		t.Errorf("tasks %v, now %v", s.View().AllTasks(), s.View().Now())
	}
	if _, err := s.Propose(t.Context(), Command{Operate: &Operate{Stack: "blog", Retry: true}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a stack that is not there: %v", err)
	}
}

func TestLeadsAndStopsLeading(t *testing.T) {
	s := newPlace(t).open(t)
	if !<-s.Leading() {
		t.Fatal("does not lead")
	}
	propose(t, s, Command{At: noon, Lead: &Lead{Node: "m1", Cluster: "c1"}})
	propose(t, s, Command{At: noon, Lead: &Lead{Node: "m2", Cluster: "c2"}})
	if got := s.View().ClusterID(); got != "c1" {
		t.Errorf("cluster %q: the first leader names it", got)
	}
	shut(t, s)
	if <-s.Leading() {
		t.Error("leads after Close")
	}
	if _, err := s.Propose(t.Context(), putSource("main")); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestGivesUpWithItsContext(t *testing.T) {
	s := newPlace(t).open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Propose(ctx, putSource("main")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAcknowledgedCommandsSurviveReopening(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	propose(t, s, putSource("main"))
	for i := range 50 {
		propose(t, s, accept(fmt.Sprintf("stack%d", i), "v1"))
	}
	want := state(t, s)
	shut(t, s)

	s = p.open(t)
	if got := state(t, s); !bytes.Equal(got, want) {
		t.Errorf("replayed: %d bytes, want %d", len(got), len(want))
	}
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	propose(t, s, accept("after", "v1"))
	want = state(t, s)
	shut(t, s)

	s = p.open(t)
	if got := state(t, s); !bytes.Equal(got, want) {
		t.Errorf("restored: %d bytes, want %d", len(got), len(want))
	}
}

func TestSnapshotsShortenTheLog(t *testing.T) {
	p := newPlace(t)
	cfg := p.config()
	cfg.TrailingLogs = 5
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	propose(t, s, putSource("main"))
	for range 4 {
		for range 20 {
			propose(t, s, accept("shop", "v1"))
		}
		if err := s.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	first, _ := s.log.FirstIndex()
	last, _ := s.log.LastIndex()
	if last-first >= 10 {
		t.Errorf("the log holds %d to %d", first, last)
	}
	if entries, _ := os.ReadDir(filepath.Join(p.dir, snapDir)); len(entries) != keptSnapshots {
		t.Errorf("%d snapshots", len(entries))
	}
	want := state(t, s)
	shut(t, s)
	if got := state(t, p.open(t)); !bytes.Equal(got, want) {
		t.Error("another state after reopening")
	}
}

func TestNothingIsOnDiskInClear(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	c := putSource("main")
	c.PutSource.URL = "https://example.org/plain-needle.git"
	propose(t, s, c)
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	propose(t, s, accept("plain-needle", "v1"))
	shut(t, s)

	files := 0
	err := filepath.WalkDir(p.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil || info.Mode().Perm()&0o077 != 0 && entry.IsDir() {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
		if entry.IsDir() {
			return nil
		}
		files++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("plain-needle")) {
			t.Errorf("%s holds it in clear", path)
		}
		return err
	})
	if err != nil || files < 5 {
		t.Errorf("%d files, %v", files, err)
	}
}

func TestEntriesOfOlderKeysOpenAfterRotation(t *testing.T) {
	p := newPlace(t)
	s := p.open(t)
	propose(t, s, putSource("main"))
	if err := p.keyring.Rotate(); err != nil {
		t.Fatal(err)
	}
	propose(t, s, accept("shop", "v1"))
	shut(t, s)
	if _, ok := p.open(t).View().Stack("shop"); !ok {
		t.Error("lost")
	}
}

func TestTwoProcessesNeverShareAFolder(t *testing.T) {
	p := newPlace(t)
	p.open(t)
	if why := p.refused(t); !strings.Contains(why, "another process") {
		t.Error(why)
	}
}

func TestRefusesTheFolderOfANewerBuild(t *testing.T) {
	p := newPlace(t)
	shut(t, p.open(t))
	os.WriteFile(filepath.Join(p.dir, formatFile), []byte("2\n"), 0o600)
	if why := p.refused(t); !strings.Contains(why, "format 2") || !strings.Contains(why, "newer build") {
		t.Error(why)
	}
}

func TestRefusesTheFolderOfAnotherManager(t *testing.T) {
	p := newPlace(t)
	shut(t, p.open(t))
	cfg := p.config()
	cfg.Node = "m2"
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "belongs to") {
		t.Error(err)
	}
	p.open(t)
}

func TestManyProposersShareAnAppend(t *testing.T) {
	s := newPlace(t).open(t)
	propose(t, s, putSource("main"))
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for range 10 {
				if _, err := s.Propose(t.Context(), accept(fmt.Sprintf("stack%d", i), "v1")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(s.View().Stacks()); n != 32 {
		t.Errorf("%d stacks", n)
	}
}

// copyDir copies a folder, as a thief or a backup would.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}
