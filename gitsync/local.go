package gitsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/gitswarm/gitswarm/swarm"
)

// localPoll is how often a local repository is looked at when nothing was
// heard of it: two small files are read.
const localPoll = 2 * time.Second

// patience is how often a read is tried again that may have met git at work.
const patience = 3

const localRemedy = "run `git fsck` there, or push again"

// local is a repository on this machine, read in place.
type local struct {
	path    string
	branch  string
	log     *slog.Logger
	watcher *refWatcher // once it is followed

	folder  string      // that holds HEAD and objects; empty until it was found
	found   os.FileInfo // of folder: another one is another repository
	objects *objects
	last    *Tree // the tree that was last found whole
}

func newLocal(path, branch string, log *slog.Logger) *local {
	return &local{path: path, branch: branch, log: log}
}

func (l *local) listen() {
	if l.watcher == nil {
		l.watcher = newRefWatcher(l.log)
	}
}

func (l *local) moved() <-chan struct{} { return l.watcher.moved }

func (l *local) close() {
	if l.watcher != nil {
		l.watcher.close()
	}
}

func (l *local) kept(revision swarm.Revision) (*Commit, error) {
	if err := l.open(); err != nil {
		return nil, err
	}
	id := plumbing.NewHash(revision.Commit())
	if there, err := l.objects.has(id); err != nil || !there {
		return nil, fmt.Errorf("commit %s is not in %s any more: %w", id, l.path, fs.ErrNotExist)
	}
	return l.objects.commit(revision.Branch(), id)
}

// sync reads the branch and its commit. A reader may meet git between two of
// its steps, so what fails is tried again for a moment.
func (l *local) sync(ctx context.Context, known swarm.Revision, _ bool) (commit *Commit, err error) {
	l.listen()
	for attempt := 0; ; attempt++ {
		if commit, err = l.read(ctx, known); err == nil || ctx.Err() != nil {
			return commit, err
		}
		if attempt == patience || errors.Is(err, errSettled) {
			return nil, fmt.Errorf("read %s: %w", l.path, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond << (2 * attempt)):
		}
	}
}

// errSettled marks what a moment's waiting does not change.
var errSettled = errors.New("repository not usable")

func (l *local) read(ctx context.Context, known swarm.Revision) (commit *Commit, err error) {
	defer recovered(&err)
	if err := l.open(); err != nil {
		return nil, err
	}
	branch, id, err := l.tip()
	if err != nil {
		return nil, err
	}
	if swarm.NewRevision(branch, id.String()) == known && l.last != nil {
		return nil, nil
	}

	if commit, err = l.objects.commit(branch, id); err != nil {
		return nil, err
	}
	if err := commit.Tree.check(ctx, l.last); err != nil {
		return nil, err
	}
	l.last = commit.Tree
	return commit, nil
}

// open finds the repository, and finds it anew if it was replaced.
func (l *local) open() error {
	folder, info, err := findRepository(l.path)
	if err != nil {
		l.folder, l.objects, l.last = "", nil, nil
		return err
	}
	if l.folder != folder || !os.SameFile(info, l.found) {
		l.objects, l.last = openObjects(folder, localRemedy), nil
	}
	l.folder, l.found = folder, info
	if err := checkFormat(folder); err != nil {
		return err
	}
	if l.watcher != nil {
		l.watcher.watch(folder, l.branch)
	}
	return nil
}

// tip reads where the branch is; an empty name asks for the one that HEAD names.
func (l *local) tip() (string, plumbing.Hash, error) {
	l.objects.mu.Lock()
	defer l.objects.mu.Unlock()

	name, branch := plumbing.HEAD, l.branch
	if branch != "" {
		name = plumbing.NewBranchReferenceName(branch)
	}
	for range 5 { // symbolic references may name others
		ref, err := l.objects.git.Reference(name)
		if errors.Is(err, plumbing.ErrReferenceNotFound) {
			return "", plumbing.ZeroHash, l.noBranch(name)
		}
		if err != nil {
			return "", plumbing.ZeroHash, fmt.Errorf("read %s: %w: %s", name, err, localRemedy)
		}
		if ref.Type() == plumbing.HashReference {
			return branchName(name), ref.Hash(), nil
		}
		name = ref.Target()
	}
	return "", plumbing.ZeroHash, fmt.Errorf("%s names itself in a ring: %s", name, localRemedy)
}

// branchName is the short name of a branch, and "HEAD" for a commit that is
// checked out without one.
func branchName(name plumbing.ReferenceName) string {
	if name.IsBranch() {
		return name.Short()
	}
	return "HEAD"
}

func (l *local) noBranch(name plumbing.ReferenceName) error {
	refs, err := l.objects.git.IterReferences()
	if err != nil {
		return fmt.Errorf("list branches: %w: %s", err, localRemedy)
	}
	var branches []string
	for {
		ref, err := refs.Next()
		if err != nil {
			break
		}
		if ref.Name().IsBranch() {
			branches = append(branches, ref.Name().Short())
		}
	}
	if len(branches) == 0 {
		return errEmptyRepository(branchName(name))
	}
	return errNoBranch(branchName(name), branches)
}

// findRepository finds the folder that holds HEAD and objects.
func findRepository(path string) (string, os.FileInfo, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("%w: there is nothing at this path: restore it, or change the source", errSettled)
	} else if err != nil {
		return "", nil, err
	}
	for _, folder := range []string{path, filepath.Join(path, ".git")} {
		if info, ok := isRepository(folder); ok {
			return folder, info, nil
		}
	}
	if info, err := os.Lstat(filepath.Join(path, ".git")); err == nil && info.Mode().IsRegular() {
		return "", nil, fmt.Errorf("%w: it is a linked work tree: give the path of its repository, as `git rev-parse --git-common-dir` prints it", errSettled)
	}
	return "", nil, fmt.Errorf("%w: the folder has no HEAD and objects: give the path that `git clone` would take", errSettled)
}

func isRepository(folder string) (os.FileInfo, bool) {
	head, err := os.Stat(filepath.Join(folder, "HEAD"))
	if err != nil || !head.Mode().IsRegular() {
		return nil, false
	}
	objects, err := os.Stat(filepath.Join(folder, "objects"))
	if err != nil || !objects.IsDir() {
		return nil, false
	}
	return objects, true
}

var formats = regexp.MustCompile(`(?im)^\s*(objectformat|refstorage)\s*=\s*"?([a-z0-9]+)`)

// checkFormat refuses repositories whose objects or branches are elsewhere, or
// of another kind.
func checkFormat(folder string) error {
	config, err := readSmall(filepath.Join(folder, "config"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, m := range formats.FindAllSubmatch(config, -1) {
		if value := string(bytes.ToLower(m[2])); value != "sha1" && value != "files" {
			return fmt.Errorf("%w: its %s is %s: gitswarm reads sha1 and files only", errSettled, m[1], value)
		}
	}

	alternates, err := readSmall(filepath.Join(folder, "objects", "info", "alternates"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(bytes.TrimSpace(alternates)) > 0 {
		return fmt.Errorf("%w: it borrows objects from another one: run `git repack -ad && rm objects/info/alternates` there", errSettled)
	}
	return nil
}

// readSmall reads a file of at most 1 MiB that is no link, pipe or device.
func readSmall(name string) ([]byte, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return nil, fmt.Errorf("%s is not a small file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 1<<20))
}
