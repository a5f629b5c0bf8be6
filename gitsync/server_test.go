package gitsync

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	gossh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"github.com/gitswarm/gitswarm/swarm"
)

const token = "s3cret-token"

// gitServer is git's own HTTP server behind basic auth.
type gitServer struct {
	*httptest.Server
	packs atomic.Int64 // fetches asked for
	asks  atomic.Int64
	wrap  atomic.Pointer[func(http.Handler) http.Handler]
}

func newGitServer(t testing.TB, r *repository) *gitServer {
	t.Helper()
	backend := &cgi.Handler{
		Path:   "/usr/bin/git",
		Args:   []string{"http-backend"},
		Env:    []string{"GIT_PROJECT_ROOT=" + filepath.Dir(r.bare), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null"},
		Stderr: io.Discard,
		Logger: log.New(io.Discard, "", 0),
	}
	s := &gitServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			s.packs.Add(1)
		} else {
			s.asks.Add(1)
		}
		var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if _, password, _ := req.BasicAuth(); password != token {
				w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			backend.ServeHTTP(w, req)
		})
		if wrap := s.wrap.Load(); wrap != nil {
			handler = (*wrap)(handler)
		}
		handler.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	return s
}

// meddle puts f before the server; nil removes it.
func (s *gitServer) meddle(f func(next http.Handler) http.Handler) {
	if f == nil {
		s.wrap.Store(nil)
		return
	}
	s.wrap.Store(&f)
}

func (s *gitServer) source() swarm.Source {
	return swarm.Source{ID: "s1", URL: s.URL + "/repo.git", Branch: "main"}
}

// sshServer is an SSH server that runs git-upload-pack for one key.
type sshServer struct {
	address string
	user    []byte // private key that it lets in
	hostKey ssh.PublicKey
}

func newKey(t testing.TB) (ssh.Signer, []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

func newSSHServer(t testing.TB, root string) *sshServer {
	t.Helper()
	host, _ := newKey(t)
	user, userPEM := newKey(t)
	server := &gossh.Server{
		Handler: func(s gossh.Session) { serveGit(s, root) },
		PublicKeyHandler: func(_ gossh.Context, key gossh.PublicKey) bool {
			return gossh.KeysEqual(key, user.PublicKey())
		},
	}
	server.AddHostKey(host)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-ended })
	return &sshServer{address: listener.Addr().String(), user: userPEM, hostKey: host.PublicKey()}
}

func serveGit(s gossh.Session, root string) {
	words := s.Command()
	if len(words) != 2 || words[0] != "git-upload-pack" {
		_ = s.Exit(1)
		return
	}
	cmd := exec.Command("git-upload-pack", filepath.Join(root, filepath.Clean("/"+words[1])))
	cmd.Env = gitEnv()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		_ = s.Exit(1)
		return
	}
	cmd.Stdout, cmd.Stderr = s, s.Stderr()
	if err := cmd.Start(); err != nil {
		_ = s.Exit(1)
		return
	}
	go func() { _, _ = io.Copy(stdin, s); stdin.Close() }()
	if err := cmd.Wait(); err != nil {
		_ = s.Exit(128)
	}
}

func (s *sshServer) knownHosts() []byte {
	host, port, _ := net.SplitHostPort(s.address)
	return []byte("[" + host + "]:" + port + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.hostKey))) + "\n")
}

func (s *sshServer) source() swarm.Source {
	return swarm.Source{ID: "s1", URL: "ssh://git@" + s.address + "/repo.git", Branch: "main"}
}
