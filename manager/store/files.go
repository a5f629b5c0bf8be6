package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gitswarm/gitswarm/internal/durable"
)

// directoryFormat is what this build writes. A directory of a greater one is
// not touched.
const directoryFormat = 1

const (
	formatFile      = "FORMAT"
	lockFile        = "lock"
	markFile        = "acknowledged"
	incarnationFile = "incarnation"
	logDir          = "log"
	snapDir         = "snapshots"
)

// lock keeps every other process out of dir until it is closed.
func lock(dir string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another process uses it: stop that one first: %w", err)
	}
	return f, nil
}

// checkFormat refuses a directory that a newer build wrote, and marks one that
// is new.
func checkFormat(dir string) error {
	path := filepath.Join(dir, formatFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if entries, err := os.ReadDir(filepath.Join(dir, logDir)); err == nil && len(entries) > 0 {
			return fmt.Errorf("%s is missing beside a log: restore the directory from a backup", path)
		}
		return durable.WriteFile(path, []byte(strconv.Itoa(directoryFormat)+"\n"))
	}
	if err != nil {
		return err
	}
	format, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || format < 1 {
		return fmt.Errorf("%s says %q: restore the directory from a backup", path, data)
	}
	if format > directoryFormat {
		return fmt.Errorf("format %d, this build knows %d: %w", format, directoryFormat, errNewer)
	}
	return nil
}

// mark remembers the last index that was safe on disk. It is written after
// each append and not fsynced, so that it costs nothing: after a crash it may
// be too low, never too high. A log that ends before it has lost entries that
// others were told of; the log's own recovery could not tell such a loss from
// an append that a crash cut off.
type mark struct {
	file  *os.File
	index uint64
}

var markSum = crc32.MakeTable(crc32.Castagnoli)

// openMark reads the mark; one that is absent or torn says 0.
func openMark(dir string) (*mark, error) {
	f, err := os.OpenFile(filepath.Join(dir, markFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	var b [12]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, f.Close())
	}
	m := &mark{file: f}
	if crc32.Checksum(b[:8], markSum) == binary.BigEndian.Uint32(b[8:]) {
		m.index = binary.BigEndian.Uint64(b[:8])
	}
	return m, nil
}

// set moves the mark.
func (m *mark) set(index uint64) error {
	var b [12]byte
	binary.BigEndian.PutUint64(b[:8], index)
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[:8], markSum))
	if _, err := m.file.WriteAt(b[:], 0); err != nil {
		return err
	}
	m.index = index
	return nil
}

// lower moves the mark back, for entries that are about to be removed.
func (m *mark) lower(index uint64) error {
	if index >= m.index {
		return nil
	}
	if err := m.set(index); err != nil {
		return err
	}
	return m.file.Sync()
}

// openIncarnation returns the name that a folder has for as long as it exists,
// see greeting; a folder without one gets it.
func openIncarnation(dir string) (string, error) {
	path := filepath.Join(dir, incarnationFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newIncarnation(dir)
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(data))
	if len(name) != len(rand.Text()) {
		return "", fmt.Errorf("%s says %q: restore the directory from a backup", path, data)
	}
	return name, nil
}

// newIncarnation gives a folder a name that it never had.
func newIncarnation(dir string) (string, error) {
	name := rand.Text()
	return name, durable.WriteFile(filepath.Join(dir, incarnationFile), []byte(name+"\n"))
}
