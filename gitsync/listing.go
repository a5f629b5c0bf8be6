package gitsync

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/gitswarm/gitswarm/swarm"
)

// ListingFile is the file that lists a repository's stacks.
const ListingFile = "gitswarm.yaml"

var errNoListing = errors.New("no gitswarm.yaml")

// listing is a gitswarm.yaml.
type listing map[string][]listed // by environment

// listed is one stack of an environment, as written.
type listed struct {
	path      string
	name      string
	files     []string
	envFiles  []string
	variables map[string]string
	line      int
}

// findListed reads the stacks that the nearest gitswarm.yaml lists.
func findListed(tree *Tree, at, environment string) ([]Found, error) {
	base := at
	there, err := tree.exists(path.Join(base, ListingFile))
	if err == nil && !there && at != "" {
		base = ""
		there, err = tree.exists(ListingFile)
	}
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, errNoListing
	}

	file := path.Join(base, ListingFile)
	data, err := tree.ReadFile(file, maxListing)
	if errors.Is(err, ErrTooLarge) {
		return nil, refusal(file, 1, fmt.Sprintf("the file is larger than %d bytes", maxListing))
	}
	if err != nil {
		return nil, err
	}
	all, findings := parseListing(file, data)
	if len(findings) > 0 {
		return nil, &ListingError{Findings: findings}
	}
	chosen, err := choose(all, file, environment)
	if err != nil {
		return nil, err
	}

	var found []Found
	for _, stack := range chosen {
		if f := stack.find(tree, base, file); at == base || f.Dir == at || strings.HasPrefix(f.Dir, at+"/") {
			found = append(found, f)
		}
	}
	return found, nil
}

// choose picks the environment; the only one needs no name.
func choose(all listing, file, environment string) ([]listed, error) {
	names := slices.Sorted(maps.Keys(all))
	if environment == "" && len(names) == 1 {
		environment = names[0]
	}
	chosen, ok := all[environment]
	switch {
	case ok:
		return chosen, nil
	case environment == "":
		return nil, refusal(file, 1, "it has several environments: select one of "+strings.Join(names, ", ")+" with --environment")
	default:
		return nil, refusal(file, 1, fmt.Sprintf("it has no environment %q: add it, or select one of %s", environment, strings.Join(names, ", ")))
	}
}

// find checks a listed stack against the tree.
func (l listed) find(tree *Tree, base, file string) (f Found) {
	f = Found{Name: swarm.StackName(l.name), Variables: l.variables, file: file, line: l.line}
	dir, ok := inside(base, l.path)
	if !ok {
		f.refuse(file, l.line, "path", fmt.Sprintf("path %q %v", l.path, ErrEscapes))
		return f
	}
	f.Dir = dir
	defer func() {
		if f.Name == "" { // refused: the likeliest name, so that what runs is found
			f.Name = folderName(path.Base(dir))
		}
	}()

	switch entry, err := tree.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		f.refuse(file, l.line, "path", fmt.Sprintf("there is no folder %q: add it, or correct the path", dir))
		return f
	case err != nil:
		f.refuse(file, l.line, "path", err.Error())
		return f
	case !entry.IsDir():
		f.refuse(file, l.line, "path", fmt.Sprintf("path %q is a file: give its folder, and the file in `files:`", dir))
		return f
	}
	f.Files = f.existing(tree, file, l, "files", l.files)
	f.EnvFiles = f.existing(tree, file, l, "env_files", l.envFiles)
	if len(l.files) == 0 {
		l.discover(tree, file, &f)
	} else if f.Name == "" && len(f.Findings) == 0 {
		f.named(tree)
	}
	return f
}

// discover looks for compose files as in a folder that is not listed.
func (l listed) discover(tree *Tree, file string, f *Found) {
	stack, ok, err := inFolder(tree, f.Dir)
	switch {
	case err != nil:
		f.refuse(file, l.line, "path", err.Error())
	case !ok:
		f.refuse(file, l.line, "path", fmt.Sprintf("folder %s has no compose file: add compose.yaml, or name others in `files:`", shown(f.Dir)))
	default:
		f.Files = stack.Files
		if l.name != "" { // what is wrong with the file's own name does not matter
			stack.Findings = slices.DeleteFunc(stack.Findings, func(x swarm.Finding) bool { return x.Rule == "name" })
		} else {
			f.Name, f.file, f.line = stack.Name, stack.file, stack.line
		}
		f.Findings = append(f.Findings, stack.Findings...)
	}
}

// existing makes paths from the stack's folder into paths from the root.
func (f *Found) existing(tree *Tree, file string, l listed, rule string, names []string) []string {
	var files []string
	for _, name := range names {
		full, ok := inside(f.Dir, name)
		if !ok {
			f.refuse(file, l.line, rule, fmt.Sprintf("%s: %q %v", rule, name, ErrEscapes))
			continue
		}
		entry, err := tree.Stat(full)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			f.refuse(file, l.line, rule, fmt.Sprintf("%s: there is no file %q", rule, full))
		case err != nil:
			f.refuse(file, l.line, rule, fmt.Sprintf("%s: %v", rule, err))
		case entry.IsDir():
			f.refuse(file, l.line, rule, fmt.Sprintf("%s: %q is a folder", rule, full))
		default:
			files = append(files, full)
		}
	}
	return files
}

// inside joins a relative path; false if that leads out of the tree.
func inside(base, name string) (string, bool) {
	if name == "" || strings.HasPrefix(name, "/") {
		return "", false
	}
	joined := path.Join(base, name)
	if joined == "." {
		return "", true
	}
	return joined, joined != ".." && !strings.HasPrefix(joined, "../")
}

// maxFindings is how many mistakes of one file are told.
const maxFindings = 20

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// reading is a gitswarm.yaml while it is read.
type reading struct {
	file     string
	findings []swarm.Finding
	values   int // read so far: aliases may repeat parts
}

// parseListing reads a gitswarm.yaml. Whatever is not understood is refused
// with its line.
func parseListing(file string, data []byte) (listing, []swarm.Finding) {
	r := &reading{file: file}
	document, err := parseYAML(data)
	if err != nil {
		line, text := yamlError(err)
		r.refuse(line, "gitswarm.yaml", "%s", text)
		return nil, r.findings
	}

	all := listing{}
	r.mapping(document, "gitswarm.yaml", map[string]func(*yaml.Node){
		"environments": func(node *yaml.Node) {
			r.anyMapping(node, "environments", func(name string, value *yaml.Node) {
				if !validName.MatchString(name) {
					r.refuse(value.Line, "environments", "environment %q: use lower-case letters, digits, '-' and '_'", plain(name, 80))
				}
				all[name] = r.environment(value)
			})
		},
	})
	if len(all) == 0 && len(r.findings) == 0 {
		r.refuse(1, "environments", "it lists no environment: write `environments: {production: {stacks: [{path: FOLDER}]}}`")
	}
	if len(r.findings) > 0 {
		return nil, r.findings
	}
	return all, nil
}

func (r *reading) environment(node *yaml.Node) (stacks []listed) {
	r.mapping(node, "environment", map[string]func(*yaml.Node){
		"stacks": func(node *yaml.Node) {
			r.sequence(node, "stacks", func(item *yaml.Node) { stacks = append(stacks, r.stack(item)) })
		},
	})
	return stacks
}

func (r *reading) stack(node *yaml.Node) listed {
	l := listed{line: node.Line}
	before := len(r.findings)
	r.mapping(node, "stack", map[string]func(*yaml.Node){
		"path":      func(node *yaml.Node) { l.path = r.text(node, "path") },
		"files":     func(node *yaml.Node) { l.files = r.texts(node, "files") },
		"env_files": func(node *yaml.Node) { l.envFiles = r.texts(node, "env_files") },
		"name": func(node *yaml.Node) {
			if l.name = r.text(node, "name"); !validName.MatchString(l.name) {
				r.refuse(node.Line, "name", "%s", badName(l.name))
			}
		},
		"variables": func(node *yaml.Node) {
			l.variables = map[string]string{}
			r.anyMapping(node, "variables", func(name string, value *yaml.Node) {
				if !variableName.MatchString(name) {
					r.refuse(value.Line, "variables", "variable %q is no variable's name", plain(name, 80))
				}
				l.variables[name] = r.text(value, "variables."+name)
			})
		},
	})
	if l.path == "" && len(r.findings) == before {
		r.refuse(node.Line, "path", "the stack has no path: write `path: FOLDER`")
	}
	return l
}

// mapping reads a mapping whose keys are known.
func (r *reading) mapping(node *yaml.Node, what string, keys map[string]func(*yaml.Node)) {
	r.anyMapping(node, what, func(key string, value *yaml.Node) {
		if read, ok := keys[key]; ok {
			read(value)
			return
		}
		known := strings.Join(slices.Sorted(maps.Keys(keys)), ", ")
		r.refuse(value.Line, key, "key %q is not known in %s: it has %s", plain(key, 80), what, known)
	})
}

func (r *reading) anyMapping(node *yaml.Node, what string, each func(key string, value *yaml.Node)) {
	if node = r.follow(node); node.Kind != yaml.MappingNode {
		r.refuse(node.Line, what, "%s must be a mapping", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content) && r.more(node); i += 2 {
		key, value := node.Content[i], *node.Content[i+1]
		if key.Kind != yaml.ScalarNode || seen[key.Value] {
			r.refuse(key.Line, what, "key %q is there twice, or is no name", plain(key.Value, 80))
			continue
		}
		seen[key.Value] = true
		if value.Line = max(key.Line, 1); value.Kind == yaml.AliasNode {
			value = *r.follow(&value)
		}
		each(key.Value, &value)
	}
}

func (r *reading) sequence(node *yaml.Node, what string, each func(*yaml.Node)) {
	if node = r.follow(node); node.Kind != yaml.SequenceNode {
		r.refuse(node.Line, what, "%s must be a list", what)
		return
	}
	for _, item := range node.Content {
		if !r.more(node) {
			return
		}
		each(r.follow(item))
	}
}

func (r *reading) text(node *yaml.Node, what string) string {
	node = r.follow(node)
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" || strings.ContainsRune(node.Value, 0) {
		r.refuse(node.Line, what, "%s must be a text; quote it if need be", what)
		return ""
	}
	return node.Value
}

func (r *reading) texts(node *yaml.Node, what string) (texts []string) {
	r.sequence(node, what, func(item *yaml.Node) { texts = append(texts, r.text(item, what)) })
	return texts
}

// follow goes from an alias to what it stands for; the schema's depth ends it.
func (r *reading) follow(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode && node.Alias != nil {
		return node.Alias
	}
	return node
}

// more counts values, which aliases could multiply, and mistakes.
func (r *reading) more(node *yaml.Node) bool {
	if r.values++; r.values == 100_000 {
		r.refuse(node.Line, "gitswarm.yaml", "it has too many values")
	}
	return r.values < 100_000 && len(r.findings) < maxFindings
}

func (r *reading) refuse(line int, rule, format string, args ...any) {
	if len(r.findings) < maxFindings {
		r.findings = append(r.findings, swarm.Finding{Rule: rule, Class: swarm.Refused, File: r.file, Line: max(line, 1), Text: fmt.Sprintf(format, args...)})
	}
}

var yamlLine = regexp.MustCompile(`(?:line |^\D{0,40}\[?)(\d+)[:,]?`)

// yamlError takes the line out of a YAML error.
func yamlError(err error) (int, string) {
	text := plain(strings.TrimPrefix(err.Error(), "yaml: "), 200)
	line := 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
	}
	return line, "it is no valid YAML: " + text
}
