package runtime

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gitswarm/gitswarm/nodeagent/runtime/shim"
)

// shimBinary is the small binary that is the shim where it is installed beside
// the daemon's.
const shimBinary = "gitswarm-shim"

// keepBuild keeps a copy of the shim's binary in dir, so that the containers
// of this build can be stopped, executed in and removed after an upgrade put
// another in its place. It returns the path of the copy.
func keepBuild(dir, source string) (string, error) {
	source, err := findShim(source)
	if err != nil {
		return "", fmt.Errorf("find the shim's binary: %w", err)
	}
	id, err := buildID(source)
	if err != nil {
		return "", fmt.Errorf("identify build of %s: %w", source, err)
	}

	path := filepath.Join(dir, id, shim.Name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("keep build: %w", err)
	}
	fresh := path + "." + chance()
	if err := copyFile(source, fresh); err != nil {
		return "", fmt.Errorf("keep build: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return "", fmt.Errorf("keep build: %w", err)
	}
	return path, nil
}

// findShim is source, or the shim's own binary beside this executable, or this
// executable.
func findShim(source string) (string, error) {
	if source != "" {
		return filepath.Abs(source)
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(self), shimBinary)
	if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
		return beside, nil
	}
	return "/proc/self/exe", nil // self, even if its file was replaced since
}

// buildID names a binary by what the linker says it is, which is quick to
// read, or by its content.
func buildID(path string) (string, error) {
	sum := sha256.New()
	binary, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer binary.Close()

	var note []byte
	if section := binary.Section(".note.go.buildid"); section != nil {
		note, err = section.Data()
	}
	if err != nil || len(note) <= 16 { // 16 bytes: the note's header alone
		return hashFile(path)
	}
	sum.Write(note)
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

// copyFile copies rather than links: whoever writes into the source later must
// not write into the copy.
func copyFile(source, target string) (err error) {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(target)
		}
	}()
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// static reports whether a binary needs no loader, so that it runs in any
// image.
func static(path string) (bool, error) {
	binary, err := elf.Open(path)
	if err != nil {
		return false, fmt.Errorf("read the shim's binary: %w", err)
	}
	defer binary.Close()
	for _, segment := range binary.Progs {
		if segment.Type == elf.PT_INTERP {
			return false, nil
		}
	}
	return true, nil
}

// dropBuilds removes the kept builds that no container was made with.
func (r *Runtime) dropBuilds(used map[string]bool) error {
	dir := filepath.Join(r.config.Dir, "bin")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list kept builds: %w", err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name(), shim.Name)
		if path == r.shim || used[path] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, syscall.ENOENT) {
			errs = append(errs, fmt.Errorf("remove old build: %w", err))
		}
	}
	return errors.Join(errs...)
}
