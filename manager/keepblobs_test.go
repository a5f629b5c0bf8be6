package manager

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/registry"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// TestAManagerGetsTheBlobsThatTheStateNamesAndNoOthers: it has joined, and
// what an earlier life of its disk held is of no use.
func TestAManagerGetsTheBlobsThatTheStateNamesAndNoOthers(t *testing.T) {
	dir := t.TempDir()
	keyring, err := seal.Create(filepath.Join(dir, "keys"))
	must(t, err)
	peer, err := blobs.Open(filepath.Join(dir, "peer"), keyring)
	must(t, err)
	secret, err := peer.PutSecret(t.Context(), []byte("git token"))
	must(t, err)
	kept, err := blobs.New(blobs.Config{Dir: filepath.Join(dir, "blobs"), Keyring: keyring, Peers: func() []blobs.Peer { return []blobs.Peer{peer} }})
	must(t, err)
	t.Cleanup(func() { kept.Close() })
	old := codec.DigestBytes([]byte("old"))
	must(t, kept.PutBlob(t.Context(), old, []byte("old")))
	past := time.Now().Add(-2 * time.Hour)
	must(t, filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, past, past)
	}))
	young := codec.DigestBytes([]byte("about to be named"))
	must(t, kept.PutBlob(t.Context(), young, []byte("about to be named")))

	state, err := store.Open(store.Config{Dir: filepath.Join(dir, "raft"), Node: "n1", Keyring: keyring})
	must(t, err)
	t.Cleanup(func() { state.Close() })
	_, err = state.Propose(t.Context(), store.Command{PutSource: &swarm.Source{ID: "main", URL: "file:///srv/main.git", Credential: secret}})
	must(t, err)
	client, err := registry.New(registry.Config{})
	must(t, err)
	m, err := New(Config{Node: "n1", Store: state, Blobs: kept, Registry: client, Syncer: gitsync.New(gitsync.Config{Dir: filepath.Join(dir, "git")})})
	must(t, err)

	must(t, m.KeepBlobs(t.Context()))
	for digest, want := range map[swarm.Digest]bool{secret: true, young: true, old: false} {
		if kept.Has(digest) != want {
			t.Errorf("%s is here: %v", digest, !want)
		}
	}
	nowhere := codec.DigestBytes([]byte("nowhere"))
	_, err = state.Propose(t.Context(), store.Command{PutSource: &swarm.Source{ID: "main", URL: "file:///srv/main.git", Credential: nowhere}})
	must(t, err)
	if err := m.KeepBlobs(t.Context()); err == nil || !strings.Contains(err.Error(), string(nowhere)) {
		t.Errorf("a blob that nobody has: %v", err)
	}
}
