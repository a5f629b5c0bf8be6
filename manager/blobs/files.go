package blobs

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gitswarm/gitswarm/internal/durable"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

const (
	shaPrefix  = "sha256:"
	secretMark = "hmac-" // begins the file names of secrets
	tempDir    = "tmp"
)

// sealContext binds sealed files to their purpose; their name is verified by
// the content itself.
var sealContext = []byte("gitswarm blob")

// prepare makes the folders and removes unfinished files.
func prepare(dir string) error {
	temp := filepath.Join(dir, tempDir)
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return err
	}
	return makeFolders(dir)
}

// makeFolders makes the folders 00 to ff once, so that no Put has to wait for
// a new folder to be safe on disk.
func makeFolders(dir string) error {
	made := false
	for i := range 256 {
		err := os.Mkdir(filepath.Join(dir, fmt.Sprintf("%02x", i)), 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		made = made || err == nil
	}
	if !made {
		return nil
	}
	return durable.SyncFolder(dir)
}

// path is where content of that name lies: DIR/2 hex/64 hex, or
// DIR/2 hex/hmac-64 hex.
func (b *Blobs) path(digest swarm.Digest) (string, error) {
	mark := ""
	sum, ok := strings.CutPrefix(string(digest), shaPrefix)
	if !ok {
		if sum, ok = strings.CutPrefix(string(digest), seal.SecretPrefix); ok {
			mark = secretMark
		}
	}
	if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != 32 || sum != strings.ToLower(sum) {
		return "", fmt.Errorf("%q is no digest", digest)
	}
	return filepath.Join(b.dir, sum[:2], mark+sum), nil
}

// digest is the inverse of path.
func (b *Blobs) digest(path string) (swarm.Digest, bool) {
	name := filepath.Base(path)
	digest := swarm.Digest(shaPrefix + name)
	if sum, ok := strings.CutPrefix(name, secretMark); ok {
		digest = swarm.Digest(seal.SecretPrefix + sum)
	}
	at, err := b.path(digest)
	return digest, err == nil && at == path
}

func (b *Blobs) read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, err := b.keyring.NewReader(f, sealContext)
	if err != nil {
		return nil, err
	}
	var data bytes.Buffer
	data.Grow(int(min(info.Size(), MaxSize)) + bytes.MinRead)
	if _, err := data.ReadFrom(io.LimitReader(r, MaxSize+1)); err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}

// write makes the file appear whole or not at all, and to stay.
func (b *Blobs) write(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Join(b.dir, tempDir), "put-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // gone once it was renamed

	err = b.seal(temp, data)
	if err == nil {
		err = temp.Sync()
	}
	if err := errors.Join(err, temp.Close()); err != nil {
		return err
	}

	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return durable.SyncFolder(filepath.Dir(path))
}

func (b *Blobs) seal(to io.Writer, data []byte) error {
	w, err := b.keyring.NewWriter(to, sealContext)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Close()
}

// remedy adds the way out of a full disk.
func remedy(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: free some space; it is tried again", err)
	}
	return err
}
