package runtime

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/gitswarm/gitswarm/swarm"
)

// front is a registry before the shared one that can be slow, counts, and may
// ask for a password.
type front struct {
	*httptest.Server
	blobs    atomic.Int32
	password string
	gate     chan struct{} // if set, blobs wait for it
}

func newFront(t *testing.T) *front {
	t.Helper()
	shared.open(t)
	back, err := url.Parse(shared.registry.URL)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{}
	proxy := httputil.NewSingleHostReverseProxy(back)
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		if f.password != "" && password != f.password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			f.blobs.Add(1)
			if f.gate != nil {
				select {
				case <-f.gate:
				case <-r.Context().Done():
				}
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *front) image(image string) string {
	_, path, _ := strings.Cut(image, "/")
	return strings.TrimPrefix(f.URL, "http://") + "/" + path
}

// unique gives an image that no other test has pulled.
func unique(t *testing.T, tag string) (string, swarm.Digest) {
	t.Helper()
	return push(t, tag, v1.Config{Env: []string{"PATH=/bin"}}, entry{path: "pad", mode: 0o644, data: strings.Repeat(chance(), 1000)})
}

func TestCallersOfOneImageShareOneTransfer(t *testing.T) {
	f := newFront(t)
	image, digest := unique(t, "shared:v1")
	f.gate = make(chan struct{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := shared.runtime.Pull(t.Context(), f.image(image), digest, nil); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond) // let all of them ask
	close(f.gate)
	all.Wait()
	if n := f.blobs.Load(); n != 2 { // one config, one layer
		t.Errorf("%d blobs were fetched", n)
	}

	f.Close()
	if err := shared.runtime.Pull(t.Context(), f.image(image), digest, nil); err != nil {
		t.Errorf("a present image asks the registry: %v", err)
	}
}

func TestATransferEndsWithItsLastCaller(t *testing.T) {
	f := newFront(t)
	image, digest := unique(t, "given-up:v1")
	f.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- shared.runtime.Pull(ctx, f.image(image), digest, nil) }()
	if err := eventually(5*time.Second, func() error {
		if f.blobs.Load() == 0 {
			return errors.New("nothing is fetched")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(f.gate)
	if err := shared.runtime.Pull(t.Context(), f.image(image), digest, nil); err != nil {
		t.Errorf("the next caller gets %v", err)
	}
}

func TestPullTellsHowFarItIs(t *testing.T) {
	f := newFront(t)
	image, digest := unique(t, "progress:v1")
	f.gate = make(chan struct{})
	var seen []int
	err := shared.runtime.Pull(t.Context(), f.image(image), digest, func(percent int) {
		if seen = append(seen, percent); len(seen) == 1 {
			close(f.gate)
		}
	})
	if err != nil || len(seen) == 0 || seen[0] != 0 {
		t.Errorf("percentages are %v: %v", seen, err)
	}
}

func TestMissingImagesAndRegistriesBlameTheEnvironment(t *testing.T) {
	r := shared.open(t)
	host := strings.TrimPrefix(shared.registry.URL, "http://")
	none := swarm.Digest("sha256:" + strings.Repeat("0", 64))
	for _, image := range []string{host + "/none:v1", "127.0.0.1:1/none:v1"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := r.Pull(ctx, image, none, nil)
		cancel()
		if err == nil || CauseOf(err) != swarm.CauseEnvironment {
			t.Errorf("%s: %v", image, err)
		}
	}
	if err := r.Pull(t.Context(), "NOT a name", none, nil); CauseOf(err) != swarm.CauseContent {
		t.Errorf("got %v", err)
	}
}

func TestCredentialsGoToTheirRegistryAlone(t *testing.T) {
	f := newFront(t)
	f.password = "p:w"
	image, digest := unique(t, "private:v1")
	r := shared.runtime
	if err := r.Pull(t.Context(), f.image(image), digest, nil); err == nil {
		t.Error("pulled without credentials")
	}

	file := t.TempDir() + "/config.json"
	auth := base64.StdEncoding.EncodeToString([]byte("me:p:w"))
	host := strings.TrimPrefix(f.URL, "http://")
	if err := os.WriteFile(file, []byte(`{"auths":{"http://`+host+`/v1/":{"auth":"`+auth+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r.config.CredentialsFile = file
	defer func() { r.config.CredentialsFile = "" }()
	if err := r.Pull(t.Context(), f.image(image), digest, nil); err != nil {
		t.Error(err)
	}
	if user, _, err := r.credentials("other.example"); user != "" || err != nil {
		t.Errorf("another host gets %q, %v", user, err)
	}
}

func TestDockerHubsCredentialsHaveThreeNames(t *testing.T) {
	data := []byte(`{"auths":{"https://index.docker.io/v1/":{"identitytoken":"tok"},"ghcr.io":{"username":"u","password":"p"}}}`)
	for host, want := range map[string][2]string{"registry-1.docker.io": {"", "tok"}, "ghcr.io": {"u", "p"}, "quay.io": {}} {
		user, password, err := findCredentials(data, host)
		if err != nil || user != want[0] || password != want[1] {
			t.Errorf("%s: %q %q %v", host, user, password, err)
		}
	}
	if _, _, err := findCredentials([]byte(`{"auths":{"a":{"auth":"!"}}}`), "a"); err == nil {
		t.Error("took credentials that are not base64")
	}
}

func TestPruneKeepsImagesThatAreUsed(t *testing.T) {
	r := shared.open(t)
	image, digest := unique(t, "old:v1")
	if err := r.Pull(t.Context(), image, digest, nil); err != nil {
		t.Fatal(err)
	}
	c := started(t, tinySpec(t))
	removed, err := r.PruneImages(t.Context(), time.Hour)
	if err != nil || len(removed) != 0 {
		t.Errorf("removed %v, %v", removed, err)
	}
	removed, err = r.PruneImages(t.Context(), 0)
	if err != nil || !strings.Contains(strings.Join(removed, " "), "/old@") || strings.Contains(strings.Join(removed, " "), "/tiny@") {
		t.Errorf("removed %v, %v", removed, err)
	}
	inside(t, c.ID, "true")
	if err := r.Pull(t.Context(), image, digest, nil); err != nil {
		t.Errorf("pull again: %v", err)
	}
}
