package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	inprocess "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/bcrypt"

	"github.com/gitswarm/gitswarm/swarm"
)

type server struct {
	*httptest.Server
	asked atomic.Int64
	wrap  atomic.Pointer[http.HandlerFunc] // answers instead
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{}
	inner := inprocess.New(inprocess.Logger(log.New(io.Discard, "", 0)))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if wrap := s.wrap.Load(); wrap != nil {
			(*wrap)(w, r)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) host() string { return strings.TrimPrefix(s.URL, "http://") }

func newClient(t testing.TB, config Config) *Client {
	t.Helper()
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func image(t testing.TB, arch, config string) v1.Image {
	t.Helper()
	raw := fmt.Sprintf(`{"architecture":%q,"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":%s}`, arch, config)
	return rawImage{Image: empty.Image, config: []byte(raw)}
}

type rawImage struct {
	v1.Image
	config []byte
}

func (i rawImage) RawConfigFile() ([]byte, error)  { return i.config, nil }
func (i rawImage) ConfigName() (v1.Hash, error)    { return hashOf(i.config) }
func (i rawImage) Layers() ([]v1.Layer, error)     { return nil, nil }
func (i rawImage) RawManifest() ([]byte, error)    { return json.Marshal(i.manifest()) }
func (i rawImage) Manifest() (*v1.Manifest, error) { return i.manifest(), nil }
func (i rawImage) Size() (int64, error)            { b, err := i.RawManifest(); return int64(len(b)), err }
func (i rawImage) Digest() (v1.Hash, error) {
	b, err := i.RawManifest()
	if err != nil {
		return v1.Hash{}, err
	}
	return hashOf(b)
}

func (i rawImage) ConfigFile() (*v1.ConfigFile, error) {
	return v1.ParseConfigFile(strings.NewReader(string(i.config)))
}

func (i rawImage) manifest() *v1.Manifest {
	id, _ := hashOf(i.config)
	return &v1.Manifest{
		SchemaVersion: 2, MediaType: types.DockerManifestSchema2, Layers: []v1.Descriptor{},
		Config: v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(i.config)), Digest: id},
	}
}

func hashOf(data []byte) (v1.Hash, error) {
	h, _, err := v1.SHA256(strings.NewReader(string(data)))
	return h, err
}

func push(t testing.TB, ref string, what any, options ...remote.Option) v1.Hash {
	t.Helper()
	to, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	var digest v1.Hash
	switch what := what.(type) {
	case v1.Image:
		digest, _ = what.Digest()
		err = remote.Write(to, what, options...)
	case v1.ImageIndex:
		digest, _ = what.Digest()
		err = remote.WriteIndex(to, what, options...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func TestWorksWithARealRegistry(t *testing.T) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed: apt-get install docker-registry")
	}
	dir := t.TempDir()
	hashed, err := bcrypt.GenerateFromPassword([]byte("s3cret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := listener.Addr().String()
	listener.Close()
	files := map[string]string{
		"htpasswd": "ana:" + string(hashed) + "\n",
		"config.yml": fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\nauth: {htpasswd: {realm: test, path: %s}}\n",
			filepath.Join(dir, "data"), host, filepath.Join(dir, "htpasswd")),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "serve", filepath.Join(dir, "config.yml"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	waitFor(t, host)

	login := remote.WithAuth(&authn.Basic{Username: "ana", Password: "s3cret"})
	digest := push(t, host+"/team/web:1", image(t, "amd64", `{"StopSignal": "SIGQUIT"}`), login)
	push(t, host+"/team/multi:1", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: image(t, "arm64", `{}`), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}},
	}), login)

	c := newClient(t, Config{CredentialsFile: configFile(t, authsFor("http://"+host, "ana", "s3cret"))})
	got, err := c.Resolve(t.Context(), host+"/team/web:1", "linux/amd64")
	if err != nil || got.Manifest != swarm.Digest(digest.String()) || got.StopSignal != "SIGQUIT" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = c.Resolve(t.Context(), host+"/team/multi:1", "linux/amd64"); err != nil || strings.Join(got.Platforms, "") != "linux/arm64" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err = c.Resolve(t.Context(), host+"/team/web:2", "linux/amd64"); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing tag: %v", err)
	}
	if _, err = newClient(t, Config{}).Resolve(t.Context(), host+"/team/web:1", "linux/amd64"); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("without credentials: %v", err)
	}
	wrong := newClient(t, Config{CredentialsFile: configFile(t, authsFor(host, "ana", "wrong"))})
	if _, err = wrong.Resolve(t.Context(), host+"/team/web:1", "linux/amd64"); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("with a wrong password: %v", err)
	}
}

func waitFor(t *testing.T, host string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := net.Dial("tcp", host)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("registry did not start: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
