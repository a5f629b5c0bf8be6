package gitsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"

	"github.com/gitswarm/gitswarm/swarm"
)

// sshAccess is who we are and whom we know, read once.
type sshAccess struct {
	auth  ssh.AuthMethod
	hosts *knownhosts.HostKeyDB
}

// newSSHAccess reads a credential. There is no way not to check a host's key.
func newSSHAccess(where location, credential swarm.Credential) (*sshAccess, error) {
	access := &sshAccess{}
	switch {
	case len(credential.SSHKey) > 0:
		signer, err := parseKey(credential)
		if err != nil {
			return nil, err
		}
		access.auth = ssh.PublicKeys(signer)
	case credential.Password != "":
		access.auth = ssh.Password(credential.Password)
	default:
		return nil, fmt.Errorf("repository on %s needs an SSH key: give it with --git-ssh-key", where.host)
	}

	if len(bytes.TrimSpace(credential.KnownHosts)) == 0 {
		return nil, fmt.Errorf("host key of %s is not known: give it with --known-hosts (%s)", where.host, keyscan(where.host))
	}
	hosts, err := parseKnownHosts(credential.KnownHosts)
	if err != nil {
		return nil, err
	}
	access.hosts = hosts
	return access, nil
}

func parseKey(credential swarm.Credential) (ssh.Signer, error) {
	signer, err := ssh.ParsePrivateKey(credential.SSHKey)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		if credential.Password == "" {
			return nil, errors.New("SSH key has a passphrase: give a key without one, made for this cluster alone")
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(credential.SSHKey, []byte(credential.Password))
	}
	if err != nil {
		return nil, errors.New("SSH key cannot be read: it must be a private key in PEM or OpenSSH form") // the cause might quote it
	}
	return signer, nil
}

// parseKnownHosts goes through a file because the library takes nothing else.
func parseKnownHosts(text []byte) (*knownhosts.HostKeyDB, error) {
	f, err := os.CreateTemp("", "gitswarm-known-hosts-*")
	if err != nil {
		return nil, fmt.Errorf("read known_hosts: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read known_hosts: %w", err)
	}
	hosts, err := knownhosts.NewDB(f.Name())
	if err != nil {
		return nil, fmt.Errorf("read known_hosts: %s", strings.ReplaceAll(err.Error(), f.Name(), "line "))
	}
	return hosts, nil
}

func keyscan(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if port == "22" {
		return "`ssh-keyscan " + host + "`, compared with what its operator publishes"
	}
	return "`ssh-keyscan -p " + port + " " + host + "`, compared with what its operator publishes"
}

// checkHost explains what ssh itself says in a few words.
func (a *sshAccess) checkHost(address string) ssh.HostKeyCallback {
	known := a.hosts.HostKeyCallback()
	return func(hostname string, remote net.Addr, key ssh.PublicKey) error {
		err := known(hostname, remote, key)
		switch {
		case knownhosts.IsHostKeyChanged(err):
			return fmt.Errorf("host %s shows another key (%s) than known_hosts has: either it was changed, then give the new one with --known-hosts, or somebody stands between", address, ssh.FingerprintSHA256(key))
		case knownhosts.IsHostUnknown(err):
			return fmt.Errorf("host %s (%s) is not in known_hosts: add it with --known-hosts (%s)", address, ssh.FingerprintSHA256(key), keyscan(address))
		}
		return err
	}
}

// sshSession is a conversation with a git-upload-pack that sshd runs.
type sshSession struct {
	cancel context.CancelCauseFunc
	ctx    context.Context
	client *ssh.Client
	remote *ssh.Session
	stdin  io.WriteCloser
	stdout *liveReader
	stderr *tail
	asked  bool
}

func openSSH(ctx context.Context, where location, access *sshAccess) (session, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", where.host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(ctx, func() { conn.Close() }) // ends every read and write

	s := &sshSession{ctx: ctx, cancel: cancel, stderr: &tail{}}
	if err := s.start(conn, where, access); err != nil {
		cancel(nil)
		return nil, err
	}
	return s, nil
}

func (s *sshSession) start(conn net.Conn, where location, access *sshAccess) error {
	config := &ssh.ClientConfig{
		User:              where.user,
		Auth:              []ssh.AuthMethod{access.auth},
		HostKeyCallback:   access.checkHost(where.host),
		HostKeyAlgorithms: access.hosts.HostKeyAlgorithms(where.host),
		ClientVersion:     "SSH-2.0-gitswarm",
	}
	if err := conn.SetDeadline(time.Now().Add(2 * dialTimeout)); err != nil {
		return fmt.Errorf("open ssh: %w", err)
	}
	c, channels, requests, err := ssh.NewClientConn(conn, where.host, config)
	if err != nil {
		if strings.Contains(err.Error(), "unable to authenticate") {
			return fmt.Errorf("host %s refuses the key for user %s: add its public half to the repository's deploy keys", where.host, where.user)
		}
		return fmt.Errorf("open ssh: %w", err)
	}
	s.client = ssh.NewClient(c, channels, requests)
	if err := errors.Join(conn.SetDeadline(time.Time{}), s.run(where.path)); err != nil {
		return fmt.Errorf("open ssh: %w", err)
	}
	return nil
}

// run starts git-upload-pack. parseURL let no quote and no leading '-' through.
func (s *sshSession) run(path string) (err error) {
	if s.remote, err = s.client.NewSession(); err != nil {
		return err
	}
	s.remote.Stderr = s.stderr
	if s.stdin, err = s.remote.StdinPipe(); err != nil {
		return err
	}
	stdout, err := s.remote.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.remote.Start("git-upload-pack '" + path + "'"); err != nil {
		return err
	}
	s.stdout = keepLive(stdout, s.cancel)
	return nil
}

func (s *sshSession) refs() (*packp.AdvRefs, error) {
	adv := packp.NewAdvRefs()
	// The decoder reads one line at a time, so the rest of the stream stays.
	if err := adv.Decode(&io.LimitedReader{R: s.stdout, N: maxAdvertised}); err != nil {
		return nil, s.cause(err)
	}
	return adv, nil
}

func (s *sshSession) ask(request []byte) (io.ReadCloser, error) {
	s.asked = true
	if _, err := s.stdin.Write(request); err != nil {
		return nil, s.cause(err)
	}
	return io.NopCloser(s.stdout), nil
}

// cause prefers what the server's git said to what we did not understand.
func (s *sshSession) cause(err error) error {
	if cause := context.Cause(s.ctx); errors.Is(cause, errStalled) {
		return cause
	}
	text := s.lastWords()
	switch {
	case text == "":
		return err
	case strings.Contains(text, "not appear to be a git repository"), strings.Contains(strings.ToLower(text), "not found"):
		return fmt.Errorf("there is no such repository, or the key may not see it: check the URL and the deploy key (%s)", text)
	}
	return fmt.Errorf("the server says: %s", text)
}

// lastWords waits for the server's git to end, which it does at once after an
// error, and returns what it said.
func (s *sshSession) lastWords() string {
	ended := make(chan struct{})
	go func() { // ends with the connection, at the latest
		_ = s.remote.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(time.Second):
	}
	return s.stderr.String()
}

func (s *sshSession) close() {
	if !s.asked {
		_, _ = s.stdin.Write([]byte("0000")) // wants nothing
	}
	s.stdout.stop()
	s.client.Close()
	s.cancel(nil)
}

// tail keeps the first bytes that a server writes for people.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 2048 - len(t.text); room > 0 {
		t.text = append(t.text, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return plain(string(t.text), 300)
}
