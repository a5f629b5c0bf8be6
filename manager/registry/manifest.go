package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/gitswarm/gitswarm/swarm"
)

// What docker does where an image's health check is silent.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
)

const maxPlatforms = 1000 // manifests in one index

// read fetches a manifest and the configuration of one platform.
func (c *Client) read(ctx context.Context, ref name.Digest, platform v1.Platform) (Image, error) {
	puller, err := c.puller(ref.Context().Registry)
	if err != nil {
		return Image{}, err
	}
	top, err := puller.Get(ctx, ref)
	if err != nil {
		return Image{}, err
	}

	switch {
	case top.MediaType.IsImage():
		config, err := c.config(ctx, ref, top.Manifest)
		if err != nil {
			return Image{}, err
		}
		image := config.image()
		image.Platforms = []string{config.platform()}
		return image, nil
	case top.MediaType.IsIndex():
		index, err := v1.ParseIndexManifest(bytes.NewReader(top.Manifest))
		if err != nil {
			return Image{}, fmt.Errorf("the registry's index makes no sense: %w", err)
		}
		return c.readIndex(ctx, ref, index, platform)
	}
	return Image{}, fmt.Errorf("it is of the kind %.100q, which no container runs from: push it again with a current tool", top.MediaType)
}

// readIndex reads the configuration of the image that fits the platform best.
func (c *Client) readIndex(ctx context.Context, ref name.Digest, index *v1.IndexManifest, platform v1.Platform) (Image, error) {
	if len(index.Manifests) > maxPlatforms {
		return Image{}, fmt.Errorf("its index has %d entries, the limit is %d", len(index.Manifests), maxPlatforms)
	}
	platforms := map[string]bool{}
	var chosen *v1.Descriptor
	for i, entry := range index.Manifests {
		if entry.Platform == nil || entry.Platform.OS == "unknown" || !entry.MediaType.IsImage() {
			continue // an attestation, or an artifact
		}
		platforms[platformName(*entry.Platform)] = true
		if chosen == nil || entry.Platform.Satisfies(platform) && !chosen.Platform.Satisfies(platform) {
			chosen = &index.Manifests[i]
		}
	}
	if chosen == nil {
		return Image{}, fmt.Errorf("%w: its index has no image for any platform", ErrNotFound)
	}

	one := ref.Context().Digest(chosen.Digest.String())
	puller, err := c.puller(ref.Context().Registry)
	if err != nil {
		return Image{}, err
	}
	manifest, err := puller.Get(ctx, one)
	if err != nil {
		return Image{}, err
	}
	config, err := c.config(ctx, one, manifest.Manifest)
	if err != nil {
		return Image{}, err
	}
	image := config.image()
	image.Platforms = slices.Sorted(maps.Keys(platforms))
	return image, nil
}

// config fetches the configuration that a manifest names; its digest is checked.
func (c *Client) config(ctx context.Context, ref name.Digest, manifest []byte) (imageConfig, error) {
	parsed, err := v1.ParseManifest(bytes.NewReader(manifest))
	if err != nil {
		return imageConfig{}, fmt.Errorf("the registry's manifest makes no sense: %w", err)
	}
	if parsed.Config.Size > maxAnswer {
		return imageConfig{}, errTooLarge
	}
	if _, err := parseDigest(parsed.Config.Digest.String()); err != nil {
		return imageConfig{}, fmt.Errorf("its configuration: %w", err)
	}

	puller, err := c.puller(ref.Context().Registry)
	if err != nil {
		return imageConfig{}, err
	}
	layer, err := puller.Layer(ctx, ref.Context().Digest(parsed.Config.Digest.String()))
	if err != nil {
		return imageConfig{}, err
	}
	r, err := layer.Compressed() // verified as it is read
	if err != nil {
		return imageConfig{}, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return imageConfig{}, err
	}
	var config imageConfig
	if err := json.Unmarshal(data, &config); err != nil {
		return imageConfig{}, fmt.Errorf("its configuration makes no sense: %w", err)
	}
	return config, nil
}

// imageConfig is what of an image's configuration concerns us.
type imageConfig struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Config       struct {
		Healthcheck  *healthConfig       `json:"Healthcheck"`
		StopSignal   string              `json:"StopSignal"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts"`
		Volumes      map[string]struct{} `json:"Volumes"`
	} `json:"config"`
}

// healthConfig is docker's, durations in nanoseconds.
type healthConfig struct {
	Test          []string
	Interval      time.Duration
	Timeout       time.Duration
	StartPeriod   time.Duration
	StartInterval time.Duration
	Retries       int
}

func (c imageConfig) platform() string {
	return platformName(v1.Platform{OS: c.OS, Architecture: c.Architecture})
}

// platformName is "linux/amd64": as a node describes itself, which knows no variants.
func platformName(p v1.Platform) string { return p.OS + "/" + p.Architecture }

func (c imageConfig) image() Image {
	return Image{
		Health:       c.Config.Healthcheck.check(),
		StopSignal:   c.Config.StopSignal,
		ExposedPorts: slices.Sorted(maps.Keys(c.Config.ExposedPorts)),
		Volumes:      slices.Sorted(maps.Keys(c.Config.Volumes)),
	}
}

// check translates a health check; none, an empty one and "NONE" are nil.
func (h *healthConfig) check() *swarm.Healthcheck {
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	check := swarm.Healthcheck{
		Interval:      orDefault(h.Interval, defaultInterval),
		Timeout:       orDefault(h.Timeout, defaultTimeout),
		Retries:       h.Retries,
		StartPeriod:   max(h.StartPeriod, 0),
		StartInterval: orDefault(h.StartInterval, defaultStartInterval),
	}
	if check.Retries <= 0 {
		check.Retries = defaultRetries
	}
	switch h.Test[0] {
	case "CMD":
		check.Test = slices.Clone(h.Test[1:])
	case "CMD-SHELL":
		check.Test, check.Shell = []string{h.Test[1]}, true
	default:
		return nil
	}
	return &check
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}
