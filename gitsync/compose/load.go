package compose

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// Project says what to load. All paths are relative to the root of the tree.
type Project struct {
	Name      string            `cbor:"1,keyasint,omitempty"` // of the stack; empty: as its files say, else as its folder
	Dir       string            `cbor:"2,keyasint,omitempty"` // relative paths in compose files start here; its .env is read
	Files     []string          `cbor:"3,keyasint,omitempty"` // each overrides those before; empty: compose.yaml of Dir and its override
	EnvFiles  []string          `cbor:"4,keyasint,omitempty"` // more variables; each overrides those before, and .env
	Variables map[string]string `cbor:"5,keyasint,omitempty"` // override those of files
	Profiles  []string          `cbor:"6,keyasint,omitempty"` // services of other profiles are left out
}

// Loaded is a project, rendered. Service.Spec and TaskSpec.Manifest are empty,
// and File.Content is a key of Contents, until they are resolved and stored.
// An image's own health check is meant by a nil Health or a Health without
// Test, none at all by the Test {"NONE"}.
type Loaded struct {
	Stack    swarm.Stack
	Findings []swarm.Finding   // warnings, by file and line
	Contents map[string][]byte // by "config:NAME", "secret:NAME" or "repo:PATH"
	Reads    []string          // paths of the tree that were looked at, sorted, absent ones too; a final / stands for all below

	keys []swarm.Finding // every key that was read, for Place
}

// Error says why a project is refused.
type Error struct {
	Findings []swarm.Finding // warnings and, at least one, refusals, by file and line
	Reads    []string        // as in Loaded: another commit must touch one of them to mend it
}

// Error lists the refusals, one a line.
func (e *Error) Error() string {
	var lines []string
	for _, f := range e.Findings {
		if f.Class == swarm.Refused {
			lines = append(lines, FindingText(f))
		}
	}
	return strings.Join(lines, "\n")
}

// FindingText writes a finding for people: "compose.yaml:12:
// services.web.runtime: …".
func FindingText(f swarm.Finding) string {
	text := place{f.File, f.Line}.String()
	if f.Rule != "" {
		text += ": " + f.Rule
	}
	return text + ": " + f.Text
}

// Load renders one project in a child process. It fails with *Error if the
// project is refused, or with another error if the tree could not be read or
// the child not be started.
func Load(ctx context.Context, limits Limits, tree Tree, project Project) (Loaded, error) {
	result := LoadAll(ctx, limits, tree, []Project{project})[0]
	return result.Loaded, result.Err
}

// Result is what Load returns for one of several projects.
type Result struct {
	Loaded Loaded
	Err    error
}

// LoadAll is that of a Loader that keeps nothing.
func LoadAll(ctx context.Context, limits Limits, tree Tree, projects []Project) []Result {
	return (&Loader{Limits: limits}).LoadAll(ctx, tree, projects)
}

// load renders one project in the worker's child.
func (w *worker) load(ctx context.Context, tree Tree, project Project) (Loaded, error) {
	from := confine(tree)
	result, err := w.render(ctx, from, project)
	reads := slices.Sorted(maps.Keys(from.reads))
	if err != nil {
		return Loaded{}, fmt.Errorf("load stack in folder %q: %w", project.Dir, err)
	}
	if result.refused() {
		return Loaded{}, &Error{Findings: visible(result.Findings), Reads: reads}
	}

	loaded := Loaded{Stack: result.Stack, Findings: visible(result.Findings), Contents: result.Inline, keys: result.Findings}
	if loaded.Contents == nil {
		loaded.Contents = map[string][]byte{}
	}
	if err := fill(loaded.Contents, from, result.Paths); err != nil {
		return Loaded{}, fmt.Errorf("load stack %q: %w", result.Stack.Name, err)
	}
	loaded.Reads = slices.Sorted(maps.Keys(from.reads))
	return loaded, nil
}

// visible leaves out what is honoured.
func visible(all []swarm.Finding) []swarm.Finding {
	return slices.DeleteFunc(slices.Clone(all), func(f swarm.Finding) bool { return f.Class == swarm.Honoured })
}

// fill reads the files that contents stand for. The child has looked at their
// sizes; they are bounded here again, for the child is not trusted.
func fill(contents map[string][]byte, from *confined, paths map[string]string) error {
	var total int64
	for _, key := range slices.Sorted(maps.Keys(paths)) {
		limit := int64(maxRepoBytes)
		switch kind, _, _ := strings.Cut(key, ":"); swarm.FileKind(kind) {
		case swarm.FileConfig:
			limit = maxConfig
		case swarm.FileSecret:
			limit = maxSecret
		}
		data, err := from.read(paths[key], limit)
		if err != nil {
			return fmt.Errorf("read content %s: %w", key, err)
		}
		if total += int64(len(data)); total > maxRepoBytes+maxTotalBytes {
			return errors.New("the contents of the stack are larger than they were said to be")
		}
		contents[key] = data
	}
	return nil
}
