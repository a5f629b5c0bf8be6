package compose

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/gitswarm/gitswarm/swarm"
)

// rule is what the table says of one key: a node of a tree that has the shape
// of a compose file.
type rule struct {
	below   map[string]*rule // by key, "*" for any
	classes []KeyClass       // those of values first
	free    bool             // what is below is not looked at
}

// rules builds the tree of the table.
func rules(table []KeyClass) *rule {
	root := &rule{below: map[string]*rule{}}
	for _, row := range table {
		at := root
		for _, part := range keyParts(row.Key) {
			if part == "**" {
				at.free = true
				break
			}
			next := at.below[part]
			if next == nil {
				next = &rule{below: map[string]*rule{}}
				at.below[part] = next
			}
			at = next
		}
		at.classes = append(at.classes, row)
		slices.SortStableFunc(at.classes, func(a, b KeyClass) int { return len(b.Value) - len(a.Value) })
	}
	return root
}

// keyParts splits a key of the table at its dots; items of a list are their
// list's.
func keyParts(key string) []string {
	name, quoted, found := strings.Cut(key, `."`)
	parts := strings.Split(strings.ReplaceAll(name, "[]", ""), ".")
	if found {
		parts = append(parts, strings.TrimSuffix(quoted, `"`))
	}
	return parts
}

// key is the rule of a key below r, or nil if the key is unknown.
func (r *rule) key(name string) *rule {
	if next := r.below[name]; next != nil {
		return next
	}
	return r.below["*"]
}

// class is the table's row for a value of r.
func (r *rule) class(value string) KeyClass {
	value = strings.ToLower(value)
	for _, row := range r.classes {
		prefix, any := strings.CutSuffix(row.Value, "*")
		if row.Value == "" || value == row.Value || any && strings.HasPrefix(value, prefix) {
			return row
		}
	}
	return KeyClass{Class: swarm.Honoured}
}

// extension reports whether a key is the user's own: neither gitswarm's, nor
// the name of something, which may begin with x- too.
func extension(key string, in *rule) bool {
	return strings.HasPrefix(key, "x-") && key != "x-gitswarm" && in.key(key) == nil
}

// finding is a Finding with what decides whether it counts.
type finding struct {
	swarm.Finding
	library bool
	unknown bool // compose-go would refuse it, without a place
}

// classification is every key of the stack's files, with its class and place.
type classification struct {
	rules    *rule
	findings []finding
	places   map[string]place // by path: "services.web.ports[0]"
	doc      *document
}

// add classes the keys of one file. Of files that give the same key, the one
// that is added last is where it stands.
func (c *classification) add(doc *document) {
	c.doc = doc
	c.mapping(c.rules, doc.top, "", "")
}

func (c *classification) mapping(in *rule, node *yaml.Node, at, service string) {
	for _, p := range pairs(node) {
		key := p.key.Value
		name := key
		if at != "" {
			name = at + "." + key
		}
		if at == "services" {
			service = key
		}
		c.note(name, p.key.Line)

		next := in.key(key)
		switch {
		case extension(key, in):
			c.report(swarm.Honoured, name, service, p.key.Line, "the user's own: not read")
		case next == nil:
			c.report(swarm.Refused, name, service, p.key.Line, "is unknown"+suggest(key, in))
			c.findings[len(c.findings)-1].unknown = true
		default:
			c.value(next, p, name, service)
		}
	}
}

func (c *classification) value(in *rule, p pair, at, service string) {
	if len(in.classes) > 0 {
		row := in.class(c.doc.text(p.value))
		c.report(row.Class, at, service, p.key.Line, row.Text)
	}
	if in.free {
		return
	}
	switch p.value.Kind {
	case yaml.MappingNode:
		c.mapping(in, p.value, at, service)
	case yaml.SequenceNode:
		for i, item := range p.value.Content {
			name := fmt.Sprintf("%s[%d]", at, i)
			c.note(name, item.Line)
			if item = resolve(item); item.Kind == yaml.MappingNode {
				c.mapping(in, item, name, service)
			}
		}
	}
}

func (c *classification) note(name string, line int) {
	if _, ok := c.places[name]; !ok || !c.doc.library {
		c.places[name] = place{c.doc.name, line}
	}
}

func (c *classification) report(class swarm.Class, rule, service string, line int, text string) {
	c.findings = append(c.findings, finding{
		Finding: swarm.Finding{Rule: rule, Class: class, Service: service, File: c.doc.name, Line: line, Text: text},
		library: c.doc.library,
	})
}

// at is where a path stands, or the nearest path above it.
func (c *classification) at(path string) place {
	for path != "" {
		if found, ok := c.places[path]; ok {
			return found
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return place{}
}

// refusedIn lists the keys of a merged service that are refused, whichever
// file they came from: "security_opt".
func (c *classification) refusedIn(service map[string]any) map[string]KeyClass {
	found := map[string]KeyClass{}
	refusedBelow(c.rules.below["services"].below["*"], service, "", found)
	return found
}

func refusedBelow(in *rule, value any, at string, found map[string]KeyClass) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			refusedBelow(in, item, at, found)
		}
	case map[string]any:
		for key, item := range value {
			name := strings.TrimPrefix(at+"."+key, ".")
			next := in.key(key)
			if extension(key, in) || item == nil && next != nil {
				continue
			}
			if next == nil {
				found[name] = KeyClass{Class: swarm.Refused, Text: "is unknown" + suggest(key, in)}
				continue
			}
			if row := next.class(scalar(item)); row.Class == swarm.Refused {
				found[name] = row
				continue
			}
			if !next.free {
				refusedBelow(next, item, name, found)
			}
		}
	}
}

// scalar is a loaded value as it would be written, "" for lists and mappings.
func scalar(value any) string {
	switch value.(type) {
	case nil, []any, map[string]any:
		return ""
	}
	return fmt.Sprint(value)
}

// suggest names the known key that is nearest to an unknown one.
func suggest(key string, in *rule) string {
	if len(in.below) == 0 {
		return ": no key may stand here"
	}
	best, least := "", 1+max(1, len(key)/3)
	for _, known := range knownKeys(in) {
		if d := distance(strings.ReplaceAll(key, "-", "_"), known); d < least {
			best, least = known, d
		}
	}
	if best == "" {
		return "; see docs/compose.md for the keys that may stand here, or begin it with x- if it is your own"
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

func knownKeys(in *rule) []string {
	var keys []string
	for key := range in.below {
		if key != "*" {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// distance counts the bytes to insert, remove or change to turn a into b
// (Levenshtein).
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, above+1, row[j]+1)
			diagonal = above
		}
	}
	return row[len(b)]
}
