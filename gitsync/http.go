package gitsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"

	"github.com/gitswarm/gitswarm/swarm"
)

const (
	refsPath    = "/info/refs"
	packPath    = "/git-upload-pack"
	maxRedirect = 3
)

// newHTTPClient returns a client that stays on the host it was sent to.
func newHTTPClient() *http.Client {
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  stallTimeout,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    1,
		MaxResponseHeaderBytes: 256 << 10,
		ForceAttemptHTTP2:      true,
	}
	return &http.Client{Transport: transport, CheckRedirect: checkRedirect}
}

// errRedirect marks a redirect that is not followed: it might carry the
// credential, or the question, to somebody else.
var errRedirect = errors.New("give the new address as the source's URL if you trust it")

func checkRedirect(next *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case next.URL.Hostname() != first.Hostname():
		return fmt.Errorf("the server redirects to another host, %s: %w", next.URL.Host, errRedirect)
	case next.URL.Scheme != first.Scheme && next.URL.Scheme != "https":
		return fmt.Errorf("the server redirects from %s to %s: %w", first.Scheme, next.URL.Scheme, errRedirect)
	case next.URL.Scheme == first.Scheme && next.URL.Port() != first.Port():
		return fmt.Errorf("the server redirects to another port, %s: %w", next.URL.Host, errRedirect)
	case via[0].Method != http.MethodGet || len(via) > maxRedirect:
		return fmt.Errorf("the server redirects too often, or in the middle: %w", errRedirect)
	}
	return nil
}

// httpSession is a conversation over smart HTTP.
type httpSession struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	client *http.Client
	base   *url.URL
	user   string
	secret string
	live   []*liveReader
}

func openHTTP(ctx context.Context, client *http.Client, where location, credential swarm.Credential) session {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &httpSession{ctx: ctx, cancel: cancel, client: client, base: where.url, user: credential.Username, secret: credential.Password}
	if s.user == "" {
		s.user = where.user
	}
	if s.user == "" {
		s.user = "git" // forges take any name with a token
	}
	return s
}

func (s *httpSession) refs() (*packp.AdvRefs, error) {
	response, err := s.do(http.MethodGet, refsPath, "service=git-upload-pack", nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()

	// Everything else goes where this went, which is the same host.
	final := *response.Request.URL
	path, ok := strings.CutSuffix(final.Path, refsPath)
	if !ok || final.RawQuery != "service=git-upload-pack" {
		return nil, fmt.Errorf("the server redirects to a page, not a repository: %w", errRedirect)
	}
	if kind := response.Header.Get("Content-Type"); kind != "application/x-git-upload-pack-advertisement" {
		return nil, fmt.Errorf("the address answers with %q, which is not git: check the URL", plain(kind, 60))
	}
	s.base = &url.URL{Scheme: final.Scheme, Host: final.Host, Path: path}

	adv := packp.NewAdvRefs()
	if err := adv.Decode(io.LimitReader(s.body(response), maxAdvertised)); err != nil {
		return nil, s.cause(err)
	}
	return adv, nil
}

func (s *httpSession) ask(request []byte) (io.ReadCloser, error) {
	response, err := s.do(http.MethodPost, packPath, "", request)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{s.body(response), response.Body}, nil
}

func (s *httpSession) body(response *http.Response) io.Reader {
	live := keepLive(response.Body, s.cancel)
	s.live = append(s.live, live)
	return live
}

func (s *httpSession) do(method, path, query string, body []byte) (*http.Response, error) {
	target := *s.base
	target.Path += path
	target.RawQuery = query
	request, err := http.NewRequestWithContext(s.ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "git/2 (gitswarm)") // forges tell git from browsers by it
	if body != nil {
		request.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		request.Header.Set("Accept", "application/x-git-upload-pack-result")
	}
	if s.secret != "" {
		request.SetBasicAuth(s.user, s.secret)
	}

	response, err := s.client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the rest repeats the URL
		}
		return nil, s.cause(err)
	}
	if err := s.checkStatus(response); err != nil {
		response.Body.Close()
		return nil, err
	}
	return response, nil
}

func (s *httpSession) checkStatus(response *http.Response) error {
	switch code := response.StatusCode; {
	case code == http.StatusOK:
		return nil
	case code == http.StatusUnauthorized && s.secret == "":
		return fmt.Errorf("the server wants credentials: give a token with --git-token-file")
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fmt.Errorf("the server refuses the credentials (%d): renew the token, with leave to read the repository", code)
	case code == http.StatusNotFound && s.secret == "":
		return fmt.Errorf("there is no such repository, or it is private (404): check the URL, or give a token with --git-token-file")
	case code == http.StatusNotFound:
		return fmt.Errorf("there is no such repository, or the token may not see it (404): check the URL and the token")
	default:
		return fmt.Errorf("the server answers %s: it is asked again later", plain(response.Status, 80))
	}
}

// cause prefers the reason why the conversation was ended to what broke by it.
func (s *httpSession) cause(err error) error {
	if cause := context.Cause(s.ctx); errors.Is(cause, errStalled) {
		return cause
	}
	return err
}

func (s *httpSession) close() {
	for _, live := range s.live {
		live.stop()
	}
	s.cancel(nil)
}
