package compose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"

	"github.com/gitswarm/gitswarm/swarm"
)

// rendered is what the child makes of a project. With a refused finding there
// is no stack.
type rendered struct {
	Stack    swarm.Stack       `cbor:"1,keyasint,omitempty"`
	Findings []swarm.Finding   `cbor:"2,keyasint,omitempty"`
	Inline   map[string][]byte `cbor:"3,keyasint,omitempty"` // contents that the compose file holds itself, by key
	Paths    map[string]string `cbor:"4,keyasint,omitempty"` // the file of the tree of all others, by key
}

func (r rendered) refused() bool {
	return slices.ContainsFunc(r.Findings, func(f swarm.Finding) bool { return f.Class == swarm.Refused })
}

// render loads one project by the rules of the table. Scratch is a folder that
// is empty and its own. An error means that the tree could not be read; all
// else is a finding.
func render(ctx context.Context, table *rule, from source, project Project, scratch string) (result rendered, err error) {
	l := &loading{
		project: project, from: from, texts: map[string][]byte{}, seen: map[string]bool{},
		classes: &classification{rules: table, places: map[string]place{}},
	}
	defer func() {
		if r := recover(); r != nil {
			l.refuse(l.first(), "", "", "cannot be loaded: %v; please report this file", r)
			result, err = l.end(rendered{}, nil)
		}
	}()

	stack, err := l.stack(ctx, scratch)
	if _, ok := errors.AsType[fatal](err); ok {
		return rendered{}, err
	}
	return l.end(stack, err)
}

// stack does the work; what is wrong with the project is in l.problems.
func (l *loading) stack(ctx context.Context, scratch string) (rendered, error) {
	l.project.Dir = strings.TrimPrefix(path.Clean("/"+l.project.Dir), "/")
	if err := l.discover(); err != nil {
		return rendered{}, err
	}
	env, err := l.environment(l.project)
	if err != nil {
		return rendered{}, l.refuseError(place{file: inside(l.project.Dir, ".env")}, "", "", err)
	}
	for _, name := range l.project.Files {
		if err := l.open(place{file: name}, "", name, l.project.Dir, env, false, 0); err != nil {
			return rendered{}, err
		}
	}
	l.name(env)
	l.bounds()
	stops := l.stops()
	l.overlooked()
	if stops {
		return rendered{}, nil
	}

	loaded, err := l.compose(ctx, scratch, env)
	if err != nil {
		l.refuseComposeError(scratch, err)
		return rendered{}, nil
	}
	c := conversion{loading: l, loaded: loaded}
	return c.stack()
}

// stops reports whether what was found so far makes loading pointless.
func (l *loading) stops() bool {
	return len(l.problems) > 0 && slices.ContainsFunc(l.problems, func(f swarm.Finding) bool { return f.Class == swarm.Refused }) ||
		slices.ContainsFunc(l.classes.findings, func(f finding) bool { return f.unknown })
}

// end adds the findings to the result. Those of files that are only extended
// do not count: what a service takes from them is looked at when it is merged.
func (l *loading) end(result rendered, err error) (rendered, error) {
	if err != nil {
		return rendered{}, err
	}
	for _, f := range l.classes.findings {
		if !f.library || f.Class != swarm.Refused || f.unknown {
			l.problems = append(l.problems, f.Finding)
		}
	}
	l.problems = append(l.problems, result.Findings...)
	slices.SortStableFunc(l.problems, func(a, b swarm.Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Text, b.Text))
	})
	result.Findings = slices.Compact(l.problems)
	if result.refused() {
		return rendered{Findings: result.Findings}, nil
	}
	return result, nil
}

// first is where a finding about the whole project stands.
func (l *loading) first() place {
	if len(l.project.Files) > 0 {
		return place{l.project.Files[0], 1}
	}
	return place{file: cmp.Or(l.project.Dir, ".")}
}

// warn notes what is not honoured, and does no harm.
func (l *loading) warn(at place, rule, service, format string, args ...any) {
	l.problems = append(l.problems, swarm.Finding{
		Rule: rule, Class: swarm.Warned, Service: service, File: at.file, Line: at.line, Text: fmt.Sprintf(format, args...),
	})
}

// discover finds the project's files, unless it names them.
func (l *loading) discover() error {
	if len(l.project.Files) > 0 {
		for i, name := range l.project.Files {
			l.project.Files[i] = strings.TrimPrefix(path.Clean("/"+name), "/")
		}
		return nil
	}
	entries, err := l.from.list(l.project.Dir)
	if err != nil {
		if _, ok := errors.AsType[*refusal](err); !ok {
			return fatal{err}
		}
		return l.refuseError(l.first(), "", "", err)
	}
	files, problem := Discover(entries)
	if problem != "" {
		l.refuse(l.first(), "", "", "%s", problem)
		return nil
	}
	for _, name := range files {
		l.project.Files = append(l.project.Files, path.Join(l.project.Dir, name))
	}
	return nil
}

// Discover picks the compose file of a folder, and the file that overrides
// it. If there is none, or more than one that could be meant, problem says so.
func Discover(entries []Entry) (files []string, problem string) {
	pick := func(names []string) []string {
		var found []string
		for _, name := range names {
			if slices.ContainsFunc(entries, func(e Entry) bool { return e.Name == name && e.Kind != KindFolder }) {
				found = append(found, name)
			}
		}
		return found
	}
	main, override := pick(mainFiles()), pick(overrideFiles())
	switch {
	case len(main) == 0:
		return nil, "the folder has no compose.yaml"
	case len(main) > 1:
		return nil, fmt.Sprintf("the folder has both %s and %s; remove one, or list the files in gitswarm.yaml", main[0], main[1])
	case len(override) > 1:
		return nil, fmt.Sprintf("the folder has both %s and %s; remove one, or list the files in gitswarm.yaml", override[0], override[1])
	}
	return append(main, override...), ""
}

func mainFiles() []string {
	return []string{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}
}

func overrideFiles() []string {
	return []string{"compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml"}
}

// name decides how the stack is called: as the project says, else as its last
// file says, else as its folder.
func (l *loading) name(env map[string]string) {
	at := l.first()
	if l.project.Name == "" {
		for _, doc := range l.docs {
			node := under(doc.top, "name")
			if node == nil || !slices.Contains(l.project.Files, doc.name) {
				continue
			}
			if text := doc.text(node); text != "" {
				l.project.Name, at = text, place{doc.name, node.Line}
			}
		}
	}
	if l.project.Name == "" {
		l.project.Name = loader.NormalizeProjectName(path.Base("/" + l.project.Dir))
	}
	if l.project.Name == "" || loader.NormalizeProjectName(l.project.Name) != l.project.Name {
		l.refuse(at, "name", "", "%q cannot name a stack; use a to z, 0 to 9, - and _, a letter or digit first", l.project.Name)
	}
	env["COMPOSE_PROJECT_NAME"] = l.project.Name
}

var (
	composePath    = regexp.MustCompile(`\b(services|networks|volumes|configs|secrets)\.[\w.\-]+(\[\d+\])?`)
	composeService = regexp.MustCompile(`(?:service|cycle detected:) "?([\w.\-]+)"?`)
)

// refuseComposeError finds the place that compose-go's error speaks of.
func (l *loading) refuseComposeError(scratch string, err error) {
	text := strings.ReplaceAll(err.Error(), scratch+string(filepath.Separator), "")
	rule, service := composePath.FindString(text), ""
	if match := composeService.FindStringSubmatch(text); match != nil {
		service = match[1]
		if rule == "" {
			rule = "services." + service
		}
	}
	at := l.first()
	if found := l.classes.at(rule); rule != "" && found.line > 0 {
		at = found
	}
	for _, doc := range l.docs {
		text = strings.TrimPrefix(text, "validating "+doc.name+": ")
	}
	if rule == "" {
		at = l.mentions(text, at)
	}
	l.refuse(at, rule, service, "%s", text)
}

// mentions finds the first value that an error's last words are about, for
// compose-go does not always say where it was.
func (l *loading) mentions(text string, otherwise place) place {
	words := text[strings.LastIndex(text, ": ")+1:]
	if words = strings.ToLower(strings.Trim(words, ` "'`)); words == "" {
		return otherwise
	}
	for _, doc := range l.docs {
		for _, node := range scalars(nil, doc.top) {
			if strings.Contains(strings.ToLower(doc.text(node)), words) {
				return place{doc.name, node.Line}
			}
		}
	}
	return otherwise
}

// materialise writes the compose and env files to the scratch folder, for
// compose-go opens what include and extends name by itself.
func (l *loading) materialise(scratch string) error {
	if len(l.docs) == len(l.project.Files) {
		return nil
	}
	for name, data := range l.texts {
		target := filepath.Join(scratch, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return fatal{fmt.Errorf("make folder for %s: %w", name, err)}
		}
		if err := os.WriteFile(target, data, 0o600); err != nil {
			return fatal{fmt.Errorf("write %s: %w", name, err)}
		}
	}
	return nil
}
