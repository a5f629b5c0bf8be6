package store

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// TestEveryFieldThatCameLaterSaysSince: testdata/golden/v1/fields lists what
// the first build knew of commands. A field that is not in it stops that build,
// so it must be named in since; a new one belongs to the level after the last
// that was released.
func TestEveryFieldThatCameLaterSaysSince(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "golden", "v1", "fields"))
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Fields(string(data))
	types := map[string]bool{}
	for _, field := range old {
		types[field[:strings.LastIndex(field, ".")]] = true
	}

	known := since()
	now := commandFields()
	for _, field := range now {
		_, said := known[field]
		was := slices.Contains(old, field)
		if types[field[:strings.LastIndex(field, ".")]] && was == said {
			t.Errorf("%s: known to the first build %v, named in since (level.go) %v: new fields belong there, with Level", field, was, said)
		}
		delete(known, field)
	}
	for field := range known {
		t.Errorf("since names %s, which no command has", field)
	}
	for _, field := range old {
		if !slices.Contains(now, field) {
			t.Errorf("%s is gone: logs of the first build hold it", field)
		}
	}
}

// commandFields are all fields that a command can have, sorted.
func commandFields() []string {
	var fields []string
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(of reflect.Type) {
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice || of.Kind() == reflect.Map {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || of == reflect.TypeFor[time.Time]() || seen[of] {
			return
		}
		seen[of] = true
		for i := range of.NumField() {
			if field := of.Field(i); field.Tag.Get("cbor") != "-" {
				fields = append(fields, of.String()+"."+field.Name)
				walk(field.Type)
			}
		}
	}
	walk(reflect.TypeFor[Command]())
	slices.Sort(fields)
	return fields
}

func TestACommandThatAnOlderBuildDoesNotKnowIsNamed(t *testing.T) {
	removed := swarm.NodeID("n1")
	for want, c := range map[string]Command{
		"store.Command.RemoveNode":    {RemoveNode: &removed},
		"store.Command.PutCluster":    {PutCluster: &swarm.Cluster{ID: "c"}},
		"store.Operate.Rebalance":     {Operate: &Operate{Stack: "shop", Rebalance: true}},
		"swarm.Desire.Claims":         {Decide: &Decide{Decision: swarm.Decision{Desire: []swarm.Desire{{Task: "a"}, {Task: "b", Claims: &swarm.Claims{}}}}}},
		"":                            {Operate: &Operate{Stack: "shop", Retry: true}},
		"swarm.NodeDescription.Level": {PutNode: &swarm.Node{ID: "n1", Description: swarm.NodeDescription{Level: 2}}},
	} {
		if got := tooNew(reflect.ValueOf(&c).Elem(), 1, false); got != want {
			t.Errorf("named %q, want %q", got, want)
		}
		if got := tooNew(reflect.ValueOf(&c).Elem(), Level, false); got != "" {
			t.Errorf("this build does not know %s", got)
		}
	}

	node := Command{PutNode: &swarm.Node{ID: "n1", Issuer: "i", Description: swarm.NodeDescription{Hostname: "one", Level: 2, DataPath: "10.0.0.1"}}}
	tooNew(reflect.ValueOf(&node).Elem(), 1, true)
	if want := (swarm.NodeDescription{Hostname: "one"}); !reflect.DeepEqual(node.PutNode.Description, want) || node.PutNode.Issuer != "" {
		t.Errorf("an older build is told %+v", node.PutNode)
	}
}

// TestTheOldestManagerSaysWhatMayBeProposed: its own level counts from this
// build, those of others from what their nodes say.
func TestTheOldestManagerSaysWhatMayBeProposed(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, m *managers) {
		for i := range 3 {
			m.propose(m.leader(), Command{At: noon, PutNode: &swarm.Node{ID: nodeName(i), Description: swarm.NodeDescription{Level: Level + i}}})
		}
		m.agree()
		for _, s := range m.stores {
			if level, _ := s.spoken(); level != Level {
				t.Errorf("they speak level %d", level)
			}
		}
		m.propose(m.follower(), Command{At: noon, PutCluster: &swarm.Cluster{ID: "c"}})
	})
}
