package gitsync

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// Found is a stack that a tree has.
type Found struct {
	Name      swarm.StackName   // a guess where it was refused, or even empty
	Dir       string            // its folder, from the tree's root; "" is the root
	Files     []string          // compose files in the order they are merged, from the tree's root; never empty unless refused
	EnvFiles  []string          // further files of variables, from the tree's root
	Variables map[string]string // from gitswarm.yaml
	Findings  []swarm.Finding   // refusals: the stack is there but cannot be loaded, and what runs of it stays

	file string // that names it
	line int
}

// ListingError is why a tree does not say which stacks it has. None of them is
// to be changed or removed for it.
type ListingError struct {
	Findings []swarm.Finding // at least one
}

// Error is the first finding, with how many more there are.
func (e *ListingError) Error() string {
	first := e.Findings[0]
	text := first.Text
	if first.File != "" {
		text = fmt.Sprintf("%s:%d: %s", first.File, max(first.Line, 1), first.Text)
	}
	if more := len(e.Findings) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return "find stacks: " + text
}

// The names of compose files, in the order in which compose itself looks.
var (
	composeFiles  = []string{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}
	overrideFiles = []string{"compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml"}
)

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

const (
	maxListing = 1 << 20 // bytes of gitswarm.yaml, and of a compose file that is looked into for its name
	maxStacks  = 10_000
)

// FindStacks says which stacks a tree has below path, by name.
//
// With a gitswarm.yaml in path, or else at the tree's root, these are the
// stacks it lists for the environment; of the one at the root only those
// within path count. Without it they are the folders directly below path that
// have a compose file, named by its `name:` or after the folder; folders whose
// names begin with a dot are passed over. If path itself has a compose file,
// it is the only stack: a folder below with another one is refused, unless the
// first includes it.
//
// The findings are those of all stacks, and warnings. An error is a
// ListingError, or says why the tree could not be read; either way nothing is
// known of the stacks.
func FindStacks(tree *Tree, at, environment string) ([]Found, []swarm.Finding, error) {
	at, err := treePath(at)
	if err != nil {
		return nil, nil, err
	}
	root, err := tree.Stat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, refusal("", 0, fmt.Sprintf("%s has no folder %q: add it, or change the source's path", tree.name, at))
	}
	if err != nil {
		return nil, nil, err
	}
	if !root.IsDir() {
		return nil, nil, refusal(at, 0, "the source's path is a file: give its folder")
	}

	found, err := findListed(tree, at, environment)
	if errors.Is(err, errNoListing) {
		if environment != "" {
			return nil, nil, refusal("", 0, fmt.Sprintf("environment %q is selected, but %s has no gitswarm.yaml: add one, or select none", environment, tree.name))
		}
		found, err = findFolders(tree, at)
	}
	if err != nil {
		return nil, nil, err
	}
	return finish(found)
}

// finish refuses what cannot be told apart, and sorts.
func finish(found []Found) ([]Found, []swarm.Finding, error) {
	if len(found) > maxStacks {
		return nil, nil, refusal("", 0, fmt.Sprintf("%d stacks, the limit is %d: split the source by paths", len(found), maxStacks))
	}
	slices.SortStableFunc(found, func(a, b Found) int {
		return strings.Compare(string(a.Name)+"\x00"+a.Dir, string(b.Name)+"\x00"+b.Dir)
	})

	var findings []swarm.Finding
	for i := range found {
		stack := &found[i]
		for _, j := range []int{i - 1, i + 1} {
			if j >= 0 && j < len(found) && found[j].Name == stack.Name && stack.Name != "" {
				stack.refuse(stack.file, stack.line, "name", fmt.Sprintf("stack name %q is also that of %s: give one of them another `name:`", stack.Name, shown(found[j].Dir)))
				break
			}
		}
		findings = append(findings, stack.Findings...)
	}
	return found, findings, nil
}

// findFolders looks for compose files in a folder and directly below it.
func findFolders(tree *Tree, at string) ([]Found, error) {
	above, there, err := inFolder(tree, at)
	if err != nil {
		return nil, err
	}
	entries, err := tree.entries(at)
	if err != nil {
		return nil, err
	}

	var found []Found
	for _, entry := range entries {
		dir := path.Join(at, entry.Name)
		if strings.HasPrefix(entry.Name, ".") || !tree.isFolder(dir, entry) {
			continue
		}
		stack, ok, err := inFolder(tree, dir)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, stack)
		}
	}
	if there {
		return []Found{above}, onlyOne(tree, above, found)
	}
	return found, nil
}

// onlyOne makes sure that the folders below a compose file are parts of it.
func onlyOne(tree *Tree, above Found, below []Found) error {
	included := includes(tree, above)
	for _, stack := range below {
		for _, file := range stack.Files {
			if !included[file] && !isOverride(file) {
				return refusal(file, 1, fmt.Sprintf("%s and %s both have compose files: include the one in the other, or list in gitswarm.yaml which are stacks", shown(above.Dir), stack.Dir))
			}
		}
	}
	return nil
}

// inFolder reads which compose files a folder has; false without one.
func inFolder(tree *Tree, dir string) (Found, bool, error) {
	entries, err := tree.entries(dir)
	if err != nil {
		return Found{}, false, err
	}
	have := func(names []string) (files []string) {
		for _, name := range names {
			i, ok := slices.BinarySearchFunc(entries, name, func(e Entry, name string) int { return strings.Compare(e.Name, name) })
			if ok && !entries[i].IsDir() {
				files = append(files, path.Join(dir, name))
			}
		}
		return files
	}

	main, overrides := have(composeFiles), have(overrideFiles)
	if len(main) == 0 {
		return Found{}, false, nil
	}
	stack := Found{Dir: dir, Files: []string{main[0]}}
	if len(main) > 1 {
		stack.refuse(main[1], 1, "compose", fmt.Sprintf("%s competes with %s: keep one of them", main[1], main[0]))
	}
	if len(overrides) > 1 {
		stack.refuse(overrides[1], 1, "compose", fmt.Sprintf("%s competes with %s: keep one of them", overrides[1], overrides[0]))
	}
	if len(overrides) > 0 {
		stack.Files = append(stack.Files, overrides[0])
	}
	stack.named(tree)
	return stack, true, nil
}

func isOverride(file string) bool { return slices.Contains(overrideFiles, path.Base(file)) }

// named gives the stack its name: the last file's `name:`, or the folder's.
func (f *Found) named(tree *Tree) {
	f.file, f.line = f.Files[0], 1
	for _, file := range f.Files {
		name, err := tree.stackName(file)
		if err != nil {
			f.refuse(file, 1, "name", err.Error())
			continue
		}
		if name.text != "" {
			f.Name, f.file, f.line = swarm.StackName(name.text), file, name.line
		}
	}
	switch {
	case f.Name == "" && f.Dir == "":
		f.refuse(f.file, f.line, "name", "the compose file at the repository's root needs a `name:`, since it has no folder to be named after")
	case f.Name == "":
		if f.Name = folderName(path.Base(f.Dir)); f.Name == "" {
			f.refuse(f.file, f.line, "name", fmt.Sprintf("folder %q gives no stack name: add a `name:`", f.Dir))
		}
	case !validName.MatchString(string(f.Name)):
		f.refuse(f.file, f.line, "name", badName(string(f.Name)))
		f.Name = folderName(path.Base(f.Dir))
	}
}

func badName(name string) string {
	return fmt.Sprintf("stack name %q: use at most 63 lower-case letters, digits, '-' and '_', no variables", plain(name, 80))
}

func (f *Found) refuse(file string, line int, rule, text string) {
	f.Findings = append(f.Findings, swarm.Finding{Rule: rule, Class: swarm.Refused, File: file, Line: line, Text: text})
}

func refusal(file string, line int, text string) error {
	return &ListingError{Findings: []swarm.Finding{{Rule: "gitswarm.yaml", Class: swarm.Refused, File: file, Line: line, Text: text}}}
}

func shown(dir string) string {
	if dir == "" {
		return "the repository's root"
	}
	return dir
}

// treePath cleans a path from the outside.
func treePath(at string) (string, error) {
	clean := strings.TrimPrefix(path.Clean("/"+at), "/")
	if strings.HasPrefix(at, "/") || strings.HasPrefix(path.Clean(at), "..") {
		return "", refusal("", 0, fmt.Sprintf("the source's path %q %v", at, ErrEscapes))
	}
	return clean, nil
}

// entries lists a folder without looking at its files.
func (t *Tree) entries(dir string) ([]Entry, error) {
	_, entry, err := t.find(dir)
	if err != nil {
		return nil, t.failed(dir, err)
	}
	entries, err := t.objects.folder(entry.hash)
	if err != nil {
		return nil, t.failed(dir, err)
	}
	return entries, nil
}

// isFolder reports whether an entry is a folder, or a link to one in the tree.
func (t *Tree) isFolder(at string, entry Entry) bool {
	if entry.Mode.Type() == fs.ModeSymlink {
		_, entry, err := t.find(at)
		return err == nil && entry.IsDir()
	}
	return entry.IsDir()
}
