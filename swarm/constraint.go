package swarm

import (
	"fmt"
	"strings"
)

// Constraint is one entry of deploy.placement.constraints, read: Key Op Value.
type Constraint struct {
	Key   string // "node.role", "node.labels.zone"
	Not   bool   // the operator is !=
	Value string
}

// ParseConstraint reads "node.labels.zone==eu". Space around the operator is
// allowed.
func ParseConstraint(text string) (Constraint, error) {
	at := strings.IndexAny(text, "=!")
	if at < 0 || len(text) < at+2 || text[at+1] != '=' {
		return Constraint{}, fmt.Errorf("constraint %q is not KEY==VALUE or KEY!=VALUE", text)
	}
	op := text[at : at+2]
	key, value := strings.TrimSpace(text[:at]), strings.TrimSpace(text[at+2:])
	if key == "" || value == "" || strings.ContainsAny(value, "=!") {
		return Constraint{}, fmt.Errorf("constraint %q is not KEY==VALUE or KEY!=VALUE", text)
	}
	c := Constraint{Key: key, Not: op == "!=", Value: value}
	if _, known := c.read(Node{}); !known {
		return Constraint{}, fmt.Errorf("constraint %q: key %q is unknown; use node.id, node.hostname, node.role, node.platform.os, node.platform.arch, node.labels.NAME or engine.labels.NAME", text, key)
	}
	return c, nil
}

// String writes the constraint as ParseConstraint reads it.
func (c Constraint) String() string {
	op := "=="
	if c.Not {
		op = "!="
	}
	return c.Key + op + c.Value
}

// Holds reports whether the node meets the constraint. Values compare without
// regard to case, as in Docker Swarm; label names do not.
func (c Constraint) Holds(node Node) bool {
	value, _ := c.read(node)
	return strings.EqualFold(value, c.Value) != c.Not
}

// read returns what the node has under the constraint's key, and whether the
// key is one that nodes have.
func (c Constraint) read(node Node) (value string, known bool) {
	if label, ok := strings.CutPrefix(c.Key, "node.labels."); ok {
		return node.Labels[label], label != ""
	}
	if label, ok := strings.CutPrefix(c.Key, "engine.labels."); ok {
		return node.Description.Labels[label], label != ""
	}
	switch c.Key {
	case "node.id":
		return string(node.ID), true
	case "node.hostname":
		return node.Description.Hostname, true
	case "node.role":
		return node.Role, true
	case "node.platform.os":
		return node.Description.OS, true
	case "node.platform.arch":
		return node.Description.Arch, true
	}
	return "", false
}
