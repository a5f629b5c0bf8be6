package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"

	"github.com/gitswarm/gitswarm/swarm"
)

// remote is a repository on a server.
type remote struct {
	where   location
	branch  string
	store   *store
	maxPack int64
	dial    func(ctx context.Context) (session, error)
	idle    func() // lets go of connections

	refused plumbing.Hash // the commit that was last found unfit, and why
	because error
}

func newRemote(s *Syncer, source swarm.Source, where location, credential swarm.Credential) (*remote, error) {
	r := &remote{where: where, branch: source.Branch, store: s.store(source), maxPack: s.maxPack, idle: func() {}}
	if where.scheme == schemeSSH {
		access, err := newSSHAccess(where, credential)
		r.dial = func(ctx context.Context) (session, error) {
			if err != nil { // told as a problem, since a credential can be replaced
				return nil, err
			}
			return openSSH(ctx, where, access)
		}
		return r, nil
	}

	if where.scheme == schemeHTTP && credential.Password != "" && !loopback(where.url.Hostname()) {
		s.log.Warn("credentials sent unencrypted", "source", source.ID, "host", where.host)
	}
	client := newHTTPClient()
	r.dial = func(ctx context.Context) (session, error) { return openHTTP(ctx, client, where, credential), nil }
	r.idle = client.Transport.(*http.Transport).CloseIdleConnections
	return r, nil
}

func (r *remote) moved() <-chan struct{} { return nil }

func (r *remote) close() { r.idle() }

func (r *remote) kept(revision swarm.Revision) (*Commit, error) {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	if err := r.store.open(); err != nil {
		return nil, err
	}
	id := plumbing.NewHash(revision.Commit())
	if r.store.head.IsZero() || id.IsZero() {
		return nil, fmt.Errorf("commit %s is not kept: %w", id, fs.ErrNotExist)
	}
	if there, err := r.store.objects.has(id); err != nil || !there {
		return nil, fmt.Errorf("commit %s is not kept: %w", id, fs.ErrNotExist)
	}
	return r.store.objects.commit(revision.Branch(), id)
}

// sync asks the server for the branch, and for its commit if that is not kept.
func (r *remote) sync(ctx context.Context, known swarm.Revision, again bool) (commit *Commit, err error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			err = fmt.Errorf("ask %s: %w", r.place(), explain(err))
		}
	}()
	defer recovered(&err)

	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	if err := r.store.open(); err != nil {
		return nil, err
	}

	with, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer with.close()
	adv, err := with.refs()
	if err != nil && !isEmpty(err) {
		return nil, err
	}
	branch, tip, err := pickBranch(adv, err, r.branch)
	if err != nil {
		return nil, answered{err}
	}
	return r.advance(ctx, with, adv, branch, tip, known, again)
}

// advance gives the commit that the branch names, unless it is known.
func (r *remote) advance(ctx context.Context, with session, adv *packp.AdvRefs, branch string, tip plumbing.Hash, known swarm.Revision, again bool) (*Commit, error) {
	whole := tip == r.store.head
	switch {
	case whole && swarm.NewRevision(branch, tip.String()) == known:
		return nil, nil
	case whole:
		return r.store.objects.commit(branch, tip)
	case tip == r.refused && !again:
		return nil, r.because // it would be the same again
	}

	commit, err := r.fetch(ctx, with, adv, branch, tip)
	r.refused, r.because = plumbing.ZeroHash, nil
	if errors.Is(err, errPack) {
		r.refused, r.because = tip, answered{err}
		return nil, r.because
	}
	return commit, err
}

// fetch gets what is missing of a commit or, if that does not give a whole
// commit, all of it.
func (r *remote) fetch(ctx context.Context, with session, adv *packp.AdvRefs, branch string, tip plumbing.Hash) (*Commit, error) {
	if r.store.full() {
		return r.receive(ctx, with, adv, branch, tip, plumbing.ZeroHash)
	}
	commit, err := r.receive(ctx, with, adv, branch, tip, r.store.head)
	if err == nil || ctx.Err() != nil {
		return commit, err
	}

	anew, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer anew.close()
	if adv, err = anew.refs(); err != nil {
		return nil, err
	}
	return r.receive(ctx, anew, adv, branch, tip, plumbing.ZeroHash)
}

func (r *remote) receive(ctx context.Context, with session, adv *packp.AdvRefs, branch string, tip, have plumbing.Hash) (*Commit, error) {
	request, text, err := fetchRequest(adv, tip, have)
	if err != nil {
		return nil, err
	}
	answer, err := with.ask(text)
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	pack, err := packIn(answer, request)
	if err != nil {
		return nil, err
	}
	return r.store.add(ctx, pack, r.maxPack, branch, tip, have.IsZero())
}

// place names the branch and the repository for people.
func (r *remote) place() string {
	address := r.where.host + ":" + r.where.path
	if r.where.url != nil {
		address = r.where.url.String()
	}
	if r.branch == "" {
		return address
	}
	return fmt.Sprintf("%s for branch %s", address, r.branch)
}

func isEmpty(err error) bool {
	return errors.Is(err, packp.ErrEmptyAdvRefs)
}

// pickBranch finds the branch among those that the server has; an empty name
// asks for the one that its HEAD names.
func pickBranch(adv *packp.AdvRefs, err error, branch string) (string, plumbing.Hash, error) {
	if err != nil || adv.Head == nil && len(adv.References) == 0 {
		return "", plumbing.ZeroHash, errEmptyRepository(branch)
	}
	if branch == "" {
		branch = headBranch(adv)
		if adv.Head != nil {
			return branch, *adv.Head, nil
		}
	}
	id, ok := adv.References[string(plumbing.NewBranchReferenceName(branch))]
	if ok && !id.IsZero() {
		return branch, id, nil
	}

	var branches []string
	for name := range adv.References {
		if short, ok := strings.CutPrefix(name, "refs/heads/"); ok {
			branches = append(branches, short)
		}
	}
	return "", plumbing.ZeroHash, errNoBranch(branch, branches)
}

func headBranch(adv *packp.AdvRefs) string {
	for _, symref := range adv.Capabilities.Get(capability.SymRef) {
		if branch, ok := strings.CutPrefix(symref, "HEAD:refs/heads/"); ok && checkBranch(branch) == nil {
			return branch
		}
	}
	return "HEAD"
}

func errEmptyRepository(branch string) error {
	if branch == "" {
		branch = "main"
	}
	return fmt.Errorf("the repository is empty: push a commit to %s", branch)
}

func errNoBranch(branch string, branches []string) error {
	slices.Sort(branches)
	for i := range branches {
		branches[i] = plain(branches[i], 60)
	}
	more := ""
	if len(branches) > 5 {
		more = fmt.Sprintf(" and %d more", len(branches)-5)
		branches = branches[:5]
	}
	there := "it has none"
	if len(branches) > 0 {
		there = "it has " + strings.Join(branches, ", ") + more
	}
	if branch == "HEAD" {
		return fmt.Errorf("the repository's HEAD names a branch that does not exist: name one (%s)", there)
	}
	return fmt.Errorf("there is no branch %s: push it, or watch another (%s)", branch, there)
}
