package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// maxFiles is how many files a tree, or the difference of two, may have.
const maxFiles = 1_000_000

// Changed returns the files, links and submodules that differ from old, sorted:
// new ones, changed ones and those that are gone. Its cost grows with the
// difference, not with the tree. A nil old gives all.
func (t *Tree) Changed(old *Tree) ([]string, error) {
	changed := []string{}
	note := func(path string, entry Entry) error {
		if !entry.IsDir() {
			changed = append(changed, path)
		}
		return nil
	}
	if err := walk(context.Background(), t, old, note); err != nil {
		return nil, err
	}
	if old != nil {
		if err := walk(context.Background(), old, t, note); err != nil {
			return nil, err
		}
	}
	slices.Sort(changed)
	return slices.Compact(changed), nil
}

// walker visits what one tree has and another has not.
type walker struct {
	ctx   context.Context
	tree  *Tree
	other *Tree // nil: nothing
	visit func(path string, entry Entry) error
	once  map[plumbing.Hash]bool // folders that need no second visit; nil: all do
	seen  int
}

// walk visits each entry of t that other does not have in the same way at the
// same path. Folders that are equal are not entered.
func walk(ctx context.Context, t, other *Tree, visit func(path string, entry Entry) error) error {
	w := walker{ctx: ctx, tree: t, other: other, visit: visit}
	return w.run()
}

func (w *walker) run() error {
	var beside plumbing.Hash
	if w.other != nil {
		beside = w.other.root
	}
	if beside == w.tree.root {
		return nil
	}
	return w.folder("", w.tree.root, beside)
}

func (w *walker) folder(at string, id, beside plumbing.Hash) error {
	if strings.Count(at, "/") >= maxDepth || len(at) > maxPath {
		return fmt.Errorf("%.80s… of %s: folders are nested more than %d deep", at, w.tree.name, maxDepth)
	}
	if w.once[id] {
		return nil
	}
	if w.once != nil {
		w.once[id] = true
	}
	entries, err := w.tree.objects.folder(id)
	if err != nil {
		return w.tree.failed(at, err)
	}
	var others []Entry
	if !beside.IsZero() {
		if others, err = w.other.objects.folder(beside); err != nil {
			return w.other.failed(at, err)
		}
	}

	for _, entry := range entries {
		if w.seen++; w.seen > maxFiles {
			return fmt.Errorf("%s has more than %d files: watch a smaller repository", w.tree.name, maxFiles)
		}
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if err := w.entry(path.Join(at, entry.Name), entry, others); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(at string, entry Entry, others []Entry) error {
	var beside plumbing.Hash
	i, ok := slices.BinarySearchFunc(others, entry.Name, func(e Entry, name string) int { return strings.Compare(e.Name, name) })
	if ok && others[i].hash == entry.hash && others[i].Mode == entry.Mode {
		return nil
	}
	if ok && others[i].IsDir() {
		beside = others[i].hash
	}

	if err := w.visit(at, entry); err != nil || !entry.IsDir() {
		return err
	}
	return w.folder(at, entry.hash, beside)
}

// exists reports whether path is there; what cannot be read is an error.
func (t *Tree) exists(path string) (bool, error) {
	_, err := t.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
