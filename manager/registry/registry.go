// Package registry asks container registries what an image's name stands for:
// its digest, the platforms it exists for, and what its configuration says of
// health checks and stop signals. Answers are verified against their digests.
//
// It refuses to pull layers, to run credential helpers, to send a credential
// to another host than the registry's own, and to read an answer without a
// bound.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/gitswarm/gitswarm/swarm"
)

// Errors of Resolve; each comes with the image and the way out in its text.
var (
	ErrNotFound     = errors.New("no such image or tag")
	ErrUnauthorized = errors.New("credentials are missing or refused")
	ErrUnreachable  = errors.New("registry does not answer")
)

const (
	timeout   = 30 * time.Second // of one Resolve
	tagKept   = 5 * time.Second  // a tag is not asked for again within it
	tagsKept  = 4096
	imagesTop = 4096 // configurations kept, by digest
)

// Config says how registries are reached.
type Config struct {
	CredentialsFile string       // optional: a docker config.json; read again when it changes
	Insecure        []string     // optional: "host[:port]" of registries without TLS; those on loopback need no mention
	Log             *slog.Logger // optional
}

// Client asks registries. It is safe for use by several goroutines.
type Client struct {
	insecure    []string
	credentials *credentials
	inner       http.RoundTripper
	flights     singleflight.Group
	images      *lru.Cache[string, Image] // by repository, digest and platform
	tags        *lru.Cache[string, tag]   // by normalised name

	mu      sync.Mutex
	pullers map[string]*remote.Puller // by registry
}

// tag is what a name stood for.
type tag struct {
	digest v1.Hash
	at     time.Time
}

// Image is what a registry says of an image.
type Image struct {
	Name         string             // normalised: "docker.io/library/nginx:latest"
	Manifest     swarm.Digest       // of the index where there is one, so that every platform finds its own
	Platforms    []string           // "linux/amd64", sorted
	Health       *swarm.Healthcheck // nil: none; defaults are filled in
	StopSignal   string
	ExposedPorts []string // "80/tcp", sorted
	Volumes      []string // paths in the container, sorted
}

// New returns a Client. It fails if the credentials file cannot be understood.
func New(c Config) (*Client, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	known, err := loadCredentials(c.CredentialsFile, c.Log)
	if err != nil {
		return nil, err
	}
	images, err := lru.New[string, Image](imagesTop)
	if err != nil {
		return nil, fmt.Errorf("make image cache: %w", err)
	}
	tags, err := lru.New[string, tag](tagsKept)
	if err != nil {
		return nil, fmt.Errorf("make tag cache: %w", err)
	}
	return &Client{
		insecure:    c.Insecure,
		credentials: known,
		inner:       newTransport(),
		images:      images,
		tags:        tags,
		pullers:     map[string]*remote.Puller{},
	}, nil
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  15 * time.Second,
		IdleConnTimeout:        60 * time.Second,
		MaxIdleConnsPerHost:    4,
		MaxResponseHeaderBytes: 256 << 10,
		ForceAttemptHTTP2:      true,
	}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.inner.(*http.Transport).CloseIdleConnections() }

// Resolve finds an image as a compose file names it. The platform, "linux/amd64",
// chooses whose configuration is read where an image has several. It fails
// with ErrNotFound, ErrUnauthorized or ErrUnreachable, or because the name or
// the answer makes no sense.
func (c *Client) Resolve(ctx context.Context, image, platform string) (Image, error) {
	ref, err := c.parse(image)
	if err != nil {
		return Image{}, err
	}
	wanted, err := v1.ParsePlatform(platform)
	if err != nil {
		return Image{}, fmt.Errorf("resolve image %q: platform %q: %w", image, platform, err)
	}

	key := ref.Name() + " " + platform
	answers := c.flights.DoChan(key, func() (any, error) {
		// Others may wait for the same answer when this caller gives up.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		return c.resolve(ctx, ref, *wanted)
	})
	select {
	case <-ctx.Done():
		return Image{}, fmt.Errorf("resolve image %q: %w", image, ctx.Err())
	case answer := <-answers:
		if answer.Err != nil {
			return Image{}, fmt.Errorf("resolve image %q: %w", image, explain(ref, answer.Err))
		}
		return answer.Val.(Image).clone(), nil
	}
}

// Normalize writes an image's name in full: "nginx" is
// "docker.io/library/nginx:latest".
func Normalize(image string) (string, error) {
	ref, err := parse(image)
	if err != nil {
		return "", err
	}
	return fullName(ref), nil
}

// Auth returns the credential for an image's registry, both empty if there is
// none. A user that is empty with a password means an identity token.
func (c *Client) Auth(_ context.Context, image string) (user, password string, err error) {
	ref, err := parse(image)
	if err != nil {
		return "", "", err
	}
	found := c.credentials.find(ref.Context().RegistryStr())
	if found.IdentityToken != "" {
		return "", found.IdentityToken, nil
	}
	return found.Username, found.Password, nil
}

// Forget makes the next Resolve of an image ask for its tag, however lately
// that was done.
func (c *Client) Forget(image string) {
	if ref, err := c.parse(image); err == nil {
		c.tags.Remove(ref.Name())
	}
}

func (c *Client) resolve(ctx context.Context, ref name.Reference, platform v1.Platform) (Image, error) {
	digest, err := c.digest(ctx, ref)
	if err != nil {
		return Image{}, err
	}

	repository := ref.Context()
	key := repository.Name() + "@" + digest.String() + " " + platform.String()
	if image, ok := c.images.Get(key); ok {
		image.Name = fullName(ref)
		return image, nil
	}
	image, err := c.read(ctx, repository.Digest(digest.String()), platform)
	if err != nil {
		return Image{}, err
	}
	image.Name, image.Manifest = fullName(ref), swarm.Digest(digest.String())
	c.images.Add(key, image)
	return image, nil
}

// digest finds what a name stands for now. A digest stands for itself.
func (c *Client) digest(ctx context.Context, ref name.Reference) (v1.Hash, error) {
	if _, ok := ref.(name.Digest); ok {
		return parseDigest(ref.Identifier())
	}
	if known, ok := c.tags.Get(ref.Name()); ok && time.Since(known.at) < tagKept {
		return known.digest, nil
	}

	puller, err := c.puller(ref.Context().Registry)
	if err != nil {
		return v1.Hash{}, err
	}
	var found v1.Hash
	if head, err := puller.Head(ctx, ref); err == nil {
		found = head.Digest
	} else if missing(err) || ctx.Err() != nil {
		return v1.Hash{}, err
	} else { // some registries cannot do HEAD well
		full, err := puller.Get(ctx, ref)
		if err != nil {
			return v1.Hash{}, err
		}
		found = full.Digest
	}
	if _, err := parseDigest(found.String()); err != nil {
		return v1.Hash{}, err
	}
	c.tags.Add(ref.Name(), tag{digest: found, at: time.Now()})
	return found, nil
}

// parseDigest takes SHA-256 alone: a swarm.Digest is nothing else.
func parseDigest(text string) (v1.Hash, error) {
	digest, err := v1.NewHash(text)
	if err != nil || digest.Algorithm != "sha256" || len(digest.Hex) != 64 {
		return v1.Hash{}, fmt.Errorf("digest %.80q is no sha256 digest", text)
	}
	return digest, nil
}

// puller returns the one client of a registry: it keeps tokens.
func (c *Client) puller(registry name.Registry) (*remote.Puller, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	host := registry.RegistryStr()
	if p := c.pullers[host]; p != nil && !c.credentials.changed() {
		return p, nil
	}

	if c.credentials.changed() {
		c.credentials.reload()
		clear(c.pullers)
	}
	p, err := remote.NewPuller(
		remote.WithTransport(&guard{registry: host, inner: c.inner}),
		remote.WithAuthFromKeychain(c.credentials),
		remote.WithUserAgent("gitswarm"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Steps: 2}),
	)
	if err != nil {
		return nil, fmt.Errorf("reach registry %s: %w", host, err)
	}
	c.pullers[host] = p
	return p, nil
}

// parse reads a name and decides whether its registry speaks TLS.
func (c *Client) parse(image string) (name.Reference, error) {
	ref, err := parse(image)
	if err != nil {
		return nil, err
	}
	host := ref.Context().RegistryStr()
	if slices.Contains(c.insecure, host) || loopback(host) {
		return parse(image, name.Insecure)
	}
	return ref, nil
}

func (i Image) clone() Image {
	i.Platforms = slices.Clone(i.Platforms)
	i.ExposedPorts = slices.Clone(i.ExposedPorts)
	i.Volumes = slices.Clone(i.Volumes)
	if i.Health != nil {
		health := *i.Health
		health.Test = slices.Clone(health.Test)
		i.Health = &health
	}
	return i
}
