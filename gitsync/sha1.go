package gitsync

import (
	"crypto/sha1" //nolint:gosec // git's format, against bit rot only
	"hash"
)

func newSHA1() hash.Hash { return sha1.New() } //nolint:gosec // see above
