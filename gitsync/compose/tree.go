package compose

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Tree is a read-only view of files: a commit's tree, or a folder. Paths are
// relative to its root, separated by slashes, clean, and "" or "." is the root
// itself; no component of a path that is asked for is ever a symlink, for this
// package resolves them itself and stays inside.
type Tree interface {
	// ReadFile returns a regular file's content. It fails with ErrTooLarge,
	// before reading, if there are more than limit bytes, and with
	// fs.ErrNotExist if there is no such file.
	ReadFile(path string, limit int64) ([]byte, error)
	// ReadDir lists a folder, in any order. It fails with fs.ErrNotExist if
	// there is no such folder.
	ReadDir(path string) ([]Entry, error)
}

// ErrTooLarge says that a file has more bytes than were asked for.
var ErrTooLarge = errors.New("file is too large")

// Kind is what an Entry of a Tree is.
type Kind string

// The kinds of entries.
const (
	KindFile      Kind = "file"
	KindFolder    Kind = "folder"
	KindSymlink   Kind = "symlink"
	KindSubmodule Kind = "submodule"
	KindOther     Kind = "other" // devices, sockets: never read
)

// Entry is one name in a folder.
type Entry struct {
	Name       string `cbor:"1,keyasint,omitempty"`
	Kind       Kind   `cbor:"2,keyasint,omitempty"`
	Size       int64  `cbor:"3,keyasint,omitempty"` // bytes, of a file
	Executable bool   `cbor:"4,keyasint,omitempty"` // of a file
	Target     string `cbor:"5,keyasint,omitempty"` // of a symlink, as written
}

// FromDir is the tree below a folder of this machine, for `validate` and
// `plan PATH`. Nothing outside of the folder is reached through it, whatever
// its symlinks say. A nested repository's .git is not shown.
func FromDir(root string) Tree { return folder{root: root} }

type folder struct{ root string }

func (f folder) open(name string) (*os.File, error) {
	root, err := os.OpenRoot(f.root)
	if err != nil {
		return nil, fmt.Errorf("open folder %s: %w", f.root, err)
	}
	defer root.Close()

	name = path.Clean("./" + name)
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return nil, fmt.Errorf("open %s: it is neither a file nor a folder", name)
	}
	return root.Open(name)
}

func (f folder) ReadFile(name string, limit int64) ([]byte, error) {
	file, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()

	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: more than %d bytes: %w", name, limit, ErrTooLarge)
	}
	return data, nil
}

func (f folder) ReadDir(name string) ([]Entry, error) {
	file, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()

	found, err := file.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	entries := make([]Entry, 0, len(found))
	for _, item := range found {
		if item.Name() == ".git" {
			continue
		}
		entry, err := f.entry(name, item)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

func (f folder) entry(dir string, item fs.DirEntry) (Entry, error) {
	entry := Entry{Name: item.Name(), Kind: KindOther}
	switch {
	case item.IsDir():
		entry.Kind = KindFolder
	case item.Type()&fs.ModeSymlink != 0:
		target, err := os.Readlink(filepath.Join(f.root, filepath.FromSlash(dir), item.Name()))
		if err != nil {
			return Entry{}, fmt.Errorf("read symlink %s: %w", path.Join(dir, item.Name()), err)
		}
		entry.Kind, entry.Target = KindSymlink, filepath.ToSlash(target)
	case item.Type().IsRegular():
		info, err := item.Info()
		if err != nil {
			return Entry{}, fmt.Errorf("look at %s: %w", path.Join(dir, item.Name()), err)
		}
		entry.Kind, entry.Size, entry.Executable = KindFile, info.Size(), info.Mode()&0o100 != 0
	}
	return entry, nil
}

// below reports whether a clean path stays inside the root that it is
// relative to.
func below(name string) bool {
	return !path.IsAbs(name) && name != ".." && !strings.HasPrefix(name, "../")
}
