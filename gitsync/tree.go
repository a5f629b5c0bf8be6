package gitsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// Errors of paths that a tree does not hold itself.
var (
	// ErrEscapes marks a path or a link that leads out of the tree.
	ErrEscapes = errors.New("leads out of the repository: use a path inside it")
	// ErrSubmodule marks a path in a submodule.
	ErrSubmodule = errors.New("is a submodule, which is not fetched: commit the files themselves")
)

const (
	maxLinks = 40   // that one path may follow, as in Linux
	maxPath  = 4096 // bytes, likewise
	maxDepth = 200  // of folders
)

// Tree is the content of one commit. Reading it never changes it; it is safe
// for use by several goroutines.
type Tree struct {
	objects *objects
	root    plumbing.Hash
	name    string // of the commit, for messages
}

// Entry is one name in a folder.
type Entry struct {
	Name   string
	Mode   fs.FileMode // type and permission bits; fs.ModeIrregular is a submodule
	Size   int64       // bytes, of a file
	Target string      // of a link, as it is written
	hash   plumbing.Hash
}

// IsDir reports whether the entry is a folder.
func (e Entry) IsDir() bool { return e.Mode.IsDir() }

// ReadFile returns the content of a file of at most limit bytes. Links are
// followed inside the tree. It fails with fs.ErrNotExist, ErrTooLarge,
// ErrEscapes or ErrSubmodule, or because the repository is damaged.
func (t *Tree) ReadFile(path string, limit int64) ([]byte, error) {
	_, entry, err := t.find(path)
	if err == nil && entry.IsDir() {
		err = errors.New("is a folder")
	}
	if err != nil {
		return nil, t.failed(path, err)
	}
	data, err := t.objects.read(plumbing.BlobObject, entry.hash, limit)
	if err != nil {
		return nil, t.failed(path, err)
	}
	return data, nil
}

// ReadDir returns what a folder holds, by name. Links in it are not followed.
func (t *Tree) ReadDir(path string) ([]Entry, error) {
	_, entry, err := t.find(path)
	if err == nil && !entry.IsDir() {
		err = errors.New("is not a folder")
	}
	if err != nil {
		return nil, t.failed(path, err)
	}
	entries, err := t.objects.folder(entry.hash)
	if err != nil {
		return nil, t.failed(path, err)
	}
	entries = slices.Clone(entries)
	for i := range entries {
		if err := t.describe(&entries[i]); err != nil {
			return nil, t.failed(strings.TrimPrefix(path+"/"+entries[i].Name, "/"), err)
		}
	}
	return entries, nil
}

// describe adds what the folder itself does not say.
func (t *Tree) describe(entry *Entry) (err error) {
	switch entry.Mode.Type() {
	case 0:
		entry.Size, err = t.objects.size(entry.hash)
	case fs.ModeSymlink:
		var target []byte
		target, err = t.objects.read(plumbing.BlobObject, entry.hash, maxPath)
		entry.Target = string(target)
	}
	return err
}

// Stat returns what is at path, links followed. Its Name is that of the place
// the links lead to, and empty for the root.
func (t *Tree) Stat(path string) (Entry, error) {
	_, entry, err := t.find(path)
	if err == nil {
		err = t.describe(&entry)
	}
	if err != nil {
		return Entry{}, t.failed(path, err)
	}
	return entry, nil
}

// Real returns where path leads to once all links are followed: the name under
// which Changed tells of it. The root is "".
func (t *Tree) Real(path string) (string, error) {
	real, _, err := t.find(path)
	if err != nil {
		return "", t.failed(path, err)
	}
	return real, nil
}

// Hash names what is at path: equal names, equal content, for a folder with
// all below it.
func (t *Tree) Hash(path string) (string, error) {
	_, entry, err := t.find(path)
	if err != nil {
		return "", t.failed(path, err)
	}
	return entry.Mode.String() + entry.hash.String(), nil
}

func (t *Tree) failed(path string, err error) error {
	return fmt.Errorf("%s of %s: %w", path, t.name, err)
}

// find walks to path as a kernel would, but only inside the tree.
func (t *Tree) find(path string) (string, Entry, error) {
	if strings.HasPrefix(path, "/") {
		return "", Entry{}, ErrEscapes
	}
	if len(path) > maxPath || strings.ContainsRune(path, 0) {
		return "", Entry{}, errors.New("is not a valid path")
	}

	at := []Entry{{Mode: fs.ModeDir | 0o755, hash: t.root}} // from the root down
	rest := strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch {
		case name == "" || name == ".":
			continue
		case name == ".." && len(at) == 1:
			return "", Entry{}, ErrEscapes
		case name == "..":
			at = at[:len(at)-1]
			continue
		}

		entry, err := t.step(at[len(at)-1], name)
		if err != nil {
			return "", Entry{}, err
		}
		if entry.Mode.Type() != fs.ModeSymlink {
			at = append(at, entry)
			continue
		}
		if links++; links > maxLinks {
			return "", Entry{}, errors.New("follows too many links: they may form a ring")
		}
		target, err := t.linkTarget(entry)
		if err != nil {
			return "", Entry{}, err
		}
		if rest = append(strings.Split(target, "/"), rest...); len(rest) > maxPath {
			return "", Entry{}, errors.New("follows links to a path that is too long")
		}
	}
	return pathOf(at), at[len(at)-1], nil
}

func (t *Tree) step(folder Entry, name string) (Entry, error) {
	if !folder.IsDir() {
		return Entry{}, fs.ErrNotExist
	}
	entries, err := t.objects.folder(folder.hash)
	if err != nil {
		return Entry{}, err
	}
	i, ok := slices.BinarySearchFunc(entries, name, func(e Entry, name string) int { return strings.Compare(e.Name, name) })
	if !ok {
		return Entry{}, fs.ErrNotExist
	}
	if entries[i].Mode.Type() == fs.ModeIrregular {
		return Entry{}, ErrSubmodule
	}
	return entries[i], nil
}

func (t *Tree) linkTarget(link Entry) (string, error) {
	target, err := t.objects.read(plumbing.BlobObject, link.hash, maxPath)
	if err != nil {
		return "", err
	}
	if len(target) == 0 || bytes.IndexByte(target, 0) >= 0 {
		return "", errors.New("is a link to nothing")
	}
	if target[0] == '/' {
		return "", fmt.Errorf("is a link to %q: %w", plain(string(target), 80), ErrEscapes)
	}
	return string(target), nil
}

func pathOf(at []Entry) string {
	names := make([]string, 0, len(at))
	for _, entry := range at[1:] {
		names = append(names, entry.Name)
	}
	return strings.Join(names, "/")
}

// check makes sure that all of the tree can be read, but for what it shares
// with old, which was checked before. old may be nil.
func (t *Tree) check(ctx context.Context, old *Tree) error {
	w := walker{ctx: ctx, tree: t, other: old, once: map[plumbing.Hash]bool{}}
	w.visit = func(path string, entry Entry) error {
		if entry.IsDir() || entry.Mode.Type() == fs.ModeIrregular {
			return nil
		}
		there, err := t.objects.has(entry.hash)
		if err != nil {
			return t.failed(path, err)
		}
		if !there {
			return t.failed(path, fmt.Errorf("blob %s: %w: %s", entry.hash, errDamaged, t.objects.remedy))
		}
		return nil
	}
	return w.run()
}

// parseFolder reads a tree object: "mode name NUL id", sorted as git sorts.
func parseFolder(data []byte) ([]Entry, error) {
	var entries []Entry
	for len(data) > 0 {
		mode, rest, ok := bytes.Cut(data, []byte{' '})
		if !ok {
			return nil, errors.New("is malformed: no mode")
		}
		name, rest, ok := bytes.Cut(rest, []byte{0})
		if !ok || len(rest) < 20 {
			return nil, errors.New("is malformed: it ends early")
		}
		entry := Entry{Name: string(name), Mode: fileMode(string(mode)), hash: plumbing.Hash(rest[:20])}
		data = rest[20:]
		if err := checkEntry(entry); err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}

	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(entries); i++ {
		if entries[i].Name == entries[i-1].Name {
			return nil, fmt.Errorf("has %q twice", entries[i].Name)
		}
	}
	return entries, nil
}

func checkEntry(entry Entry) error {
	switch {
	case entry.Name == "" || entry.Name == "." || entry.Name == ".." || strings.Contains(entry.Name, "/"):
		return fmt.Errorf("has an entry with the name %q", entry.Name)
	case entry.Mode == fs.ModeSocket:
		return fmt.Errorf("has an entry %q of an unknown kind", entry.Name)
	}
	return nil
}

// fileMode translates the modes of tree objects. fs.ModeSocket stands for what git has no meaning for.
func fileMode(mode string) fs.FileMode {
	switch mode {
	case "40000", "040000":
		return fs.ModeDir | 0o755
	case "100644", "100664", "100600":
		return 0o644
	case "100755":
		return 0o755
	case "120000":
		return fs.ModeSymlink | 0o777
	case "160000":
		return fs.ModeIrregular
	default:
		return fs.ModeSocket
	}
}
