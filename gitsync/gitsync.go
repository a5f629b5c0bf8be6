// Package gitsync follows git repositories: it says which commit a branch
// names, and gives that commit's tree to read. Objects are read from the
// repository itself where it is on this machine, and fetched without history
// otherwise.
//
// It refuses to write a work tree, to run a git program, to follow a redirect
// to another host, to speak to an SSH host that is not known, and to read
// anything that a tree does not hold itself: submodules, alternates, links
// that lead out. It never reports an empty tree in place of one that it could
// not read.
package gitsync

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Config says where and how often.
type Config struct {
	Dir       string        // required: objects of remote repositories are kept below it
	Log       *slog.Logger  // optional
	PollEvery time.Duration // optional: for sources that do not say; 30 s
	MaxPack   int64         // optional: bytes that one fetch may send; 512 MiB
}

// Syncer follows sources. It is safe for use by several goroutines.
type Syncer struct {
	dir     string
	log     *slog.Logger
	poll    time.Duration
	maxPack int64

	mu     sync.Mutex
	stores map[string]*store // by folder
}

// Commit is one commit of a source, ready to be read.
type Commit struct {
	Revision  swarm.Revision
	Author    string // name, without control characters, at most 100 runes
	Subject   string // first line of the message, likewise, at most 200 runes
	Committed time.Time
	Tree      *Tree
}

// New returns a Syncer that keeps its objects below c.Dir.
func New(c Config) *Syncer {
	s := &Syncer{dir: c.Dir, log: c.Log, poll: c.PollEvery, maxPack: c.MaxPack, stores: map[string]*store{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.poll <= 0 {
		s.poll = 30 * time.Second
	}
	if s.maxPack <= 0 {
		s.maxPack = 512 << 20
	}
	return s
}

// Watch follows one source until ctx ends, which is no error. It reports the
// first answer, each new commit, each problem and each recovery, and once a
// minute that the source was seen; after a nudge it asks at once and reports
// whatever the answer is. It fails only if the source can never be followed:
// an URL or a credential that nobody could use.
func (s *Syncer) Watch(ctx context.Context, source swarm.Source, credential swarm.Credential, nudge <-chan struct{}, report func(Report)) error {
	from, err := s.open(source, credential)
	if err != nil {
		return fmt.Errorf("follow source %s: %w", source.ID, err)
	}
	defer from.close()

	w := watch{origin: from, source: source.ID, nudge: nudge, report: report, log: s.log}
	w.poll = source.Poll
	if w.poll <= 0 {
		w.poll = s.poll
	}
	w.run(ctx)
	return nil
}

// Commit opens a commit that Watch has reported before, for a leader that
// begins: what has changed since is told by Changed. It asks no server, and
// fails with fs.ErrNotExist where the commit is no longer kept.
func (s *Syncer) Commit(source swarm.Source, revision swarm.Revision) (*Commit, error) {
	from, err := s.open(source, swarm.Credential{})
	if err != nil {
		return nil, fmt.Errorf("open %s of source %s: %w", revision.Short(), source.ID, err)
	}
	defer from.close()

	commit, err := from.kept(revision)
	if err != nil {
		return nil, fmt.Errorf("open %s of source %s: %w", revision.Short(), source.ID, err)
	}
	return commit, nil
}

// Sweep removes the kept objects of every source that is not in keep.
func (s *Syncer) Sweep(keep []swarm.Source) error {
	kept := map[string]bool{}
	for _, source := range keep {
		kept[storeName(source)] = true
	}

	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep %s: %w", s.dir, err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	var problems []error
	for _, entry := range entries {
		if !kept[entry.Name()] {
			delete(s.stores, entry.Name())
			problems = append(problems, os.RemoveAll(filepath.Join(s.dir, entry.Name())))
		}
	}
	return errors.Join(problems...)
}

// origin is where a source's commits come from.
type origin interface {
	// sync asks where the branch is. The commit is nil if it is still at known;
	// again asks anew even for what was refused before.
	sync(ctx context.Context, known swarm.Revision, again bool) (*Commit, error)
	// kept opens a commit without asking.
	kept(revision swarm.Revision) (*Commit, error)
	// moved yields a value when the branch may have moved; nil if only asking tells.
	moved() <-chan struct{}
	close()
}

func (s *Syncer) open(source swarm.Source, credential swarm.Credential) (origin, error) {
	where, err := parseURL(source.URL)
	if err != nil {
		return nil, err
	}
	if err := checkBranch(source.Branch); err != nil {
		return nil, err
	}
	if where.scheme == schemeLocal {
		return newLocal(where.path, source.Branch, s.log), nil
	}
	return newRemote(s, source, where, credential)
}

// storeName is the folder of a source's objects: another URL is another folder.
func storeName(source swarm.Source) string {
	sum := sha256.Sum256([]byte(string(source.ID) + "\x00" + source.URL))
	return hex.EncodeToString(sum[:16])
}

// store returns the one store of a source, so that two watches of it (one
// ending, one beginning) never write at once.
func (s *Syncer) store(source swarm.Source) *store {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := storeName(source)
	if s.stores[name] == nil {
		s.stores[name] = &store{dir: filepath.Join(s.dir, name), where: source.URL}
	}
	return s.stores[name]
}
