package compose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// Report says what becomes of each key of the compose files below a path.
type Report struct {
	Files []FileReport `json:"files"` // by path
}

// FileReport is one compose file, loaded as a stack of its own: an override
// file is reported with the file that it overrides.
type FileReport struct {
	File   string      `json:"file"`            // relative to the root of the tree
	Stack  string      `json:"stack,omitempty"` // its name; empty if it is refused
	Result swarm.Class `json:"result"`          // the worst class of its keys
	Keys   []Key       `json:"keys"`            // by file and line
}

// Key is one key of a compose file, or a remark about one.
type Key struct {
	Key     string      `json:"key"` // "services.web.runtime"; empty for the file as a whole
	Class   swarm.Class `json:"class"`
	Service string      `json:"service,omitempty"`
	File    string      `json:"file"`
	Line    int         `json:"line,omitempty"` // from 1; 0 if unknown
	Text    string      `json:"text,omitempty"`
}

// maxReports is how many files one Validate takes.
const maxReports = 10_000

// Validate looks at each compose file at or below a path of the tree: files
// with the usual names, and all YAML files that have services. It fails only
// if the tree cannot be read; what is wrong with a file is in its report.
func Validate(ctx context.Context, limits Limits, tree Tree, root string) (Report, error) {
	from := confine(tree)
	found, _, err := from.files(path.Clean("./"+root), maxReports)
	var refused *refusal
	if errors.As(err, &refused) {
		found, err = composeFiles(from, path.Clean("./"+root))
	}
	if err != nil {
		return Report{}, fmt.Errorf("look for compose files in %s: %w", cmp.Or(root, "."), err)
	}

	worker := worker{limits: limits.withDefaults()}
	defer worker.close()
	var report Report
	for _, project := range projects(from, found) {
		result, err := worker.render(ctx, confine(tree), project)
		if err != nil {
			return Report{}, fmt.Errorf("validate %s: %w", project.Files[0], err)
		}
		report.Files = append(report.Files, fileReport(project, result))
	}
	slices.SortFunc(report.Files, func(a, b FileReport) int { return cmp.Compare(a.File, b.File) })
	return report, nil
}

// composeFiles lists what can be listed of a folder that holds something that
// no node could get, such as a socket or a symlink that leads outside.
func composeFiles(from *confined, root string) ([]file, error) {
	entries, err := from.list(root)
	if err != nil {
		return nil, err
	}
	var found []file
	for _, entry := range entries {
		name := path.Join(root, entry.Name)
		switch entry.Kind {
		case KindFile:
			found = append(found, file{Path: name, Size: entry.Size})
		case KindFolder:
			inner, err := composeFiles(from, name)
			if err != nil {
				return nil, err
			}
			found = append(found, inner...)
		}
		if len(found) > maxReports {
			return nil, fmt.Errorf("%s has more than %d files; name a folder of it", root, maxReports)
		}
	}
	return found, nil
}

// projects groups files: those of the usual names with their override, and
// all others each alone.
func projects(from *confined, found []file) []Project {
	var list []Project
	usual := map[string]bool{}
	for _, item := range found {
		dir, base := path.Split(item.Path)
		dir = strings.TrimSuffix(dir, "/")
		extension := path.Ext(base)
		if extension != ".yaml" && extension != ".yml" || usual[item.Path] {
			continue
		}
		if entries, err := from.list(dir); err == nil {
			files, problem := Discover(entries)
			if problem == "" && slices.Contains(files, base) {
				project := Project{Dir: dir}
				for _, name := range files {
					project.Files = append(project.Files, path.Join(dir, name))
					usual[path.Join(dir, name)] = true
				}
				list = append(list, project)
				continue
			}
		}
		if looksLikeCompose(from, item) {
			list = append(list, Project{Dir: dir, Files: []string{item.Path}})
		}
	}
	return list
}

// looksLikeCompose reports whether a YAML file has services, without parsing
// it: what it is made of is not known yet.
func looksLikeCompose(from *confined, item file) bool {
	if _, problem := Discover([]Entry{{Name: path.Base(item.Path), Kind: KindFile}}); problem == "" {
		return true
	}
	data, err := from.read(item.Path, maxFileBytes)
	if err != nil {
		return false
	}
	for text := range strings.Lines(string(data)) {
		if strings.HasPrefix(text, "services:") || strings.HasPrefix(text, "include:") {
			return true
		}
	}
	return false
}

func fileReport(project Project, result rendered) FileReport {
	report := FileReport{File: project.Files[0], Stack: string(result.Stack.Name), Result: swarm.Honoured, Keys: []Key{}}
	for _, f := range result.Findings {
		report.Keys = append(report.Keys, Key{Key: f.Rule, Class: f.Class, Service: f.Service, File: f.File, Line: f.Line, Text: f.Text})
		switch {
		case f.Class == swarm.Refused:
			report.Result = swarm.Refused
		case f.Class == swarm.Warned && report.Result == swarm.Honoured:
			report.Result = swarm.Warned
		}
	}
	return report
}

// Refused reports whether a file of the report is refused.
func (r Report) Refused() bool {
	return slices.ContainsFunc(r.Files, func(f FileReport) bool { return f.Result == swarm.Refused })
}

// String is the report for people: a line for each file, and one for each key
// that is not simply honoured.
func (r Report) String() string {
	var b strings.Builder
	for _, f := range r.Files {
		b.WriteString(f.String())
	}
	if len(r.Files) == 0 {
		b.WriteString("no compose file found\n")
	}
	return b.String()
}

// String is one file of the report for people.
func (f FileReport) String() string {
	var b strings.Builder
	count := map[swarm.Class]int{}
	for _, key := range f.Keys {
		count[key.Class]++
	}
	fmt.Fprintf(&b, "%s: %s: %d honoured, %d warned, %d refused\n", f.File, f.Result, count[swarm.Honoured], count[swarm.Warned], count[swarm.Refused])
	for _, class := range []swarm.Class{swarm.Refused, swarm.Warned} {
		for _, key := range f.Keys {
			if key.Class == class {
				finding := swarm.Finding{Rule: key.Key, File: key.File, Line: key.Line, Text: key.Text}
				fmt.Fprintf(&b, "  %-8s %s\n", class, FindingText(finding))
			}
		}
	}
	return b.String()
}
