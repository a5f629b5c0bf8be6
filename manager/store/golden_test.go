package store

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

var update = flag.Bool("update", false, "rewrite testdata")

// TestTheFormatOfCommandsOnDiskIsFrozen: entries of testdata, written by an
// older build, must say what they said then. Fields may be added to commands
// and nouns, but none may go, change its number or its type. Run with -update
// once a release has added some.
func TestTheFormatOfCommandsOnDiskIsFrozen(t *testing.T) {
	path := filepath.Join("testdata", "commands.golden")
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(path, []byte(writtenCommands(t)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	released, err := filepath.Glob(filepath.Join("testdata", "golden", "*", "commands"))
	if err != nil || len(released) == 0 {
		t.Fatalf("%d releases, %v", len(released), err)
	}
	for _, old := range released {
		stillSays(t, old)
	}
	seen := stillSays(t, path)
	for _, name := range commandNames() {
		if !seen[name] {
			t.Errorf("%s is not in %s: run with -update", name, path)
		}
	}
}

// stillSays reads the entries of one file and returns which commands it has.
func stillSays(t *testing.T, path string) map[string]bool {
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, block := range strings.Split(strings.TrimSpace(string(golden)), "\n\n") {
		name, digits, _ := strings.Cut(block, "\n")
		entry, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatal(err)
		}
		c, err := decodeEntry(entry)
		if err != nil {
			t.Errorf("%s does not read any more: %v", name, err)
			continue
		}
		if again, err := encodeEntry(c); err != nil || !bytes.Equal(again, entry) {
			t.Errorf("%s is written differently: %v", name, err)
		}
		if err := within(reflect.ValueOf(c), reflect.ValueOf(filled(name))); err != nil {
			t.Errorf("%s says something else: %v", name, err)
		}
		seen[name] = true
	}
	return seen
}

func writtenCommands(t *testing.T) string {
	var b strings.Builder
	for _, name := range commandNames() {
		entry, err := encodeEntry(filled(name))
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(name + "\n" + wrapped(hex.EncodeToString(entry)) + "\n\n")
	}
	return b.String()
}

func commandNames() []string {
	var names []string
	v := reflect.TypeFor[Command]()
	for i := range v.NumField() {
		if kind := v.Field(i).Type.Kind(); kind == reflect.Pointer || kind == reflect.Slice {
			names = append(names, v.Field(i).Name)
		}
	}
	return names
}

// filled is that command with every field set.
func filled(name string) Command {
	c := Command{At: noon, By: "ana"}
	fill(reflect.ValueOf(&c).Elem().FieldByName(name), name)
	return c
}

// fill gives every field a value that its name decides, so that two fields
// that change places are noticed.
func fill(v reflect.Value, name string) {
	mark := 20
	for _, letter := range name {
		mark = (mark*31 + int(letter)) % 200
	}
	mark++ // never zero
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(noon.Add(time.Duration(mark) * time.Minute)))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), name)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("cbor") != "-" {
				fill(v.Field(i), v.Type().Field(i).Name)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), name)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, name)
		fill(value, name)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString(strings.ToLower(name))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(float64(mark) / 8)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(mark))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(mark))
	default:
		panic("golden: a command has a " + v.Type().String())
	}
}

// within reports the first field of got that is set and is not as in want.
func within(got, want reflect.Value) error {
	if got.IsZero() || got.Kind() != reflect.Struct || got.Type() == reflect.TypeFor[time.Time]() {
		if !got.IsZero() && !reflect.DeepEqual(got.Interface(), want.Interface()) {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	}
	for i := range got.NumField() {
		g, w := got.Field(i), want.Field(i)
		for g.Kind() == reflect.Pointer && !g.IsNil() {
			g, w = g.Elem(), w.Elem()
		}
		if g.Kind() == reflect.Slice && g.Len() == 1 && w.Len() == 1 {
			g, w = g.Index(0), w.Index(0)
		}
		if err := within(g, w); err != nil {
			return fmt.Errorf("%s: %w", got.Type().Field(i).Name, err)
		}
	}
	return nil
}

func wrapped(line string) string {
	var b strings.Builder
	for len(line) > 100 {
		b.WriteString("  " + line[:100] + "\n")
		line = line[100:]
	}
	return b.String() + "  " + line
}

// TestEveryFieldOfTheNounsSurvivesASnapshot guards the rows of a written
// state against a table or a field that is forgotten.
func TestEveryFieldOfTheNounsSurvivesASnapshot(t *testing.T) {
	db := newDB()
	txn := db.Txn(true)
	for i := range reflect.TypeFor[row]().NumField() {
		var r row
		field := reflect.ValueOf(&r).Elem().Field(i)
		fill(field, "Row")
		if r.Rows != nil {
			continue
		}
		if err := r.put(txn); err != nil {
			t.Fatal(err)
		}
	}
	txn.Commit()
	var b strings.Builder
	if err := writeState(&b, db.Txn(false)); err != nil {
		t.Fatal(err)
	}
	back, err := readState(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	for name := range schema().Tables {
		was, _ := db.Txn(false).First(name, byID)
		is, _ := back.Txn(false).First(name, byID)
		if was == nil || !reflect.DeepEqual(was, is) {
			t.Errorf("%s: %+v, want %+v", name, is, was)
		}
	}
	if _, ok := newView(back).Task(swarm.TaskID("id")); !ok {
		t.Error("the task is not indexed")
	}
}
