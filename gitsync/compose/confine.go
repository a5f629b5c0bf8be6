package compose

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
)

// maxLinks is how many symlinks one path may pass through, as in Linux.
const maxLinks = 40

// confined reads a Tree by the paths that a compose file writes: symlinks are
// followed as long as they stay inside, submodules and all else are refused.
// It remembers every path it was asked for.
type confined struct {
	tree    Tree
	folders map[string][]Entry // what was listed
	reads   map[string]bool
}

func confine(tree Tree) *confined {
	return &confined{tree: tree, folders: map[string][]Entry{}, reads: map[string]bool{}}
}

// refusal is an error that the repository's owner can mend, unlike one of the
// Tree itself.
type refusal struct {
	text   string
	absent bool // there is no such path
}

func (r *refusal) Error() string { return r.text }

func refusef(format string, args ...any) *refusal {
	return &refusal{text: fmt.Sprintf(format, args...)}
}

// MissingFile is in the text of a Finding about a file that the tree does not
// have: another commit may bring it.
const MissingFile = "does not exist in the repository"

func missing(format string, args ...any) *refusal {
	return &refusal{text: fmt.Sprintf(format, args...), absent: true}
}

// read returns the content of the file that name leads to.
func (c *confined) read(name string, limit int64) ([]byte, error) {
	real, entry, err := c.find(name)
	if err != nil {
		return nil, err
	}
	if entry.Kind != KindFile {
		return nil, refusef("%s is a %s; a file is needed here", name, entry.Kind)
	}
	if entry.Size > limit {
		return nil, tooLarge(name, limit)
	}

	data, err := c.tree.ReadFile(real, limit)
	switch {
	case errors.Is(err, ErrTooLarge), err == nil && int64(len(data)) > limit:
		return nil, tooLarge(name, limit)
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

func tooLarge(name string, limit int64) *refusal {
	return refusef("%s has more than %s; make it smaller or split it", name, size(limit))
}

// file is a regular file at or below a path.
type file struct {
	Path       string `cbor:"1,keyasint,omitempty"` // as asked for, with what follows it in a folder
	Size       int64  `cbor:"2,keyasint,omitempty"`
	Executable bool   `cbor:"3,keyasint,omitempty"`
}

// files lists what is at name: the file itself, or all files of the folder
// and its folders, at most limit, sorted. Folder says which of the two it is.
func (c *confined) files(name string, limit int) (list []file, isFolder bool, err error) {
	real, entry, err := c.find(name)
	if err != nil {
		return nil, false, err
	}
	switch entry.Kind {
	case KindFile:
		return []file{{Path: name, Size: entry.Size, Executable: entry.Executable}}, false, nil
	case KindFolder:
		c.reads[real+"/"] = true
		list, err = c.gather(nil, name, limit, 0)
		return list, true, err
	}
	return nil, false, refusef("%s is a %s; a file or a folder is needed here", name, entry.Kind)
}

// maxFolders bounds how deep folders nest, symlinks to folders included.
const maxFolders = 64

func (c *confined) gather(list []file, name string, limit, depth int) ([]file, error) {
	if depth > maxFolders {
		return nil, refusef("%s: folders nest deeper than %d; is there a symlink to a folder above?", name, maxFolders)
	}
	entries, err := c.list(name)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		child := path.Join(name, entry.Name)
		_, found, err := c.find(child)
		if err != nil {
			return nil, err
		}
		switch found.Kind {
		case KindFile:
			list = append(list, file{Path: child, Size: found.Size, Executable: found.Executable})
		case KindFolder:
			if list, err = c.gather(list, child, limit, depth+1); err != nil {
				return nil, err
			}
		default:
			return nil, refusef("%s is a %s, which cannot be brought to a node; remove it", child, found.Kind)
		}
		if len(list) > limit {
			return nil, refusef("%s has more than %d files; bring large content in an image or a volume", name, limit)
		}
	}
	return list, nil
}

// list returns the entries of the folder that name leads to, sorted by name.
func (c *confined) list(name string) ([]Entry, error) {
	real, entry, err := c.find(name)
	if err != nil {
		return nil, err
	}
	if entry.Kind != KindFolder {
		return nil, refusef("%s is a %s; a folder is needed here", name, entry.Kind)
	}
	return c.entries(real)
}

func (c *confined) entries(real string) ([]Entry, error) {
	if entries, ok := c.folders[real]; ok {
		return entries, nil
	}
	entries, err := c.tree.ReadDir(real)
	if err != nil {
		return nil, fmt.Errorf("list folder %q: %w", real, err)
	}
	entries = slices.Clone(entries)
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	c.folders[real] = entries
	return entries, nil
}

// find follows name, component by component, to where it really is.
func (c *confined) find(name string) (real string, entry Entry, err error) {
	if strings.ContainsRune(name, 0) {
		return "", Entry{}, refusef("path %q holds a NUL byte", name)
	}
	if !below(path.Clean(name)) {
		return "", Entry{}, refusef("%s is outside of the repository; only files of the repository can be named", name)
	}
	c.reads[path.Clean(name)] = true

	entry = Entry{Kind: KindFolder}
	rest := path.Clean(name)
	for links := 0; rest != "." && rest != ""; {
		var head string
		head, rest, _ = strings.Cut(rest, "/")
		if head == ".." {
			if real == "" {
				return "", Entry{}, refusef("%s leads outside of the repository through a symlink", name)
			}
			if real = path.Dir(real); real == "." {
				real = ""
			}
			continue
		}
		if entry, err = c.step(name, real, head); err != nil {
			return "", Entry{}, err
		}
		if entry.Kind == KindSymlink {
			c.reads[path.Join(real, head)] = true
			if links++; links > maxLinks {
				return "", Entry{}, refusef("%s passes through more than %d symlinks", name, maxLinks)
			}
			if path.IsAbs(entry.Target) || entry.Target == "" {
				return "", Entry{}, refusef("%s leads outside of the repository: %s is a symlink to %s", name, path.Join(real, head), entry.Target)
			}
			rest = joinRaw(entry.Target, rest)
			entry = Entry{Kind: KindFolder}
			continue
		}
		real = path.Join(real, head)
		if rest != "" && entry.Kind != KindFolder {
			return "", Entry{}, absentOr(name, real, entry.Kind)
		}
	}
	c.reads[cmp.Or(real, ".")] = true
	return real, entry, nil
}

// joinRaw puts a symlink's target before what follows it, without cleaning:
// "a/.." is not "." where a is a symlink.
func joinRaw(target, rest string) string {
	parts := strings.FieldsFunc(target+"/"+rest, func(r rune) bool { return r == '/' })
	parts = slices.DeleteFunc(parts, func(part string) bool { return part == "." })
	return strings.Join(parts, "/")
}

func absentOr(name, at string, kind Kind) *refusal {
	if kind == KindSubmodule {
		return refusef("%s is inside of the submodule %s; submodules are not fetched: copy what is needed into the repository", name, at)
	}
	return missing("%s %s: %s is a %s", name, MissingFile, at, kind)
}

func (c *confined) step(name, dir, head string) (Entry, error) {
	entries, err := c.entries(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && dir == "" {
			return Entry{}, missing("%s %s, which is empty", name, MissingFile)
		}
		return Entry{}, err
	}
	i := sort.Search(len(entries), func(i int) bool { return entries[i].Name >= head })
	if i == len(entries) || entries[i].Name != head {
		return Entry{}, missing("%s %s", name, MissingFile)
	}
	if entries[i].Kind == KindSubmodule {
		return Entry{}, absentOr(name, path.Join(dir, head), KindSubmodule)
	}
	return entries[i], nil
}

// size writes bytes for people: "1 MiB", "500 KiB".
func size(bytes int64) string {
	switch {
	case bytes >= 1<<20 && bytes%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", bytes>>20)
	case bytes >= 1<<10 && bytes%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d bytes", bytes)
}
