package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// TestAFullDiskStopsTheStoreAndLosesNothing fills a real file system.
func TestAFullDiskStopsTheStoreAndLosesNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=20m"); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	keyring, err := seal.Create(filepath.Join(root, "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir: filepath.Join(root, "store"), keyring: keyring}
	s := p.open(t)
	defer s.Close() // before the disk goes

	acknowledged := 0
	for ; err == nil && acknowledged < 100; acknowledged++ {
		c := putSource(fmt.Sprint("s", acknowledged))
		c.PutSource.Path = strings.Repeat("x", 500_000) // bigger than what is left, soon
		_, err = s.Propose(t.Context(), c)
	}
	acknowledged--
	if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("after %d commands: %v", acknowledged, err)
	}
	shut(t, s)

	if err := syscall.Mount("", root, "", syscall.MS_REMOUNT, "size=80m"); err != nil {
		t.Fatal(err)
	}
	s = p.open(t)
	defer s.Close()
	for n := range acknowledged {
		if _, ok := s.View().Source(swarm.SourceID(fmt.Sprint("s", n))); !ok {
			t.Fatalf("source %d of %d is lost", n, acknowledged)
		}
	}
	propose(t, s, putSource("after"))
}
