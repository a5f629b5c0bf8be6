package compose

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/gitswarm/gitswarm/swarm"
)

var update = flag.Bool("update", false, "write what the stories give into their files")

// TestStories loads the tree of each testdata/*.txtar and compares what it
// gives with the file's "want" (the stack, or what is refused). A story's
// first comment line is what it claims; lines "dir:", "file:", "env:",
// "set:" and "profile:" say what is loaded.
func TestStories(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			project, tree, want := story(archive)
			got := tell(Load(t.Context(), Limits{}, tree, project))
			if got == string(want) {
				return
			}
			if !*update {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
				return
			}
			archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want" })
			archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
			if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func story(archive *txtar.Archive) (project Project, tree memory, want []byte) {
	project = Project{Dir: "shop", Variables: map[string]string{}}
	for line := range strings.Lines(string(archive.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "dir":
			project.Dir = strings.Trim(value, `"`)
		case "file":
			project.Files = append(project.Files, value)
		case "env":
			project.EnvFiles = append(project.EnvFiles, value)
		case "profile":
			project.Profiles = append(project.Profiles, value)
		case "set":
			name, text, _ := strings.Cut(value, "=")
			project.Variables[name] = text
		}
	}
	tree = memory{}
	for _, f := range archive.Files {
		if f.Name == "want" {
			want = f.Data
			continue
		}
		tree.add(f.Name, f.Data)
	}
	return project, tree, want
}

// tell writes what Load returned as text.
func tell(loaded Loaded, err error) string {
	if err != nil {
		return "error\n" + err.Error() + "\n"
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(bare(loaded.Stack)); err != nil {
		return err.Error()
	}
	for _, key := range slices.Sorted(maps.Keys(loaded.Contents)) {
		fmt.Fprintf(&b, "content %s %q\n", key, loaded.Contents[key])
	}
	for _, f := range loaded.Findings {
		fmt.Fprintf(&b, "%s %s\n", f.Class, FindingText(f))
	}
	fmt.Fprintf(&b, "reads %s\n", strings.Join(loaded.Reads, " "))
	return b.String()
}

// bare leaves out zero values, so that a story shows what is set.
func bare(stack swarm.Stack) any {
	data, err := json.Marshal(stack)
	if err != nil {
		return err.Error()
	}
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return err.Error()
	}
	for _, service := range value.(map[string]any)["Services"].([]any) {
		withoutDefaults(service.(map[string]any))
	}
	return pruned(value)
}

// withoutDefaults leaves out what fills_in_swarms_defaults shows.
func withoutDefaults(service map[string]any) {
	defaults := map[string]string{
		"Deadline": "600000000000", "Endpoint": `"vip"`, "Mode": `"replicated"`, "Replicas": "1",
		"Restart":  `{"Condition":"any","Delay":5000000000}`,
		"Rollback": `{"Monitor":5000000000,"OnFailure":"pause","Order":"stop-first","Parallelism":1}`,
		"Update":   `{"Monitor":5000000000,"OnFailure":"rollback","Order":"stop-first","Parallelism":1}`,
	}
	for key, text := range defaults {
		if data, err := json.Marshal(pruned(service[key])); err == nil && string(data) == text && service["Name"] != "default" {
			delete(service, key)
		}
	}
	task := service["Task"].(map[string]any)
	if data, err := json.Marshal(pruned(task["Networks"])); err == nil && string(data) == `[{"Network":"default"}]` && service["Name"] != "default" {
		delete(task, "Networks")
	}
	if task["StopGrace"] == 1e10 && service["Name"] != "default" {
		delete(task, "StopGrace")
	}
}

func pruned(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, item := range v {
			if v[key] = pruned(item); v[key] == nil {
				delete(v, key)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = pruned(v[i])
		}
	case string:
		if v == "" {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	}
	return value
}

// memory is a tree in memory. A name that ends in "@" is a symlink to its
// content, one that ends in "!" a submodule, one that ends in "*" executable.
type memory map[string][]Entry

func (m memory) add(name string, data []byte) {
	entry := Entry{Kind: KindFile, Size: int64(len(data))}
	switch {
	case strings.HasSuffix(name, "@"):
		entry = Entry{Kind: KindSymlink, Target: strings.TrimSpace(string(data))}
	case strings.HasSuffix(name, "!"):
		entry = Entry{Kind: KindSubmodule}
	case strings.HasSuffix(name, "*"):
		entry.Executable = true
	}
	m.put(strings.TrimRight(name, "@!*"), entry)
	if entry.Kind == KindFile {
		m["\x00"+strings.TrimRight(name, "*")] = []Entry{{Target: string(data)}}
	}
}

func (m memory) put(name string, entry Entry) {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	entry.Name = base
	if !slices.ContainsFunc(m[dir], func(e Entry) bool { return e.Name == base }) {
		m[dir] = append(m[dir], entry)
		if dir != "" {
			m.put(dir, Entry{Kind: KindFolder})
		}
	}
}

func (m memory) ReadFile(name string, limit int64) ([]byte, error) {
	held, ok := m["\x00"+name]
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	if int64(len(held[0].Target)) > limit {
		return nil, ErrTooLarge
	}
	return []byte(held[0].Target), nil
}

func (m memory) ReadDir(name string) ([]Entry, error) {
	if name == "." {
		name = ""
	}
	entries, ok := m[name]
	if !ok && name != "" {
		return nil, &fs.PathError{Op: "list", Path: name, Err: fs.ErrNotExist}
	}
	return entries, nil
}
