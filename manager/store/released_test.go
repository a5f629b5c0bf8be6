package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

var keepAs = flag.String("keep", "", "write testdata/golden/NAME with what this build writes: once for each release")

// TestEveryReleasedFormatStillOpens: testdata/golden keeps, for each format
// that was ever released, a manager's folder with its keyring and the state
// that was in it. Each opens, shows that state, and takes commands.
func TestEveryReleasedFormatStillOpens(t *testing.T) {
	if *keepAs != "" {
		keepRelease(t, filepath.Join("testdata", "golden", *keepAs))
	}
	archives, err := filepath.Glob(filepath.Join("testdata", "golden", "*", "manager.tar.gz"))
	if err != nil || len(archives) == 0 {
		t.Fatalf("%d archives, %v", len(archives), err)
	}
	for _, archive := range archives {
		folder := filepath.Dir(archive)
		t.Run(filepath.Base(folder), func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join(folder, "state"))
			if err != nil {
				t.Fatal(err)
			}
			p := unpacked(t, archive)
			s := p.open(t)
			if got := state(t, s); !bytes.Equal(got, want) {
				t.Errorf("it holds another state: %d bytes, want %d", len(got), len(want))
			}
			propose(t, s, putSource("later"))
			shut(t, s)
			if _, ok := p.open(t).View().Source("later"); !ok {
				t.Error("what was written to it is lost")
			}
		})
	}
}

// keepRelease writes a folder with a snapshot, entries behind it and two data
// keys, and what its state is.
func keepRelease(t *testing.T, folder string) {
	root := t.TempDir()
	keyring, err := seal.Create(filepath.Join(root, "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir: filepath.Join(root, "store"), keyring: keyring}
	s := p.open(t)
	propose(t, s, Command{At: noon, Lead: &Lead{Node: "m1", Cluster: "golden"}})
	propose(t, s, putSource("main"))
	proposeAll(t, s, noon)
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	if err := keyring.Rotate(); err != nil {
		t.Fatal(err)
	}
	proposeAll(t, s, noon.Add(time.Hour))

	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "state"), state(t, s), 0o644); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	pack(t, root, filepath.Join(folder, "manager.tar.gz"))
}

// proposeAll proposes every command there is with every field set, also those
// that this state refuses, and one decision that fills the other tables.
func proposeAll(t *testing.T, s *Store, now time.Time) {
	commands := []Command{
		accept("shop", "v1"),
		accept("blog", "v1"),
		{PutNode: &swarm.Node{ID: "n1", State: swarm.NodeReady, Description: swarm.NodeDescription{Hostname: "one", OS: "linux", Arch: "amd64"}}},
	}
	for _, name := range commandNames() {
		commands = append(commands, filled(name))
	}
	for _, c := range commands {
		c.At = now
		if c.PutToken != nil {
			c.PutToken.Role = swarm.UserCI
		}
		if c.PutCluster != nil {
			row, _ := s.View().Cluster()
			c.PutCluster.Version = row.Version
		}
		if _, err := s.Propose(t.Context(), c); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrStale) {
			t.Fatal(err)
		}
	}

	c := filled("Decide")
	c.At = now
	record, _ := s.View().Stack("shop")
	d := &c.Decide.Decision
	d.Stack, d.Version, d.Gone, d.Forget = "shop", record.Version, false, nil
	d.Create[0].ID, d.Create[0].Service = swarm.TaskID("shop/web.1."+now.Format("15")), "shop/web"
	c.Decide.DropNetworks, c.Decide.DropEndpoints = nil, nil
	c.Decide.Networks[0].ID, c.Decide.Endpoints[0].Service, c.Decide.Volumes[0].ID = "shop/default", "shop/web", "shop/data"
	propose(t, s, c)
}

// pack writes the folder to an archive.
func pack(t *testing.T, root, archive string) {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	files := tar.NewWriter(compressed)
	if err := files.AddFS(os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(files.Close(), compressed.Close(), os.WriteFile(archive, out.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// unpacked is the place that an archive holds.
func unpacked(t *testing.T, archive string) place {
	t.Helper()
	in, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	clear, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for files := tar.NewReader(clear); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, filepath.FromSlash(header.Name))
		if header.FileInfo().IsDir() {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		data, err := io.ReadAll(files)
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, fs.FileMode(0o600)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	keyring, err := seal.Open(filepath.Join(root, "keyring"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return place{dir: filepath.Join(root, "store"), keyring: keyring}
}
