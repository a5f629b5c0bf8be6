package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

func configFile(t testing.TB, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func authsFor(host, user, password string) string {
	return fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

func TestNeverSendsCredentialsToAnotherHost(t *testing.T) {
	var leaked atomic.Pointer[string]
	var visits atomic.Int64
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		visits.Add(1)
		if auth := r.Header.Get("Authorization"); auth != "" {
			leaked.Store(&auth)
		}
	}))
	defer thief.Close()
	elsewhere := strings.Replace(thief.URL, "127.0.0.1", "localhost", 1)

	s := newServer(t)
	client := func() *Client {
		return newClient(t, Config{CredentialsFile: configFile(t, authsFor(s.host(), "ana", "s3cret"))})
	}
	realm := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, elsewhere))
		w.WriteHeader(http.StatusUnauthorized)
	})
	redirect := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, elsewhere+r.URL.Path, http.StatusTemporaryRedirect)
	})
	for kind, answer := range map[string]http.HandlerFunc{"token service": realm, "redirect": redirect} {
		s.wrap.Store(&answer)
		_, err := client().Resolve(t.Context(), s.host()+"/web:1", "linux/amd64")
		if !errors.Is(err, errForeign) {
			t.Errorf("%s: %v", kind, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the error shows the password", kind)
		}
	}
	if auth := leaked.Load(); auth != nil || visits.Load() != 0 {
		t.Errorf("%d visits elsewhere, with %v", visits.Load(), auth)
	}
}

func TestFollowsABlobsRedirectWithoutCredentials(t *testing.T) {
	s := newServer(t)
	push(t, s.host()+"/web:1", image(t, "amd64", `{"StopSignal": "SIGQUIT"}`))
	inner := s.Config.Handler
	var auth atomic.Pointer[string]
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := r.Header.Get("Authorization")
		auth.Store(&header)
		inner.ServeHTTP(w, r)
	}))
	defer storage.Close()
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "ana" || password != "s3cret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, strings.Replace(storage.URL, "127.0.0.1", "localhost", 1)+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer front.Close()
	host := strings.TrimPrefix(front.URL, "http://")
	got, err := newClient(t, Config{CredentialsFile: configFile(t, authsFor(host, "ana", "s3cret"))}).Resolve(t.Context(), host+"/web:1", "linux/amd64")
	if err != nil || got.StopSignal != "SIGQUIT" {
		t.Fatalf("%+v, %v", got, err)
	}
	if seen := auth.Load(); seen == nil || *seen != "" {
		t.Errorf("the storage saw %v", seen)
	}
}

func TestKnowsOwnersByTheirDomains(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"auth.docker.io", "index.docker.io", true}, {"gitlab.example.org", "registry.example.org", true}, {"ghcr.io", "ghcr.io", true},
		{"evil.io", "docker.io", false}, {"a.co.uk", "b.co.uk", false}, {"10.0.0.1", "10.0.0.2", false}, {"localhost", "127.0.0.1", false},
		{"a.github.io", "b.github.io", false}, {"registry", "token", false},
	} {
		if sameOwner(c.a, c.b) != c.same {
			t.Errorf("%s and %s: %t", c.a, c.b, !c.same)
		}
	}
}

func TestWritesNamesInFull(t *testing.T) {
	for image, want := range map[string]string{
		"nginx": "docker.io/library/nginx:latest", "nginx:1.25": "docker.io/library/nginx:1.25", "me/app": "docker.io/me/app:latest",
		"docker.io/nginx": "docker.io/library/nginx:latest", "ghcr.io/o/app:1": "ghcr.io/o/app:1", "localhost:5000/a": "localhost:5000/a:latest",
		"nginx@sha256:" + strings.Repeat("ab", 32): "docker.io/library/nginx@sha256:" + strings.Repeat("ab", 32),
	} {
		if got, err := Normalize(image); err != nil || got != want {
			t.Errorf("%s: %q, %v", image, got, err)
		}
	}
}

func TestFindsCredentialsAsDockerWritesThem(t *testing.T) {
	file := configFile(t, `{"auths": {
		"https://index.docker.io/v1/": {"auth": "YW5hOmh1Yg=="},
		"GHCR.io": {"username": "bo", "password": "x:y"},
		"registry.example.org:5000": {"auth": "YW5hOnA6dw==", "identitytoken": "tok"}}}`)
	c := newClient(t, Config{CredentialsFile: file})
	for image, want := range map[string][2]string{
		"nginx": {"ana", "hub"}, "docker.io/me/app:1": {"ana", "hub"}, "ghcr.io/a/b": {"bo", "x:y"},
		"registry.example.org:5000/a": {"", "tok"}, "registry.example.org/a": {"", ""}, "quay.io/a/b": {"", ""},
	} {
		user, password, err := c.Auth(t.Context(), image)
		if err != nil || user != want[0] || password != want[1] {
			t.Errorf("%s: %q %q, %v", image, user, password, err)
		}
	}

	if err := os.WriteFile(file, []byte(authsFor("quay.io", "cy", "new")), 0o600); err != nil {
		t.Fatal(err)
	}
	if user, password, _ := c.Auth(t.Context(), "quay.io/a/b"); user != "cy" || password != "new" {
		t.Errorf("after the file changed: %q %q", user, password)
	}
	if err := os.WriteFile(file, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if user, _, _ := c.Auth(t.Context(), "quay.io/a/b"); user != "cy" {
		t.Errorf("a broken file made us forget: %q", user)
	}
}

func TestRefusesCredentialFilesThatItCannotHonour(t *testing.T) {
	for content, want := range map[string]string{
		`{`: "docker config.json", `{"auths": {"x": {"auth": "!!"}}}`: "base64", `{"auths": {"x": {"auth": "bm9jb2xvbg=="}}}`: "USER:PASSWORD",
	} {
		if _, err := New(Config{CredentialsFile: configFile(t, content)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", content, err)
		}
	}
	var warned strings.Builder
	logger := slog.New(slog.NewTextHandler(&warned, nil))
	newClient(t, Config{CredentialsFile: configFile(t, `{"credsStore": "pass", "credHelpers": {"gcr.io": "gcloud"}}`), Log: logger})
	if !strings.Contains(warned.String(), "credential helpers passed over") {
		t.Errorf("logged %q", warned.String())
	}
}
