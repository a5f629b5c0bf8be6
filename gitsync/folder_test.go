package gitsync

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadsACopiedFolderAsACommit(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"shop/compose.yaml": "services: {}\n", "shop.d/x": "x", "shop/run": "#!"} {
		full := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("/etc/passwd", filepath.Join(dir, "out")), os.Chmod(filepath.Join(dir, "shop/run"), 0o755)); err != nil {
		t.Fatal(err)
	}
	commit, err := FromDir(dir)
	if err != nil {
		t.Fatal(err)
	}

	all, err := commit.Tree.Changed(nil)
	if err != nil || strings.Join(all, " ") != "out shop.d/x shop/compose.yaml shop/run" {
		t.Errorf("%q, %v", all, err)
	}
	found, findings, err := FindStacks(commit.Tree, "", "")
	if err != nil || len(findings) > 0 || len(found) != 1 || found[0].Name != "shop" {
		t.Errorf("%+v, %+v, %v", found, findings, err)
	}
	if run, err := commit.Tree.Stat("shop/run"); err != nil || run.Mode != 0o755 {
		t.Errorf("%+v, %v", run, err)
	}
	if data, err := commit.Tree.ReadFile("out", 1000); !errors.Is(err, ErrEscapes) {
		t.Errorf("read %q, %v", data, err)
	}
}
