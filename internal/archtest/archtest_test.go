// Package archtest keeps the arrows of docs/architecture.md pointing one way.
// It holds tests alone.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gitswarm/gitswarm/"

// deciding lists the packages that only decide: values and `now` in, values
// out, so that every decision can be replayed from a test file.
var deciding = []string{"policy", "reconciler", "manager/allocator", "manager/scheduler", "nodeagent/converge"}

// worldly lists what a deciding package may not reach for.
var worldly = []string{"os", "net", "net/http", "os/exec", "log", "log/slog", "sync", "sync/atomic", "math/rand", "math/rand/v2", "crypto/rand", "context"}

// homes gives each heavy library the packages that may import it, so that its
// types never spread and it can be replaced in one place.
var homes = map[string][]string{
	"github.com/go-git/go-git/v5":            {"gitsync"},
	"github.com/fsnotify/fsnotify":           {"gitsync", "nodeagent/runtime/tasklog"},
	"github.com/compose-spec/compose-go/v2":  {"gitsync/compose"},
	"github.com/hashicorp/raft":              {"manager/store"},
	"github.com/hashicorp/raft-wal":          {"manager/store"},
	"github.com/hashicorp/go-memdb":          {"manager/store"},
	"github.com/google/go-containerregistry": {"manager/registry", "internal/e2e/lab"},
	"github.com/containerd/containerd":       {"nodeagent/runtime", "nodeagent/runtime/shim"},
	"github.com/vishvananda/netlink":         {"nodeagent/network"},
	"github.com/google/nftables":             {"nodeagent/network"},
	"github.com/miekg/dns":                   {"nodeagent/network"},
	"cel.dev/cel-go":                         {"policy"},
	"github.com/danielgtaylor/huma":          {"manager/api"},
	"github.com/spf13/cobra":                 {"cmd/gitswarm"},
	"google.golang.org/grpc":                 {"internal/wire", "nodeagent/runtime"},
	"github.com/fxamacker/cbor":              {"internal/codec"},
}

// depth is the longest chain of imports inside the module: main, manager, one
// of its parts, what they share, the nouns.
const depth = 5

func TestTheNounsImportOnlyTheStandardLibrary(t *testing.T) {
	for _, imp := range packageNamed(t, "swarm").Imports {
		if strings.Contains(imp, ".") {
			t.Errorf("swarm imports %s: nouns are plain, so that every package can share them", imp)
		}
		if slices.Contains(worldly, imp) {
			t.Errorf("swarm imports %q: nouns touch nothing", imp)
		}
	}
}

func TestDecidingPackagesTouchNothing(t *testing.T) {
	for _, p := range packages(t) {
		if !slices.Contains(deciding, p.name()) {
			continue
		}
		for _, imp := range p.Imports {
			if slices.Contains(worldly, imp) {
				t.Errorf("%s decides, so it may not import %q", p.name(), imp)
			}
			inside, ours := strings.CutPrefix(imp, module)
			if ours && inside != "swarm" {
				t.Errorf("%s imports %s: a deciding package knows the nouns and no other package", p.name(), inside)
			}
		}
	}
}

func TestHeavyLibrariesStayHome(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			for library, rooms := range homes {
				if (imp == library || strings.HasPrefix(imp, library+"/")) && !slices.Contains(rooms, p.name()) {
					t.Errorf("%s imports %s; only %s may, so that it can be replaced in one place", p.name(), imp, strings.Join(rooms, " and "))
				}
			}
		}
	}
}

func TestManagerAndAgentMeetOnlyOnTheWire(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			inside, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			if under(p.name(), "manager") && under(inside, "nodeagent") || under(p.name(), "nodeagent") && under(inside, "manager") {
				t.Errorf("%s imports %s: managers and agents are different machines and speak through internal/wire", p.name(), inside)
			}
		}
	}
}

func TestEveryPackageSaysWhatItDoes(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.name())
		}
	}
}

func TestTheImportGraphIsShallow(t *testing.T) {
	imports := make(map[string][]string)
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			if inside, ours := strings.CutPrefix(imp, module); ours {
				imports[p.name()] = append(imports[p.name()], inside)
			}
		}
	}
	var chain func(name string) []string
	chain = func(name string) []string {
		var longest []string
		for _, next := range imports[name] {
			if below := chain(next); len(below) > len(longest) {
				longest = below
			}
		}
		return append([]string{name}, longest...)
	}
	for name := range imports {
		if c := chain(name); len(c) > depth {
			t.Errorf("imports are %d deep, at most %d are allowed: %s", len(c), depth, strings.Join(c, " → "))
		}
	}
}

// TestTheArchitecturePageNamesEveryPackage keeps docs/architecture.md whole.
func TestTheArchitecturePageNamesEveryPackage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages(t) {
		if !strings.Contains(string(page), "`"+p.name()+"`") {
			t.Errorf("docs/architecture.md does not name `%s`", p.name())
		}
	}
}

func under(name, folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }

type goPackage struct {
	ImportPath, Doc  string
	GoFiles, Imports []string
}

func (p goPackage) name() string { return strings.TrimPrefix(p.ImportPath, module) }

func packageNamed(t *testing.T, name string) goPackage {
	t.Helper()
	for _, p := range packages(t) {
		if p.name() == name {
			return p
		}
	}
	t.Fatalf("there is no package %s", name)
	return goPackage{}
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,GoFiles,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
