package registry

import (
	"fmt"
	"net"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

const (
	hub      = "docker.io"
	hubIndex = "index.docker.io" // where docker.io is served
)

// parse reads an image's name as docker does.
func parse(image string, options ...name.Option) (name.Reference, error) {
	if len(image) > 1024 {
		return nil, fmt.Errorf("image name %.40q… is too long", image)
	}
	ref, err := name.ParseReference(image, append(options, name.WithDefaultRegistry(hubIndex))...)
	if err != nil {
		return nil, fmt.Errorf("image name %q is not valid: write [REGISTRY/]NAME[:TAG][@sha256:DIGEST], in lower case", image)
	}
	return ref, nil
}

// fullName is a reference in docker's words.
func fullName(ref name.Reference) string {
	if rest, ok := strings.CutPrefix(ref.Name(), hubIndex+"/"); ok {
		return hub + "/" + rest
	}
	return ref.Name()
}

// registryKey is how a registry is known in a config.json: without scheme and
// path, Docker Hub under one name.
func registryKey(address string) string {
	for _, scheme := range []string{"https://", "http://"} {
		address = strings.TrimPrefix(address, scheme)
	}
	host, _, _ := strings.Cut(address, "/")
	switch host = strings.ToLower(host); host {
	case hubIndex, "registry-1.docker.io":
		return hub
	}
	return host
}

// loopback reports whether a registry is on this machine.
func loopback(registry string) bool {
	host := registry
	if h, _, err := net.SplitHostPort(registry); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
