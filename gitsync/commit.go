package gitsync

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/gitswarm/gitswarm/swarm"
)

// commit opens the commit that a branch names.
func (o *objects) commit(branch string, id plumbing.Hash) (*Commit, error) {
	data, err := o.read(plumbing.CommitObject, id, maxCommit)
	if err != nil {
		return nil, err
	}
	commit, root, err := parseCommit(data)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", id, err)
	}
	commit.Revision = swarm.NewRevision(branch, id.String())
	commit.Tree = &Tree{objects: o, root: root, name: commit.Revision.Short()}
	return commit, nil
}

// parseCommit reads a commit object: lines of headers, an empty line, the message.
func parseCommit(data []byte) (*Commit, plumbing.Hash, error) {
	head, message, _ := bytes.Cut(data, []byte("\n\n"))
	var root plumbing.Hash
	commit := &Commit{Subject: plain(firstLine(string(message)), 200)}

	for line := range strings.SplitSeq(string(head), "\n") {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "tree":
			if root.IsZero() && plumbing.IsHash(value) {
				root = plumbing.NewHash(value)
			}
		case "author":
			name, _, _ := strings.Cut(value, " <")
			commit.Author = plain(name, 100)
		case "committer":
			commit.Committed = signedAt(value)
		}
	}
	if root.IsZero() {
		return nil, root, errors.New("it names no tree")
	}
	return commit, root, nil
}

// signedAt reads the time of "Ana <ana@example.org> 1700000000 +0100". What is
// no time gives the zero Time: it is for people only.
func signedAt(value string) time.Time {
	fields := strings.Fields(value[strings.LastIndexByte(value, '>')+1:])
	if len(fields) == 0 {
		return time.Time{}
	}
	seconds, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || seconds <= 0 || seconds > 1<<40 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimLeft(text, "\r\n \t"), "\n")
	return line
}

// plain makes text from outside fit to be shown on a terminal.
func plain(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if utf8.RuneCountInString(text) > limit {
		text = string([]rune(text)[:limit-1]) + "…"
	}
	return text
}
