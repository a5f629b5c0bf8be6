package gitsync

import (
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// maxFolderFile bounds one file of a folder that FromDir reads.
const maxFolderFile = 64 << 20

// FromDir makes a commit of a private copy of somebody's folder, so that what
// was not committed yet is read the way a commit is. The objects are written
// below dir/.git, which must not be there; the commit can be read until dir is
// removed. Its Revision is empty.
func FromDir(dir string) (*Commit, error) {
	scratch := filepath.Join(dir, ".git")
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return nil, fmt.Errorf("read folder %s: %w", dir, err)
	}
	o := openObjects(scratch, "send the folder again")
	root, err := o.writeFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("read folder %s: %w", dir, err)
	}
	return &Commit{Tree: &Tree{objects: o, root: root, name: "the folder"}}, nil
}

// writeFolder writes a folder and all below it as objects.
func (o *objects) writeFolder(dir string) (plumbing.Hash, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	tree := &object.Tree{}
	for _, entry := range entries {
		if entry.Name() == ".git" {
			continue
		}
		made, err := o.writeEntry(filepath.Join(dir, entry.Name()), entry)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		tree.Entries = append(tree.Entries, made)
	}
	slices.SortFunc(tree.Entries, func(a, b object.TreeEntry) int { return cmp.Compare(sortName(a), sortName(b)) })
	encoded := o.git.NewEncodedObject()
	if err := tree.Encode(encoded); err != nil {
		return plumbing.ZeroHash, err
	}
	return o.git.SetEncodedObject(encoded)
}

// sortName is the name by which git orders a tree: folders as if they ended in
// a slash.
func sortName(e object.TreeEntry) string {
	if e.Mode == filemode.Dir {
		return e.Name + "/"
	}
	return e.Name
}

func (o *objects) writeEntry(path string, entry fs.DirEntry) (made object.TreeEntry, err error) {
	made.Name = entry.Name()
	switch entry.Type() {
	case fs.ModeDir:
		made.Mode = filemode.Dir
		made.Hash, err = o.writeFolder(path)
		return made, err
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return made, err
		}
		made.Mode = filemode.Symlink
		made.Hash, err = o.writeBlob(strings.NewReader(target))
		return made, err
	case 0:
		return o.writeFile(path, made)
	}
	return made, fmt.Errorf("%s is neither a file, a folder nor a link", path)
}

func (o *objects) writeFile(path string, made object.TreeEntry) (object.TreeEntry, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return made, err
	}
	if info.Size() > maxFolderFile {
		return made, fmt.Errorf("%s: %w", path, ErrTooLarge)
	}
	made.Mode = filemode.Regular
	if info.Mode().Perm()&0o100 != 0 {
		made.Mode = filemode.Executable
	}
	file, err := os.Open(path)
	if err != nil {
		return made, err
	}
	defer file.Close()
	made.Hash, err = o.writeBlob(file)
	return made, err
}

func (o *objects) writeBlob(from io.Reader) (plumbing.Hash, error) {
	encoded := o.git.NewEncodedObject()
	encoded.SetType(plumbing.BlobObject)
	w, err := encoded.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := io.Copy(w, from); err != nil {
		return plumbing.ZeroHash, err
	}
	if err := w.Close(); err != nil {
		return plumbing.ZeroHash, err
	}
	return o.git.SetEncodedObject(encoded)
}
