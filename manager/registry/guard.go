package registry

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// maxAnswer bounds what one answer may hold: manifests are limited to 4 MiB by
// the distribution specification, configurations are seldom over 100 KiB.
const maxAnswer = 8 << 20

var (
	errForeign  = errors.New("the registry sends us to another host")
	errTooLarge = fmt.Errorf("the registry's answer is larger than %d MiB", maxAnswer>>20)
)

// guard stands between the registry library and the network, once per registry.
type guard struct {
	registry string // "host[:port]"
	inner    http.RoundTripper
}

// RoundTrip lets a request pass that goes to the registry, to a token service
// of the same owner, or without credentials to where a blob is kept.
func (g *guard) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := g.check(request); err != nil {
		return nil, err
	}
	response, err := g.inner.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = &bounded{ReadCloser: response.Body, left: maxAnswer}
	return response, nil
}

func (g *guard) check(request *http.Request) error {
	target := request.URL
	if target.Host == g.registry {
		return nil
	}
	if request.Header.Get("Authorization") != "" || request.Method != http.MethodGet {
		if !sameOwner(target.Hostname(), hostOf(g.registry)) {
			return fmt.Errorf("%w: credentials for %s are asked for by %s, which gets none", errForeign, g.registry, target.Host)
		}
		return nil
	}
	if request.Response == nil {
		return nil // an anonymous token, which says nothing of us
	}
	if first := origin(request); !strings.Contains(first.URL.Path, "/blobs/") {
		return fmt.Errorf("%w: %s redirects to %s", errForeign, g.registry, target.Host)
	}
	return nil
}

// origin is the request that a chain of redirects began with.
func origin(request *http.Request) *http.Request {
	for request.Response != nil && request.Response.Request != nil {
		request = request.Response.Request
	}
	return request
}

// sameOwner reports whether one host may see the other's credentials: both
// are one, or both are below one registered domain, as registry-1.docker.io
// and auth.docker.io are.
func sameOwner(a, b string) bool {
	if a == b {
		return true
	}
	if net.ParseIP(a) != nil || net.ParseIP(b) != nil {
		return false
	}
	one, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(a))
	if err != nil {
		return false
	}
	other, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(b))
	return err == nil && one == other
}

func hostOf(registry string) string {
	if host, _, err := net.SplitHostPort(registry); err == nil {
		return host
	}
	return strings.Trim(registry, "[]")
}

// bounded fails once more than left bytes were read.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, errTooLarge
	}
	return n, err
}
