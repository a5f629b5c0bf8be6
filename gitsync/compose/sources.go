package compose

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/gitswarm/gitswarm/swarm"
)

// source is where files of the tree come from: the tree itself, or the pipe to
// the process that has it. An error is a *refusal, or the tree's own.
type source interface {
	read(name string, limit int64) ([]byte, error)
	list(name string) ([]Entry, error)
	files(name string, limit int) (found []file, isFolder bool, err error)
}

// loading is one project on its way from files to a stack.
type loading struct {
	project  Project
	from     source
	texts    map[string][]byte // compose and env files, by path in the tree
	bytes    int
	docs     []*document
	seen     map[string]bool // files with their folder, as documents
	classes  *classification
	problems []swarm.Finding
}

// fatal is an error that no commit mends: the tree could not be read.
type fatal struct{ error }

// text reads a compose or env file once. At says who names it.
func (l *loading) text(at place, name string) ([]byte, error) {
	if data, ok := l.texts[name]; ok {
		return data, nil
	}
	data, err := l.from.read(name, maxFileBytes)
	if err != nil {
		var refused *refusal
		if errors.As(err, &refused) {
			return nil, err
		}
		return nil, fatal{err}
	}
	l.bytes += len(data)
	if len(l.texts) >= maxFiles || l.bytes > maxTotalBytes {
		return nil, refusef("the stack has more than %d compose and env files, or more than %s of them, at %s", maxFiles, size(maxTotalBytes), at)
	}
	l.texts[name] = data
	return data, nil
}

// inside joins a path as a file writes it to the folder it starts from; the
// result may lie outside of the tree, which reading it will refuse.
func inside(base, name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join(base, name)
}

// refuse notes a problem.
func (l *loading) refuse(at place, rule, service, format string, args ...any) {
	l.problems = append(l.problems, swarm.Finding{
		Rule: rule, Class: swarm.Refused, Service: service, File: at.file, Line: at.line, Text: fmt.Sprintf(format, args...),
	})
}

// refuseError notes an error as a problem. It returns what no commit mends.
func (l *loading) refuseError(at place, rule, service string, err error) error {
	var found *located
	if errors.As(err, &found) {
		l.refuse(found.place, rule, service, "%s", found.text)
		return nil
	}
	if _, ok := errors.AsType[fatal](err); ok {
		return err
	}
	l.refuse(at, rule, service, "%v", err)
	return nil
}

// open reads a compose file, and then those that it includes or extends.
func (l *loading) open(at place, rule, name, base string, env map[string]string, library bool, depth int) error {
	key := strings.Join([]string{name, base, fmt.Sprint(library)}, "\x00")
	if l.seen[key] {
		return nil
	}
	l.seen[key] = true
	if depth > maxDepth {
		l.refuse(at, rule, "", "include and extends lead deeper than %d files", maxDepth)
		return nil
	}

	data, err := l.text(at, name)
	if err != nil {
		return l.refuseError(at, rule, "", err)
	}
	doc, found := parse(name, data)
	if found != nil {
		return l.refuseError(at, rule, "", found)
	}
	doc.env, doc.base, doc.library = either(env), base, library
	l.docs = append(l.docs, doc)
	l.classes.add(doc)
	l.variables(doc)
	l.paths(doc)

	if !library {
		if err := l.includes(doc, env, depth); err != nil {
			return err
		}
	}
	return l.extends(doc, env, depth)
}

// includes opens what include: names.
func (l *loading) includes(doc *document, env map[string]string, depth int) error {
	for i, item := range items(under(doc.top, "include")) {
		rule, at := fmt.Sprintf("include[%d]", i), place{doc.name, item.Line}
		paths, project, envFiles := []*yaml.Node{item}, (*yaml.Node)(nil), (*yaml.Node)(nil)
		if item.Kind == yaml.MappingNode {
			paths, project, envFiles = items(under(item, "path")), under(item, "project_directory"), under(item, "env_file")
		}
		if len(paths) == 0 {
			l.refuse(at, rule, "", "include names no path")
			continue
		}
		if !l.named(doc, append(slices.Clone(paths), append(items(envFiles), items(project)...)...), rule, "") {
			continue
		}

		base := path.Dir(inside(doc.base, doc.text(paths[0])))
		if project != nil {
			base = inside(doc.base, doc.text(project))
		}
		inner, err := l.includeEnv(doc, at, rule, base, envFiles, env)
		if err != nil {
			return err
		}
		for _, node := range paths {
			if err := l.open(place{doc.name, node.Line}, rule, inside(doc.base, doc.text(node)), base, inner, false, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// includeEnv is the variables of an included file: those of the file that
// includes it, then its own env files or the .env of its folder.
func (l *loading) includeEnv(doc *document, at place, rule, base string, envFiles *yaml.Node, env map[string]string) (map[string]string, error) {
	names := []string{inside(base, ".env")}
	if list := items(envFiles); len(list) > 0 {
		names = nil
		for _, node := range list {
			names = append(names, inside(doc.base, doc.text(node)))
		}
	}
	inner := map[string]string{}
	for _, name := range names {
		data, err := l.text(at, name)
		if absent(err) && envFiles == nil {
			continue
		}
		if err == nil {
			vars, found := parseEnv(name, data, either(env, inner))
			if found != nil {
				err = found
			}
			for key, value := range vars {
				inner[key] = value
			}
		}
		if err != nil {
			if err := l.refuseError(at, rule, "", err); err != nil {
				return nil, err
			}
		}
	}
	for key, value := range env {
		inner[key] = value
	}
	return inner, nil
}

// extends opens the files that services extend.
func (l *loading) extends(doc *document, env map[string]string, depth int) error {
	for _, service := range pairs(under(doc.top, "services")) {
		node := under(under(service.value, "extends"), "file")
		if node == nil {
			continue
		}
		rule := "services." + service.key.Value + ".extends.file"
		if !l.named(doc, []*yaml.Node{node}, rule, service.key.Value) {
			continue
		}
		name := inside(doc.base, doc.text(node))
		if err := l.open(place{doc.name, node.Line}, rule, name, path.Dir(name), env, true, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// named refuses paths that are not relative, or lead outside of the tree. It
// reports whether all may be read.
func (l *loading) named(doc *document, nodes []*yaml.Node, rule, service string) bool {
	fine := true
	for _, node := range nodes {
		if _, err := substitute(node.Value, doc.env); err != nil {
			fine = false // its variables are refused by themselves
			continue
		}
		if problem := escapes(doc.base, doc.text(node)); problem != "" {
			l.refuse(place{doc.name, node.Line}, rule, service, "%s", problem)
			fine = false
		}
	}
	return fine
}

// escapes says why a path that a file writes cannot be read, or "".
func escapes(base, name string) string {
	switch {
	case name == "":
		return "is not a path"
	case strings.Contains(name, "://") || strings.HasPrefix(name, "git@"):
		return fmt.Sprintf("%s is on another machine; copy it into the repository", name)
	case path.IsAbs(name) || strings.HasPrefix(name, "~") || strings.Contains(name, `\`):
		return fmt.Sprintf("%s is a path of a machine; write one that is relative to %s", name, folderName(base))
	case !below(path.Join(base, name)):
		return fmt.Sprintf("%s is outside of the repository; only files of the repository can be named", name)
	}
	return ""
}

func folderName(base string) string {
	if base == "" || base == "." {
		return "the root of the repository"
	}
	return base
}
