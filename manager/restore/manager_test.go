package restore_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/backup"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/restore"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// manager is what one manager keeps, with things in it that nobody may see.
type manager struct {
	t       testing.TB
	dir     string
	keyring *seal.Keyring
	store   *store.Store
	blobs   *blobs.Blobs
	cluster swarm.Cluster
	nodeKey []byte // PEM
	blob    swarm.Digest
	secret  swarm.Digest
}

const secretText = "correct horse battery staple"

// begin makes a manager's folder and fills it.
func begin(t testing.TB, unlock []byte) *manager {
	t.Helper()
	dir := t.TempDir()
	keyring, err := seal.Create(filepath.Join(dir, restore.KeyringFile))
	if err != nil {
		t.Fatal(err)
	}
	m := open(t, dir, keyring, "m1")
	if _, err := keyring.Follow(unlock); err != nil {
		t.Fatal(err)
	}
	m.found(unlock)
	m.propose(store.Command{At: noon, Lead: &store.Lead{Node: "m1", Cluster: "c1"}})
	m.propose(store.Command{At: noon, PutCluster: &m.cluster})
	m.blob = m.put("rendered stack")
	if m.secret, err = m.blobs.PutSecret(t.Context(), []byte(secretText)); err != nil {
		t.Fatal(err)
	}
	m.propose(store.Command{At: noon, PutSource: &swarm.Source{ID: "main", URL: "file:///srv/main.git", Credential: m.secret}})
	return m
}

// found gives the manager an authority, tokens and a certificate.
func (m *manager) found(unlock []byte) {
	m.t.Helper()
	authority, err := identity.NewAuthority("c1", noon)
	must(m.t, err)
	worker, err := identity.NewToken(authority)
	must(m.t, err)
	manager, err := identity.NewToken(authority)
	must(m.t, err)
	m.cluster = swarm.Cluster{
		ID: "c1", UnlockKey: unlock, SecretName: m.keyring.ClusterKey(),
		Tokens: swarm.JoinTokens{Worker: worker, Manager: manager}, Authority: authority,
	}

	key, request, err := identity.NewRequest()
	must(m.t, err)
	chain, err := identity.Issue(authority, request, identity.Peer{Node: "m1", Role: swarm.RoleManager, Cluster: "c1"}, time.Hour, noon)
	must(m.t, err)
	node, err := identity.Create(filepath.Join(m.dir, "identity"), key, chain, authority.Trust)
	must(m.t, err)
	must(m.t, node.Seal(m.keyring))
	m.nodeKey = key
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string, keyring *seal.Keyring, node swarm.NodeID) *manager {
	t.Helper()
	m := &manager{t: t, dir: dir, keyring: keyring}
	var err error
	if m.store, err = store.Open(store.Config{Dir: filepath.Join(dir, restore.StoreDir), Node: node, Keyring: keyring}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.store.Close() })
	if m.blobs, err = blobs.Open(filepath.Join(dir, restore.BlobsDir), keyring); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *manager) propose(c store.Command) {
	m.t.Helper()
	if _, err := m.store.Propose(context.Background(), c); err != nil {
		m.t.Fatal(err)
	}
}

func (m *manager) put(data string) swarm.Digest {
	m.t.Helper()
	digest, err := m.blobs.Put(context.Background(), []byte(data))
	if err != nil {
		m.t.Fatal(err)
	}
	return digest
}

func (m *manager) content() backup.Content {
	return backup.Content{Cluster: m.cluster, State: m.store, Blobs: m.blobs, Naming: m.keyring.ClusterKey(), Build: "1.2.3"}
}

func key(t testing.TB, text string) backup.Key {
	t.Helper()
	k, err := backup.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// chanceKey is a key that costs nothing to use, unlike a passphrase.
func chanceKey(t testing.TB) backup.Key {
	return key(t, seal.FormatUnlockKey(seal.NewUnlockKey()))
}

func written(t testing.TB, k backup.Key, content backup.Content) []byte {
	t.Helper()
	var file bytes.Buffer
	if _, err := backup.Write(t.Context(), &file, k, content, noon); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func place(dir string) restore.Place { return restore.Place{Dir: dir, Node: "new", Now: noon} }
