package compose

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// swarmTemplate is what Docker Swarm fills in for each task.
var swarmTemplate = regexp.MustCompile(`\{\{[^}]*\.(Service|Node|Task)\b[^}]*\}\}`)

// variables refuses values whose ${} cannot be written out.
func (l *loading) variables(doc *document) {
	seen := map[*yaml.Node]bool{}
	var visit func(node *yaml.Node, at, service string)
	visit = func(node *yaml.Node, at, service string) {
		node = resolve(node)
		if node == nil || seen[node] {
			return
		}
		seen[node] = true
		switch node.Kind {
		case yaml.ScalarNode:
			l.variable(doc, node, at, service)
		case yaml.MappingNode:
			for _, p := range pairs(node) {
				inner := service
				if at == "services" {
					inner = p.key.Value
				}
				visit(p.value, strings.TrimPrefix(at+"."+p.key.Value, "."), inner)
			}
		case yaml.SequenceNode:
			for i, item := range node.Content {
				visit(item, fmt.Sprintf("%s[%d]", at, i), service)
			}
		}
	}
	visit(doc.top, "", "")
}

func (l *loading) variable(doc *document, node *yaml.Node, at, service string) {
	_, err := substitute(node.Value, doc.env)
	if err == nil {
		return
	}
	where := place{doc.name, node.Line}
	var unset *unsetError
	if !errors.As(err, &unset) {
		l.refuse(where, at, service, "%v", err)
		return
	}
	remedy := "give it a default (${%[2]s:-VALUE}), or set it in %[3]s or in this stack's variables: of gitswarm.yaml"
	if unset.reason != "" {
		remedy = "set it in %[3]s or in this stack's variables: of gitswarm.yaml"
	}
	l.refuse(where, at, service, "%[1]v; "+remedy, err, unset.name, inside(l.project.Dir, ".env"))
}

// paths refuses files that are named by something else than a relative path,
// or that lie outside of the tree.
func (l *loading) paths(doc *document) {
	for _, service := range pairs(under(doc.top, "services")) {
		name, node := service.key.Value, service.value
		for _, key := range []string{"env_file", "label_file"} {
			for _, item := range items(under(node, key)) {
				if item.Kind == yaml.MappingNode {
					item = under(item, "path")
				}
				if item != nil {
					l.named(doc, []*yaml.Node{item}, "services."+name+"."+key, name)
				}
			}
		}
	}
	for _, section := range []string{"configs", "secrets"} {
		for _, item := range pairs(under(doc.top, section)) {
			if node := under(item.value, "file"); node != nil {
				l.named(doc, []*yaml.Node{node}, section+"."+item.key.Value+".file", "")
			}
		}
	}
}

// overlooked refuses text that a loader would drop in silence.
func (l *loading) overlooked() {
	for _, doc := range l.docs {
		for _, service := range pairs(under(doc.top, "services")) {
			l.templates(doc, service.key.Value, service.value)
			l.mountOptions(doc, service.key.Value, service.value)
		}
	}
}

// bounds refuses numbers that would take time or memory out of all
// proportion.
func (l *loading) bounds() {
	services, ports := map[string]bool{}, 0
	for _, doc := range l.docs {
		for _, service := range pairs(under(doc.top, "services")) {
			name := service.key.Value
			if services[name] = true; len(services) == maxServices+1 {
				l.refuse(place{doc.name, service.key.Line}, "services."+name, name, "the stack has more than %d services; split it into several stacks", maxServices)
			}
			l.replicas(doc, name, service.value)
			for _, key := range []string{"ports", "expose"} {
				for i, item := range items(under(service.value, key)) {
					before := ports
					if ports += l.portCount(doc, item); before <= maxPorts && ports > maxPorts {
						l.refuse(place{doc.name, item.Line}, fmt.Sprintf("services.%s.%s[%d]", name, key, i), name, "the stack has more than %d ports, ranges written out; use fewer, or network_mode: host", maxPorts)
					}
				}
			}
		}
	}
}

func (l *loading) replicas(doc *document, name string, service *yaml.Node) {
	for _, node := range []*yaml.Node{under(under(service, "deploy"), "replicas"), under(service, "scale")} {
		if node == nil {
			continue
		}
		count, err := strconv.ParseInt(strings.ReplaceAll(doc.text(node), "_", ""), 0, 64)
		if err == nil && count > maxReplicas || errors.Is(err, strconv.ErrRange) {
			l.refuse(place{doc.name, node.Line}, "services."+name+".deploy.replicas", name, "%s replicas are more than %d", doc.text(node), maxReplicas)
		}
	}
}

// templates refuses what Docker Swarm would fill in for each task, in the
// keys where it would.
func (l *loading) templates(doc *document, name string, service *yaml.Node) {
	for _, key := range []string{"hostname", "environment", "volumes", "env_file"} {
		for _, node := range scalars(nil, under(service, key)) {
			if found := swarmTemplate.FindString(node.Value); found != "" {
				l.refuse(place{doc.name, node.Line}, "services."+name+"."+key, name, "%s: templates are not in this release; write the value out", found)
			}
		}
	}
}

func scalars(list []*yaml.Node, node *yaml.Node) []*yaml.Node {
	node = resolve(node)
	switch {
	case node == nil:
	case node.Kind == yaml.ScalarNode:
		list = append(list, node)
	case node.Kind == yaml.MappingNode:
		for _, p := range pairs(node) {
			list = scalars(list, p.value)
		}
	default:
		for _, item := range node.Content {
			list = scalars(list, item)
		}
	}
	return list
}

// mountOptions looks at SOURCE:TARGET:OPTIONS, for unknown options would be
// dropped in silence.
func (l *loading) mountOptions(doc *document, name string, service *yaml.Node) {
	for i, item := range items(under(service, "volumes")) {
		if item.Kind != yaml.ScalarNode {
			continue
		}
		parts := strings.Split(doc.text(item), ":")
		if len(parts) < 3 {
			continue
		}
		at, rule := place{doc.name, item.Line}, fmt.Sprintf("services.%s.volumes[%d]", name, i)
		for _, option := range strings.Split(parts[len(parts)-1], ",") {
			switch option {
			case "ro", "rw", "nocopy", "rprivate", "private", "rshared", "shared", "rslave", "slave":
			case "z", "Z":
				l.warn(at, rule, name, "option %s: SELinux labels are not set", option)
			case "cached", "delegated", "consistent":
				l.warn(at, rule, name, "option %s has no effect", option)
			default:
				l.refuse(at, rule, name, "option %q of a mount is unknown; write ro or rw", option)
			}
		}
	}
}

// portCount is how many ports an item of ports: or expose: stands for.
func (l *loading) portCount(doc *document, item *yaml.Node) int {
	if item.Kind == yaml.MappingNode {
		return max(rangeLength(doc.text(under(item, "published"))), rangeLength(doc.text(under(item, "target"))))
	}
	text, _, _ := strings.Cut(doc.text(item), "/")
	most := 1
	for part := range strings.SplitSeq(text, ":") {
		most = max(most, rangeLength(part))
	}
	return most
}

// rangeLength is the length of "8000-8010", and 1 of what is no range.
func rangeLength(text string) int {
	first, last, ok := strings.Cut(text, "-")
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	if !ok || err1 != nil || err2 != nil || to < from {
		return 1
	}
	return min(to, 1<<20) - max(from, 0) + 1
}
