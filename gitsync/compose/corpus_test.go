package compose

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
)

// corpus is a folder of compose and stack files as people write them. It is
// not part of the repository.
func corpus(t *testing.T) string {
	t.Helper()
	folder := os.Getenv("GITSWARM_CORPUS")
	if folder == "" {
		folder = filepath.Join("..", "..", "..", "shared", "corpus")
	}
	if _, err := os.Stat(folder); err != nil {
		t.Skipf("no corpus at %s; set GITSWARM_CORPUS", folder)
	}
	return folder
}

func TestAnswersEachFileOfTheCorpus(t *testing.T) {
	folder := corpus(t)
	want := map[string]bool{}
	err := filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if strings.HasSuffix(name, ".yml") || strings.HasSuffix(name, ".yaml") {
			relative, _ := filepath.Rel(folder, name)
			want[filepath.ToSlash(relative)] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	report, err := Validate(t.Context(), Limits{}, FromDir(folder), ".")
	if err != nil {
		t.Fatal(err)
	}
	results := map[swarm.Class]int{}
	for _, file := range report.Files {
		results[file.Result]++
		delete(want, file.File)
		if len(file.Keys) == 0 {
			t.Errorf("%s: no key is classed", file.File)
		}
		for _, key := range file.Keys {
			if key.Class == swarm.Refused && (key.Line == 0 || key.Text == "") {
				t.Errorf("%s: refused without line or reason: %+v", file.File, key)
			}
			if strings.Contains(key.Text, "please report") {
				t.Errorf("%s: %s", file.File, key.Text)
			}
		}
	}
	for name := range want {
		t.Errorf("%s: not answered", name)
	}
	t.Logf("%d files: %v", len(report.Files), results)
	if testing.Verbose() {
		t.Log("\n" + report.String())
	}
}
