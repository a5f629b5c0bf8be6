package manager

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/gitsync/compose"
)

// treeOf shows a commit's tree to the compose loader.
type treeOf struct{ tree *gitsync.Tree }

// ReadFile returns a file's content.
func (t treeOf) ReadFile(path string, limit int64) ([]byte, error) {
	data, err := t.tree.ReadFile(path, limit)
	if errors.Is(err, gitsync.ErrTooLarge) {
		return nil, fmt.Errorf("%w: %w", compose.ErrTooLarge, err)
	}
	return data, err
}

// ReadDir lists a folder.
func (t treeOf) ReadDir(path string) ([]compose.Entry, error) {
	found, err := t.tree.ReadDir(path)
	if err != nil {
		return nil, err
	}
	entries := make([]compose.Entry, 0, len(found))
	for _, e := range found {
		entries = append(entries, compose.Entry{
			Name: e.Name, Kind: kindOf(e.Mode), Size: e.Size, Executable: e.Mode.Perm()&0o111 != 0, Target: e.Target,
		})
	}
	return entries, nil
}

func kindOf(mode fs.FileMode) compose.Kind {
	switch {
	case mode.IsRegular():
		return compose.KindFile
	case mode.IsDir():
		return compose.KindFolder
	case mode&fs.ModeSymlink != 0:
		return compose.KindSymlink
	case mode&fs.ModeIrregular != 0:
		return compose.KindSubmodule
	}
	return compose.KindOther
}
