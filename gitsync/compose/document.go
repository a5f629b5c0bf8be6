package compose

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// document is one compose file as it is written.
type document struct {
	name    string // path in the tree
	top     *yaml.Node
	env     lookup // what its ${} mean
	base    string // folder that its relative paths start from
	library bool   // reached by extends.file alone: its services are not run
}

// parse reads one compose file. It is safe on any bytes.
func parse(name string, data []byte) (*document, *located) {
	if found := checkText(name, data); found != nil {
		return nil, found
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(data)))
	var root yaml.Node
	if err := decoder.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &located{place{name, 1}, "the file is empty"}
		}
		return nil, yamlError(name, data, err)
	}
	var second yaml.Node
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, yamlError(name, data, err)
		}
		return nil, &located{place{name, second.Line}, "a second YAML document begins here; a compose file has one"}
	}

	top := &root
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		top = root.Content[0]
	}
	if top.Kind != yaml.MappingNode {
		return nil, &located{place{name, max(top.Line, 1)}, "a compose file is a mapping, with services: at its top"}
	}
	doc := &document{name: name, top: top}
	if found := doc.measure(); found != nil {
		return nil, found
	}
	return doc, nil
}

// yamlPlaces are what go-yaml says of a place. Its parser counts lines from 0
// and does not know line 0, its scanner counts from 1.
var yamlPlaces = regexp.MustCompile(`(?:line (\d+)(?:, column \d+)?|<unknown position>|offset (\d+))(: )?`)

func yamlError(name string, data []byte, err error) *located {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	at := place{name, 1}
	if found := yamlPlaces.FindAllStringSubmatch(text, -1); len(found) > 0 {
		last := found[len(found)-1]
		if number, bad := strconv.Atoi(last[1]); bad == nil {
			at.line = number
			if strings.HasSuffix(fmt.Sprintf("%T", err), "ParserError") && !strings.Contains(text, "unknown anchor") {
				at.line++
			}
		}
		if offset, bad := strconv.Atoi(last[2]); bad == nil {
			at.line = line(data, min(max(offset, 0), len(data)))
		}
		text = strings.ReplaceAll(yamlPlaces.ReplaceAllString(text, ""), " at ", ": ")
	}
	return &located{at, "is not YAML: " + text}
}

// measure refuses what would grow beyond all bounds when aliases are written
// out, and keys that are given twice.
func (d *document) measure() *located {
	m := measuring{doc: d, open: map[*yaml.Node]bool{}}
	return m.visit(d.top, 0)
}

type measuring struct {
	doc     *document
	nodes   int
	visits  int
	aliased int // how many aliases the walk is inside of
	outer   int // line of the outermost of them
	open    map[*yaml.Node]bool
}

func (m *measuring) visit(node *yaml.Node, depth int) *located {
	at := place{m.doc.name, node.Line}
	m.visits++
	if m.aliased == 0 {
		m.nodes++
	}
	switch {
	case m.nodes > maxNodes:
		return &located{at, fmt.Sprintf("the file has more than %d YAML nodes; split it", maxNodes)}
	case m.visits > maxVisits:
		return &located{place{m.doc.name, m.outer}, fmt.Sprintf("the file's aliases (*) stand for more than %d YAML nodes", maxVisits)}
	case depth > maxNesting:
		return &located{at, fmt.Sprintf("YAML is nested deeper than %d", maxNesting)}
	}

	if node.Kind == yaml.AliasNode {
		if m.open[node.Alias] {
			return &located{at, fmt.Sprintf("alias *%s stands inside of what it stands for", node.Value)}
		}
		m.open[node.Alias] = true
		if m.aliased == 0 {
			m.outer = node.Line
		}
		m.aliased++
		defer func() { m.aliased--; delete(m.open, node.Alias) }()
		return m.visit(node.Alias, depth+1)
	}
	if node.Anchor != "" && m.aliased == 0 {
		m.open[node] = true
		defer delete(m.open, node)
	}
	if found := m.keys(node); found != nil {
		return found
	}
	for _, child := range node.Content {
		if found := m.visit(child, depth+1); found != nil {
			return found
		}
	}
	return nil
}

func (m *measuring) keys(node *yaml.Node) *located {
	if node.Kind != yaml.MappingNode || m.aliased > 0 {
		return nil
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		if key.Kind != yaml.ScalarNode {
			return &located{place{m.doc.name, key.Line}, "a key is a text"}
		}
		if first, ok := seen[key.Value]; ok && key.Value != "<<" {
			return &located{place{m.doc.name, key.Line}, fmt.Sprintf("%s is given twice, first on line %d; remove one", key.Value, first)}
		}
		seen[key.Value] = key.Line
	}
	return nil
}

// pair is one key of a mapping, with its value.
type pair struct{ key, value *yaml.Node }

// pairs are the keys of a mapping with what << brings in; its own keys win.
// Values that an alias stands for are resolved, and what !reset removes is
// left out.
func pairs(node *yaml.Node) []pair {
	return merged(nil, map[string]bool{}, resolve(node))
}

func merged(list []pair, seen map[string]bool, node *yaml.Node) []pair {
	if node == nil || node.Kind != yaml.MappingNode {
		return list
	}
	var merges []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], resolve(node.Content[i+1])
		switch {
		case key.Value == "<<" && key.Tag == "!!merge":
			merges = append(merges, value)
		case !seen[key.Value]:
			seen[key.Value] = true
			if value.Tag != "!reset" {
				list = append(list, pair{key, value})
			}
		}
	}
	for _, merge := range merges {
		if merge.Kind == yaml.SequenceNode {
			for _, item := range merge.Content {
				list = merged(list, seen, resolve(item))
			}
			continue
		}
		list = merged(list, seen, merge)
	}
	return list
}

// resolve follows an alias.
func resolve(node *yaml.Node) *yaml.Node {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

// under is the value of a mapping's key, or nil.
func under(node *yaml.Node, key string) *yaml.Node {
	for _, p := range pairs(node) {
		if p.key.Value == key {
			return p.value
		}
	}
	return nil
}

// items are the nodes of a list, or the node itself if it is a text, or
// nothing.
func items(node *yaml.Node) []*yaml.Node {
	node = resolve(node)
	switch {
	case node == nil:
		return nil
	case node.Kind == yaml.ScalarNode && node.Tag != "!!null":
		return []*yaml.Node{node}
	case node.Kind != yaml.SequenceNode:
		return nil
	}
	list := make([]*yaml.Node, 0, len(node.Content))
	for _, item := range node.Content {
		list = append(list, resolve(item))
	}
	return list
}

// text is a scalar with its variables written out, "" if that fails or if
// node is none.
func (d *document) text(node *yaml.Node) string {
	node = resolve(node)
	if node == nil || node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		return ""
	}
	text, err := substitute(node.Value, d.env)
	if err != nil {
		return ""
	}
	return text
}
