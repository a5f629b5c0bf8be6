package gitsync

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestNeverFollowsARedirectToAnotherHost(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	server := newGitServer(t, r)
	var reached atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer other.Close()

	redirect := func(to string) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				http.Redirect(w, req, to+req.URL.RequestURI(), http.StatusMovedPermanently)
			})
		}
	}
	f := follow(t, New(Config{Dir: t.TempDir()}), server.source(), tokenCredential)
	f.commit(first)
	for _, to := range []string{other.URL, strings.Replace(other.URL, "127.0.0.1", "localhost", 1), "file:///etc", "ftp://127.0.0.1"} {
		server.meddle(redirect(to))
		f.ask()
		f.problem("redirects", "if you trust it")
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the other host was reached %d times", n)
	}

	// A new place on the same host is fine, and the fetch goes there too.
	server.meddle(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.HasPrefix(req.URL.Path, "/old/") {
				http.Redirect(w, req, "/"+strings.TrimPrefix(req.URL.RequestURI(), "/old/"), http.StatusFound)
				return
			}
			next.ServeHTTP(w, req)
		})
	})
	source := server.source()
	source.URL = server.URL + "/old/repo.git"
	g := follow(t, New(Config{Dir: t.TempDir()}), source, tokenCredential)
	g.commit(first)
}

func TestRefusesAPackThatIsTooLargeAndDoesNotAskAgain(t *testing.T) {
	r := newRepository(t)
	noise := make([]byte, 3<<20)
	_, _ = rand.Read(noise)
	r.push("one", map[string]string{"big": string(noise)})
	server := newGitServer(t, r)
	f := follow(t, New(Config{Dir: t.TempDir(), MaxPack: 1 << 20, PollEvery: 50 * time.Millisecond}), server.source(), tokenCredential)
	f.problem("more than 1 MiB", "take large files out")
	asked := server.asks.Load()
	for deadline := time.Now().Add(10 * time.Second); server.asks.Load() < asked+2; {
		if time.Now().After(deadline) {
			t.Fatal("the branch is not asked for any more")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := server.packs.Load(); n != 1 {
		t.Errorf("%d fetches of the same", n)
	}
	f.commit(func() string {
		r.git("rm", "-q", "big")
		return r.push("two", map[string]string{"a": "1"})
	}())
}

func TestRefusesPacksThatAreNotWhole(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": strings.Repeat("text\n", 1000)})
	server := newGitServer(t, r)
	spoil := func(change func([]byte) []byte) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodGet {
					next.ServeHTTP(w, req)
					return
				}
				answer := httptest.NewRecorder()
				next.ServeHTTP(answer, req)
				_, _ = io.Copy(w, bytes.NewReader(change(answer.Body.Bytes())))
			})
		}
	}
	server.meddle(spoil(func(b []byte) []byte { return b[:len(b)/2] }))
	f := follow(t, New(Config{Dir: t.TempDir()}), server.source(), tokenCredential)
	f.problem(server.URL)
	server.meddle(spoil(func(b []byte) []byte { b[len(b)*2/3] ^= 0xff; return b }))
	f.ask()
	f.problem("no valid pack")
	server.meddle(spoil(func([]byte) []byte { return nil }))
	f.ask()
	f.problem(server.URL)
	server.meddle(nil)
	f.ask()
	f.commit(first)
}

func TestFetchesOverSSHFromAKnownHost(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	server := newSSHServer(t, filepath.Dir(r.bare))
	credential := swarm.Credential{SSHKey: server.user, KnownHosts: server.knownHosts()}
	f := follow(t, New(Config{Dir: t.TempDir()}), server.source(), credential)
	f.commit(first)
	second := r.push("two", map[string]string{"a": "2"})
	f.ask()
	if got := read(t, f.commit(second).Tree, "a"); got != "2" {
		t.Errorf("read %q", got)
	}
	f.ask()
	f.recovery()

	away := r.bare + ".away"
	if err := os.Rename(r.bare, away); err != nil {
		t.Fatal(err)
	}
	f.ask()
	f.problem("no such repository", "deploy key")
	if err := os.Rename(away, r.bare); err != nil {
		t.Fatal(err)
	}
	f.ask()
	f.recovery()
}

func TestRefusesSSHHostsThatAreNotKnown(t *testing.T) {
	r := newRepository(t)
	r.push("one", map[string]string{"a": "1"})
	server := newSSHServer(t, filepath.Dir(r.bare))
	_, strangerKey := newKey(t)
	other, _ := newKey(t)
	changed := *server
	changed.hostKey = other.PublicKey()

	for name, c := range map[string]struct {
		credential swarm.Credential
		want       []string
	}{
		"no known_hosts": {swarm.Credential{SSHKey: server.user}, []string{"not known", "ssh-keyscan -p"}},
		"unknown host":   {swarm.Credential{SSHKey: server.user, KnownHosts: []byte("example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n")}, []string{"not in known_hosts", "SHA256:", "--known-hosts"}},
		"changed key":    {swarm.Credential{SSHKey: server.user, KnownHosts: changed.knownHosts()}, []string{"another key", "SHA256:"}},
		"other user key": {swarm.Credential{SSHKey: strangerKey, KnownHosts: server.knownHosts()}, []string{"refuses the key", "deploy keys"}},
		"no key":         {swarm.Credential{KnownHosts: server.knownHosts()}, []string{"--git-ssh-key"}},
		"broken key":     {swarm.Credential{SSHKey: []byte("xx"), KnownHosts: server.knownHosts()}, []string{"cannot be read"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := follow(t, New(Config{Dir: t.TempDir()}), server.source(), c.credential)
			f.problem(c.want...)
		})
	}
}

func TestSweepsTheObjectsOfSourcesThatAreGone(t *testing.T) {
	r := newRepository(t)
	first := r.push("one", map[string]string{"a": "1"})
	server := newGitServer(t, r)
	dir := t.TempDir()
	s := New(Config{Dir: dir})
	f := follow(t, s, server.source(), tokenCredential)
	f.commit(first)
	f.stop()

	if err := s.Sweep([]swarm.Source{server.source()}); err != nil || diskUse(t, dir) == 0 {
		t.Fatalf("swept what is kept: %v", err)
	}
	if err := s.Sweep(nil); err != nil || diskUse(t, dir) != 0 {
		t.Fatalf("%d bytes left, %v", diskUse(t, dir), err)
	}
}
