package lab

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// PushApp builds an image of the examples' web server with the environment
// given ("APP_EXIT_AFTER=2s") and pushes it as app:TAG.
func (l *Lab) PushApp(tag string, env ...string) error {
	return l.Push("app:"+tag, webServer(tag, env))
}

// webServer is the configuration of an image of the examples' web server.
func webServer(tag string, env []string) v1.Config {
	return v1.Config{
		Entrypoint: []string{"/app"},
		Env:        append([]string{"PATH=/", "APP_VERSION=" + tag}, env...),
	}
}

// Push pushes an image that holds the web server as /app under the reference
// "NAME:TAG", with any configuration.
func (l *Lab) Push(reference string, config v1.Config) error {
	return push(l.App, l.Registry, remote.DefaultTransport, reference, config)
}

// push builds an image that holds the app and pushes it to a registry.
func push(app, registry string, transport http.RoundTripper, reference string, config v1.Config) error {
	layer, err := appLayer(app)
	if err != nil {
		return fmt.Errorf("build image %s: %w", reference, err)
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return fmt.Errorf("build image %s: %w", reference, err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("build image %s: %w", reference, err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, config
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return fmt.Errorf("build image %s: %w", reference, err)
	}
	ref, err := name.ParseReference(registry + "/" + reference)
	if err != nil {
		return fmt.Errorf("push image %s: %w", reference, err)
	}
	if err := remote.Write(ref, image, remote.WithTransport(transport)); err != nil {
		return fmt.Errorf("push image %s: %w", reference, err)
	}
	return nil
}

// appLayer is a file system with the app, /tmp and the two files that name
// users.
func appLayer(app string) (v1.Layer, error) {
	binary, err := os.ReadFile(app)
	if err != nil {
		return nil, err
	}
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	entries := []struct {
		header tar.Header
		data   []byte
	}{
		{tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil},
		{tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0:root:/:/app\nnobody:x:65534:65534:nobody:/:/app\n")},
		{tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nnogroup:x:65534:\n")},
		{tar.Header{Name: "app", Typeflag: tar.TypeReg, Mode: 0o755}, binary},
	}
	for _, entry := range entries {
		entry.header.Size = int64(len(entry.data))
		if err := w.WriteHeader(&entry.header); err != nil {
			return nil, err
		}
		if _, err := w.Write(entry.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}
