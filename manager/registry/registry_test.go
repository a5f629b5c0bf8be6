package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/gitswarm/gitswarm/swarm"
)

// server is a registry in this process that counts what it is asked.
// image builds an image whose configuration is given as JSON.
// rawImage has a configuration that the library's own type cannot express.
func TestReadsWhatAnImageSaysOfItself(t *testing.T) {
	s := newServer(t)
	digest := push(t, s.host()+"/web:1", image(t, "amd64", `{
		"Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 10000000000, "StartPeriod": 60000000000, "StartInterval": 2000000000, "Retries": 7},
		"StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}, "443/tcp": {}}, "Volumes": {"/data": {}}}`))
	got, err := newClient(t, Config{}).Resolve(t.Context(), s.host()+"/web:1", "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	want := Image{
		Name: s.host() + "/web:1", Manifest: swarm.Digest(digest.String()), Platforms: []string{"linux/amd64"},
		Health: &swarm.Healthcheck{
			Test: []string{"curl -f localhost"}, Shell: true, Interval: 10 * time.Second, Timeout: 30 * time.Second,
			Retries: 7, StartPeriod: time.Minute, StartInterval: 2 * time.Second,
		},
		StopSignal: "SIGQUIT", ExposedPorts: []string{"443/tcp", "80/tcp"}, Volumes: []string{"/data"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestTranslatesHealthChecksAsDockerDoes(t *testing.T) {
	for config, want := range map[string]*swarm.Healthcheck{
		`{}`: nil, `{"Healthcheck": {}}`: nil, `{"Healthcheck": {"Test": ["NONE"]}}`: nil, `{"Healthcheck": {"Test": ["CMD"]}}`: nil,
		`{"Healthcheck": {"Test": ["CMD", "/ok", "-x"], "Retries": -1, "Interval": -5}}`: {
			Test: []string{"/ok", "-x"}, Interval: 30 * time.Second, Timeout: 30 * time.Second, Retries: 3, StartInterval: 5 * time.Second,
		},
	} {
		var parsed imageConfig
		if err := json.Unmarshal([]byte(`{"config":`+config+`}`), &parsed); err != nil {
			t.Fatal(err)
		}
		if got := parsed.image().Health; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v", config, got)
		}
	}
}

func TestPinsTheIndexAndReadsThePlatformsOwnConfiguration(t *testing.T) {
	s := newServer(t)
	add := func(arch string) mutate.IndexAddendum {
		return mutate.IndexAddendum{
			Add:        image(t, arch, fmt.Sprintf(`{"StopSignal": %q}`, "SIG-"+arch)),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		}
	}
	attestation := mutate.IndexAddendum{
		Add:        image(t, "unknown", `{}`),
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}},
	}
	digest := push(t, s.host()+"/multi:1", mutate.AppendManifests(empty.Index, attestation, add("amd64"), add("arm64")))

	c := newClient(t, Config{})
	for platform, signal := range map[string]string{"linux/amd64": "SIG-amd64", "linux/arm64": "SIG-arm64", "linux/s390x": "SIG-amd64"} {
		got, err := c.Resolve(t.Context(), s.host()+"/multi:1", platform)
		if err != nil {
			t.Fatal(err)
		}
		if got.Manifest != swarm.Digest(digest.String()) || strings.Join(got.Platforms, " ") != "linux/amd64 linux/arm64" {
			t.Errorf("%s: %+v", platform, got)
		}
		if got.StopSignal != signal {
			t.Errorf("%s: stop signal %s", platform, got.StopSignal)
		}
	}
}

func TestAsksNothingAboutADigestItKnowsAndLittleAboutATag(t *testing.T) {
	s := newServer(t)
	digest := push(t, s.host()+"/web:1", image(t, "amd64", `{}`))
	c := newClient(t, Config{})
	resolve := func(ref string) int64 {
		t.Helper()
		before := s.asked.Load()
		if got, err := c.Resolve(t.Context(), s.host()+ref, "linux/amd64"); err != nil || got.Manifest != swarm.Digest(digest.String()) {
			t.Fatalf("%+v, %v", got, err)
		}
		return s.asked.Load() - before
	}
	resolve("/web:1")
	if n := resolve("/web:1"); n != 0 {
		t.Errorf("%d requests for a tag just seen", n)
	}
	if n := resolve("/web@" + digest.String()); n != 0 {
		t.Errorf("%d requests for a digest that is known", n)
	}
	if n := resolve("/web:1@" + digest.String()); n != 0 {
		t.Errorf("%d requests for a tag with a digest", n)
	}
	known, _ := c.tags.Get(s.host() + "/web:1")
	known.at = known.at.Add(-tagKept)
	c.tags.Add(s.host()+"/web:1", known)
	if n := resolve("/web:1"); n != 1 {
		t.Errorf("%d requests for a tag that may have moved", n)
	}
	c.Forget(s.host() + "/web:1")
	if n := resolve("/web:1"); n != 1 {
		t.Errorf("%d requests for a tag that was to be forgotten", n)
	}
}

func TestAsksOnceForManyWhoWantTheSame(t *testing.T) {
	s := newServer(t)
	push(t, s.host()+"/web:1", image(t, "amd64", `{}`))
	c := newClient(t, Config{})
	alone := newClient(t, Config{})
	before := s.asked.Load()
	if _, err := alone.Resolve(t.Context(), s.host()+"/web:1", "linux/amd64"); err != nil {
		t.Fatal(err)
	}
	once := s.asked.Load() - before

	before = s.asked.Load()
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			got, err := c.Resolve(t.Context(), s.host()+"/web:1", "linux/amd64")
			if err != nil {
				t.Error(err)
				return
			}
			got.Platforms[0] = "spoilt" // must not reach the others
		})
	}
	wait.Wait()
	if n := s.asked.Load() - before; n != once {
		t.Errorf("%d requests for 50 callers, %d for one", n, once)
	}
	if got, err := c.Resolve(t.Context(), s.host()+"/web:1", "linux/amd64"); err != nil || got.Platforms[0] != "linux/amd64" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTellsApartWhatIsWrong(t *testing.T) {
	s := newServer(t)
	push(t, s.host()+"/web:1", image(t, "amd64", `{}`))
	c := newClient(t, Config{})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := free.Addr().String()
	free.Close()

	for ref, c2 := range map[string]struct {
		want error
		text string
	}{
		s.host() + "/web:2": {ErrNotFound, "push it"},
		s.host() + "/no:1":  {ErrNotFound, "has no 1"},
		s.host() + "/web@sha256:" + strings.Repeat("ab", 32): {ErrNotFound, "push it"},
		nobody + "/web:1":         {ErrUnreachable, "is it up?"},
		"registry.invalid/web:1":  {ErrUnreachable, "DNS"},
		"UPPER/Case":              {nil, "lower case"},
		"a b":                     {nil, "not valid"},
		"":                        {nil, "not valid"},
		"web@sha256:12":           {nil, "not valid"},
		strings.Repeat("a", 2000): {nil, "too long"},
	} {
		_, err := c.Resolve(t.Context(), ref, "linux/amd64")
		if err == nil || c2.want != nil && !errors.Is(err, c2.want) || !strings.Contains(err.Error(), c2.text) || len(ref) < 200 && !strings.Contains(err.Error(), ref) {
			t.Errorf("%.60s: %v", ref, err)
		}
	}

	for code, want := range map[int]error{401: ErrUnauthorized, 403: ErrUnauthorized, 429: ErrUnreachable, 500: ErrUnreachable, 503: ErrUnreachable} {
		answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			w.WriteHeader(code)
		})
		s.wrap.Store(&answer)
		if _, err := c.Resolve(t.Context(), s.host()+"/web:"+fmt.Sprint(code), "linux/amd64"); !errors.Is(err, want) {
			t.Errorf("%d: %v", code, err)
		}
	}
	s.wrap.Store(nil)
	if _, err := c.Resolve(t.Context(), s.host()+"/web:1", "linux/amd64"); err != nil {
		t.Errorf("after the registry came back: %v", err)
	}
}

func TestGivesUpWhenItsCallerDoes(t *testing.T) {
	s := newServer(t)
	release := make(chan struct{})
	answer := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })
	s.wrap.Store(&answer)
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := newClient(t, Config{}).Resolve(ctx, s.host()+"/web:1", "linux/amd64")
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestBoundsWhatARegistryAnswers(t *testing.T) {
	s := newServer(t)
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
		w.Header().Set("Content-Length", "1000000000")
		chunk := make([]byte, 1<<20)
		for range 1000 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	s.wrap.Store(&answer)
	_, err := newClient(t, Config{}).Resolve(t.Context(), s.host()+"/web:1", "linux/amd64")
	if !errors.Is(err, errTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestRefusesAnswersThatMakeNoSense(t *testing.T) {
	s := newServer(t)
	for kind, body := range map[types.MediaType]string{
		types.DockerManifestSchema2:  `{"config": {"digest": "sha256:zz"}}`,
		types.OCIManifestSchema1:     `{"schemaVersion": 2`,
		types.OCIImageIndex:          `{"schemaVersion": 2, "manifests": []}`,
		types.DockerManifestSchema1:  `{}`,
		types.MediaType("text/html"): `<html>`,
	} {
		answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			id, _ := hashOf([]byte(body))
			w.Header().Set("Content-Type", string(kind))
			w.Header().Set("Docker-Content-Digest", id.String())
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			if r.Method == http.MethodGet {
				_, _ = io.WriteString(w, body)
			}
		})
		s.wrap.Store(&answer)
		if got, err := newClient(t, Config{}).Resolve(t.Context(), s.host()+"/web:1", "linux/amd64"); err == nil {
			t.Errorf("%s: %+v", kind, got)
		}
	}
}

func TestVerifiesTheConfigurationAgainstItsDigest(t *testing.T) {
	s := newServer(t)
	push(t, s.host()+"/web:1", image(t, "amd64", `{"StopSignal": "SIGQUIT"}`))
	inner := s.Config.Handler
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := httptest.NewRecorder()
		inner.ServeHTTP(recorder, r)
		body := recorder.Body.String()
		if strings.Contains(r.URL.Path, "/blobs/") {
			body = strings.Replace(body, "SIGQUIT", "SIGKILL", 1)
		}
		for key, values := range recorder.Header() {
			w.Header()[key] = values
		}
		w.WriteHeader(recorder.Code)
		_, _ = io.WriteString(w, body)
	}))
	defer proxy.Close()
	got, err := newClient(t, Config{}).Resolve(t.Context(), strings.TrimPrefix(proxy.URL, "http://")+"/web:1", "linux/amd64")
	if err == nil {
		t.Errorf("got %+v", got)
	}
}

// TestWorksWithARealRegistry runs Debian's docker-registry with a password.
