package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/gitswarm/gitswarm/internal/durable"
)

// maxFetches is how many packs a store grows by before it is fetched anew,
// which leaves behind what no commit of today needs.
const maxFetches = 50

// store keeps the objects of one remote repository: the last commit whole, and
// what is left of earlier ones. A folder "head" says which commit that is; it
// is written after everything that the commit needs. What does not hold is
// thrown away and fetched again.
//
//	DIR/head            generation and commit
//	DIR/g000007/objects/pack/pack-….{pack,idx}
type store struct {
	dir   string
	where string // the repository, for messages

	mu         sync.Mutex // held for a whole sync
	opened     bool
	generation int
	fetches    int
	head       plumbing.Hash // zero: nothing is kept
	objects    *objects
	damage     damage
}

// damage is set by readers of old trees, from their goroutines.
type damage struct {
	mu  sync.Mutex
	met bool
}

func (d *damage) set() { d.mu.Lock(); d.met = true; d.mu.Unlock() }

func (d *damage) take() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	met := d.met
	d.met = false
	return met
}

const storeRemedy = "it is fetched again by itself"

// open reads what an earlier process kept, once, and throws away what is damaged.
func (s *store) open() error {
	if s.damage.take() {
		s.opened, s.head = true, plumbing.ZeroHash
	}
	if s.opened {
		return nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("keep objects: %w", err)
	}
	s.opened = true

	generation, head, ok := s.readHead()
	if !ok {
		return s.dropOthers(0)
	}
	s.generation = generation
	folder := s.folder(generation)
	packs, err := checkPacks(folder)
	if err != nil || packs == 0 {
		return s.dropOthers(0)
	}
	s.head, s.fetches = head, packs
	s.objects = s.openFolder(generation)
	return s.dropOthers(generation)
}

func (s *store) openFolder(generation int) *objects {
	o := openObjects(filepath.Join(s.dir, generationName(generation)), storeRemedy)
	o.damaged = s.damage.set
	return o
}

func generationName(generation int) string { return fmt.Sprintf("g%06d", generation) }

func (s *store) folder(generation int) string {
	return filepath.Join(s.dir, generationName(generation), "objects", "pack")
}

func (s *store) readHead() (int, plumbing.Hash, bool) {
	data, err := os.ReadFile(filepath.Join(s.dir, "head"))
	if err != nil {
		return 0, plumbing.ZeroHash, false
	}
	var generation int
	var commit string
	if n, err := fmt.Sscanf(string(data), "%d %40s\n", &generation, &commit); err != nil || n != 2 || !plumbing.IsHash(commit) {
		return 0, plumbing.ZeroHash, false
	}
	return generation, plumbing.NewHash(commit), true
}

// full reports whether the next fetch should begin anew.
func (s *store) full() bool { return s.head.IsZero() || s.fetches >= maxFetches }

// add takes in what a server sent so that head is whole: onto what is kept, or
// if anew is set in its place.
func (s *store) add(ctx context.Context, pack io.Reader, limit int64, branch string, head plumbing.Hash, anew bool) (*Commit, error) {
	generation := s.generation
	if anew {
		generation++
		if err := os.RemoveAll(filepath.Join(s.dir, generationName(generation))); err != nil {
			return nil, fmt.Errorf("keep objects: %w", err)
		}
	}
	if err := os.MkdirAll(s.folder(generation), 0o700); err != nil {
		return nil, fmt.Errorf("keep objects: %w", err)
	}
	if err := receivePack(ctx, s.folder(generation), pack, limit, s.outside(anew)); err != nil {
		return nil, err
	}

	opened := s.objects // with what it has decoded
	if anew {
		opened = s.openFolder(generation)
	}
	opened.refresh()
	commit, err := opened.commit(branch, head)
	if err == nil {
		err = commit.Tree.check(ctx, s.checked(branch, anew))
	}
	if err != nil {
		s.damage.take() // what was just read is not kept
		return nil, err
	}

	text := fmt.Sprintf("%d %s\n", generation, head)
	if err := durable.WriteFile(filepath.Join(s.dir, "head"), []byte(text)); err != nil {
		return nil, err
	}
	s.generation, s.head, s.objects = generation, head, opened
	if s.fetches++; anew {
		s.fetches = 1
	}
	// Trees of the generation before may still be read.
	return commit, s.dropOthers(generation-1, generation)
}

// outside gives what differences may be from: nothing, if nothing was said to be had.
func (s *store) outside(anew bool) outside {
	return func(id plumbing.Hash) (plumbing.ObjectType, []byte, error) {
		if anew || s.head.IsZero() {
			return plumbing.InvalidObject, nil, plumbing.ErrObjectNotFound
		}
		return s.objects.any(id, maxBase)
	}
}

// checked is the tree whose objects are known to be there.
func (s *store) checked(branch string, anew bool) *Tree {
	if anew || s.head.IsZero() {
		return nil
	}
	before, err := s.objects.commit(branch, s.head)
	if err != nil {
		return nil
	}
	return before.Tree
}

// dropOthers removes the generations that are not in keep.
func (s *store) dropOthers(keep ...int) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("tidy objects: %w", err)
	}
	kept := map[string]bool{"head": true}
	for _, generation := range keep {
		kept[generationName(generation)] = true
	}
	var problems []error
	for _, entry := range entries {
		if !kept[entry.Name()] {
			problems = append(problems, os.RemoveAll(filepath.Join(s.dir, entry.Name())))
		}
	}
	return errors.Join(problems...)
}

// checkPacks reads every pack of a folder and compares it with its checksum.
// It returns how many there are.
func checkPacks(folder string) (int, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return 0, fmt.Errorf("check packs: %w", err)
	}
	packs := 0
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "incoming-") { // of a process that was killed
			_ = os.Remove(filepath.Join(folder, entry.Name()))
		}
		name, ok := strings.CutSuffix(entry.Name(), ".pack")
		if !ok {
			continue
		}
		packs++
		if err := checkPack(filepath.Join(folder, name)); err != nil {
			return 0, fmt.Errorf("check %s: %w", entry.Name(), err)
		}
	}
	return packs, nil
}

func checkPack(name string) error {
	for _, ext := range []string{".pack", ".idx"} {
		sum, written, err := trailer(name + ext)
		if err != nil {
			return err
		}
		if sum != written || ext == ".pack" && !strings.HasSuffix(name, written.String()) {
			return fmt.Errorf("%s: %w", ext, packfile.ErrMalformedPackFile)
		}
	}
	return nil
}

// trailer returns the SHA-1 of a file but for its last 20 bytes, and these.
func trailer(name string) (sum, written plumbing.Hash, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, written, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return sum, written, err
	}
	if info.Size() < int64(len(sum)) {
		return sum, written, io.ErrUnexpectedEOF
	}

	hasher := newSHA1()
	if _, err := io.CopyN(hasher, f, info.Size()-int64(len(sum))); err != nil {
		return sum, written, err
	}
	_, err = io.ReadFull(f, written[:])
	return plumbing.Hash(hasher.Sum(nil)), written, err
}
