package store

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
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
