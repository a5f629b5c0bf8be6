package restore_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/restore"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// planted are all things that a manager knows and its disk may not show, in
// every form that a program might have written.
func planted(m *manager, unlock []byte) map[string][]byte {
	clear := make(map[string][]byte)
	forms(clear, "a secret", []byte(secretText))
	forms(clear, "the key that names secrets", m.keyring.ClusterKey())
	for name, token := range map[string]string{"the workers' token": m.cluster.Tokens.Worker, "the managers' token": m.cluster.Tokens.Manager} {
		forms(clear, name, []byte(token))
		clear["the secret of "+name] = []byte(token[strings.LastIndex(token, "-")+1:])
	}
	for name, key := range map[string][]byte{"the authority's key": m.cluster.Authority.Key, "the node's key": m.nodeKey} {
		block, _ := pem.Decode(key)
		clear[name] = block.Bytes
		clear["a line of "+name] = []byte(strings.Split(string(key), "\n")[2])
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		must(m.t, err)
		scalar, err := parsed.(*ecdsa.PrivateKey).Bytes()
		must(m.t, err)
		forms(clear, "the secret of "+name, scalar)
	}
	if unlock != nil {
		forms(clear, "the unlock key", unlock)
		text := seal.FormatUnlockKey(unlock)
		clear["the unlock key as people have it"] = []byte(text[8:])
		clear["a group of the unlock key"] = []byte(text[8:16])
	}
	return clear
}

func forms(clear map[string][]byte, name string, key []byte) {
	clear[name] = key
	clear[name+" in hex"] = []byte(hex.EncodeToString(key))
	clear[name+" in base64"] = []byte(strings.TrimRight(base64.StdEncoding.EncodeToString(key), "="))[:30]
	clear[name+" in base64url"] = []byte(base64.RawURLEncoding.EncodeToString(key))[:30]
	clear[name+" in base32"] = []byte(base32.StdEncoding.EncodeToString(key))[:30]
	clear[name+" in base36"] = []byte(new(big.Int).SetBytes(key).Text(36))
}

// TestTheDiskOfAStoppedManagerShowsNothing: with autolock on, not even its
// keyring does.
func TestTheDiskOfAStoppedManagerShowsNothing(t *testing.T) {
	unlock := seal.NewUnlockKey()
	m := begin(t, unlock)
	for range 3 { // log, snapshots and blobs of several generations
		if err := m.store.Snapshot(); err != nil {
			t.Fatal(err)
		}
		m.propose(store.Command{At: noon, PutSource: &swarm.Source{ID: "main", URL: "https://ana:" + m.cluster.Tokens.Worker + "@git.example/x.git", Credential: m.secret}})
	}
	if err := m.store.Close(); err != nil {
		t.Fatal(err)
	}

	clear := planted(m, unlock)
	for i, key := range dataKeys(t, m.dir, unlock) {
		forms(clear, "a data key "+string(rune('0'+i)), key)
	}
	files, size := 0, 0
	err := filepath.WalkDir(m.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		for name, bytesOf := range clear {
			if bytes.Contains(data, bytesOf) {
				t.Errorf("%s shows %s", path, name)
			}
			if strings.Contains(path, string(bytesOf)) {
				t.Errorf("the name %s shows %s", path, name)
			}
		}
		files, size = files+1, size+len(data)
		return err
	})
	if err != nil || files < 8 || size < 16<<20 {
		t.Errorf("only %d files of %d bytes were searched: %v", files, size, err)
	}
}

// dataKeys reads the keys of a locked keyring by way of a copy without a lock.
func dataKeys(t *testing.T, dir string, unlock []byte) [][]byte {
	t.Helper()
	locked, err := os.ReadFile(filepath.Join(dir, restore.KeyringFile))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, locked, 0o600); err != nil {
		t.Fatal(err)
	}
	copied, err := seal.Open(path, unlock)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := copied.Follow(nil); err != nil {
		t.Fatal(err)
	}
	clear, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var keys [][]byte // 2 bytes and a checksum of 32, the cluster's key, data keys
	for at := 2 + 32 + 32; at < len(clear); at += 32 {
		keys = append(keys, clear[at:at+32])
	}
	if len(keys) != 2 || !bytes.Equal(clear[34:66], copied.ClusterKey()) {
		t.Fatalf("the copy holds %d data keys", len(keys))
	}
	return keys
}
