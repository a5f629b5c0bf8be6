package runtime

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/gitswarm/gitswarm/swarm"
)

// entry is a file of a test image.
type entry struct {
	path string
	mode int64
	data string
	link string
	uid  int
}

// push builds an image of busybox and further files, pushes it, and gives its
// name and digest.
func push(t *testing.T, tag string, config v1.Config, files ...entry) (string, swarm.Digest) {
	t.Helper()
	img, err := build(config, files)
	if err != nil {
		t.Fatal(err)
	}
	image := strings.TrimPrefix(shared.registry.URL, "http://") + "/" + tag
	ref, err := name.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return image, swarm.Digest(digest.String())
}

func build(config v1.Config, files []entry) (v1.Image, error) {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	all := []entry{
		{path: "bin/", mode: 0o755}, {path: "etc/", mode: 0o755}, {path: "proc/", mode: 0o755}, {path: "sys/", mode: 0o755},
		{path: "dev/", mode: 0o755}, {path: "run/", mode: 0o755}, {path: "tmp/", mode: 0o1777}, {path: "var/", mode: 0o755},
		{path: "bin/busybox", mode: 0o755, data: string(program)},
		{path: "etc/passwd", mode: 0o644, data: "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n"},
		{path: "etc/group", mode: 0o644, data: "root:x:0:\nweb:x:1001:\nlogs:x:2000:web,root\n"},
	}
	for _, applet := range strings.Fields("sh sleep echo cat ls true false ps kill test date mkdir dd yes id head env touch rm hostname mount grep seq stat tail wc tr od readlink chmod stty tty awk ulimit df find") {
		all = append(all, entry{path: "bin/" + applet, link: "busybox"})
	}

	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, f := range append(all, files...) {
		header := &tar.Header{Name: f.path, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg, Uid: f.uid, Gid: f.uid}
		switch {
		case strings.HasSuffix(f.path, "/"):
			header.Typeflag = tar.TypeDir
		case f.link != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f.link, 0o777
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}

	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.AppendLayers(img, l); err != nil {
		return nil, err
	}
	return mutate.ConfigFile(img, configFile(img, config))
}

func configFile(img v1.Image, config v1.Config) *v1.ConfigFile {
	file, err := img.ConfigFile()
	if err != nil {
		panic(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", config
	return file
}
