package gitsync

import (
	"bytes"
	"path"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/gitswarm/gitswarm/swarm"
)

// mayBeNamed spares the parsing of most files: a key "name" looks like this.
var mayBeNamed = regexp.MustCompile(`(?:^|[\s{,"'?])name["']?\s*:`)

var nameLine = regexp.MustCompile(`(?m)^["']?name["']?[ \t]*:[ \t]+["']?([^"'#\s]+)`)

// folderName is how compose turns a folder's name into a project's.
func folderName(folder string) swarm.StackName {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return -1
	}, strings.ToLower(folder))
	name = strings.TrimLeft(name, "_-")
	if len(name) > 63 {
		return ""
	}
	return swarm.StackName(name)
}

// named is what a compose file says its project's name is.
type named struct {
	text string // empty: nothing
	line int    // from 1
}

// stackName reads `name:` of a compose file. What is wrong with the rest of
// the file is for its loading to tell; the name must be found all the same.
func (t *Tree) stackName(file string) (named, error) {
	_, entry, err := t.find(file)
	if err != nil {
		return named{}, t.failed(file, err)
	}
	t.objects.mu.Lock()
	name, ok := t.objects.names[entry.hash]
	t.objects.mu.Unlock()
	if ok {
		return name, nil
	}

	data, err := t.ReadFile(file, maxListing)
	if err != nil {
		return named{}, err
	}
	name = readName(data)

	t.objects.mu.Lock()
	defer t.objects.mu.Unlock()
	if len(t.objects.names) > 2*maxStacks {
		clear(t.objects.names)
	}
	t.objects.names[entry.hash] = name
	return name, nil
}

func readName(data []byte) (name named) {
	if !mayBeNamed.Match(data) {
		return named{}
	}
	if m := nameLine.FindSubmatchIndex(data); m != nil {
		name = named{text: string(data[m[2]:m[3]]), line: 1 + bytes.Count(data[:m[0]], []byte{'\n'})}
	}
	document, err := parseYAML(data)
	if err != nil || document.Kind != yaml.MappingNode {
		return name
	}
	for i := 0; i+1 < len(document.Content); i += 2 {
		key, value := document.Content[i], document.Content[i+1]
		if key.Value == "name" && value.Kind == yaml.ScalarNode {
			return named{text: value.Value, line: key.Line}
		}
	}
	return named{}
}

// parseYAML returns the one document of a file, without following aliases.
func parseYAML(data []byte) (document *yaml.Node, err error) {
	defer recovered(&err)
	var node yaml.Node
	if err := yaml.Unmarshal(data, &node); err != nil {
		return nil, err
	}
	if node.Kind != yaml.DocumentNode || len(node.Content) != 1 {
		return &yaml.Node{}, nil
	}
	return node.Content[0], nil
}

// includes are the files that a stack's compose files include by a plain path.
func includes(tree *Tree, stack Found) map[string]bool {
	included := map[string]bool{}
	for _, file := range stack.Files {
		data, err := tree.ReadFile(file, maxListing)
		if err != nil {
			continue
		}
		var parsed struct {
			Include []yaml.Node `yaml:"include"`
		}
		document, err := parseYAML(data)
		if err != nil || document.Decode(&parsed) != nil {
			continue
		}
		for _, node := range parsed.Include {
			for _, name := range includedNames(node) {
				included[path.Join(stack.Dir, name)] = true
			}
		}
	}
	return included
}

// includedNames reads the forms of include: a path, {path: a path}, {path: [paths]}.
func includedNames(node yaml.Node) []string {
	var long struct {
		Path yaml.Node `yaml:"path"`
	}
	if node.Kind == yaml.MappingNode && node.Decode(&long) == nil {
		node = long.Path
	}
	switch node.Kind {
	case yaml.ScalarNode:
		return []string{node.Value}
	case yaml.SequenceNode:
		var names []string
		_ = node.Decode(&names)
		return names
	}
	return nil
}
