package store

import (
	"fmt"
	"reflect"

	"github.com/gitswarm/gitswarm/swarm"
)

// Level is what this build knows of commands. It grows by one with each release
// that adds a command or a field of one; NodeDescription.Level tells the others.
const Level = 2

// togetherLevel is that of the first build that knew other managers: whoever is
// one among several has it, also if it says nothing.
const togetherLevel = 2

// since lists what was added to commands and to the nouns in them after level 1,
// with the level of the first build that knows it. What is only reached by way
// of one of these need not be named.
func since() map[string]int {
	return map[string]int{
		"store.Command.PutCluster":       2,
		"store.Command.RemoveNode":       2,
		"store.Command.PutToken":         2,
		"store.Command.DropToken":        2,
		"store.Operate.Rebalance":        2,
		"swarm.Decision.Rebalanced":      2,
		"swarm.Desire.Claims":            2,
		"swarm.Node.Issuer":              2,
		"swarm.NodeDescription.DataPath": 2,
		"swarm.NodeDescription.Level":    2,
		"swarm.Resources.Generic":        2,
		"swarm.Task.Claims":              2,
	}
}

// spoken is the greatest level that all managers who vote understand, and the
// one of them that understands least.
func (s *Store) spoken() (level int, by swarm.NodeID) {
	level, by = Level, s.node
	view := s.View()
	for _, server := range s.servers() {
		id := swarm.NodeID(server.ID)
		if id == s.node {
			continue
		}
		node, _ := view.Node(id)
		if said := max(node.Description.Level, togetherLevel); said < level {
			level, by = said, id
		}
	}
	return level, by
}

// understood refuses a command that some manager's build does not know, and
// which would stop that manager.
func (s *Store) understood(c Command) error {
	level, by := s.spoken()
	if field := tooNew(reflect.ValueOf(&c).Elem(), level, false); field != "" {
		return fmt.Errorf("manager %s runs an older build, which does not know %s: %w: upgrade it first", by, field, ErrLevel)
	}
	return nil
}

// fitting is the command as the managers understand it. What an agent or a
// node reports is told as far as they do: a newer build of theirs must not
// keep a node out while the managers are upgraded.
func (s *Store) fitting(c Command) (Command, error) {
	level, _ := s.spoken()
	if level >= Level || !c.harmless() {
		return c, nil
	}
	entry, err := encodeEntry(c)
	if err != nil {
		return c, err
	}
	own, err := decodeEntry(entry) // shares nothing with the caller's
	if err != nil {
		return c, err
	}
	tooNew(reflect.ValueOf(&own).Elem(), level, true)
	return own, nil
}

// tooNew returns the first field of v that is set and newer than level, or, if
// they are to be dropped, empties all of them.
func tooNew(v reflect.Value, level int, drop bool) string {
	if level >= Level {
		return ""
	}
	return newerThan(v, since(), level, drop)
}

func newerThan(v reflect.Value, since map[string]int, level int, drop bool) string {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return newerThan(v.Elem(), since, level, drop)
		}
	case reflect.Slice:
		for i := range v.Len() {
			if v.Type().Elem().Kind() == reflect.Uint8 {
				return ""
			}
			if field := newerThan(v.Index(i), since, level, drop); field != "" {
				return field
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !field.IsExported() || v.Field(i).IsZero() {
				continue
			}
			name := v.Type().String() + "." + field.Name
			if since[name] <= level {
				if found := newerThan(v.Field(i), since, level, drop); found != "" {
					return found
				}
				continue
			}
			if !drop {
				return name
			}
			v.Field(i).SetZero()
		}
	}
	return ""
}
