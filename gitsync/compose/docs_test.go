package compose

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
)

// TestTheManualIsTheTable keeps the lists of docs/compose.md equal to the
// table; -update writes them. What stands before them is written by hand.
func TestTheManualIsTheTable(t *testing.T) {
	name := filepath.Join("..", "..", "docs", "compose.md")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const mark = "## Every key\n"
	before, after, found := strings.Cut(string(data), mark)
	if !found {
		t.Fatalf("%s has no line %q", name, mark)
	}
	want := manual()
	if after == want {
		return
	}
	if !*update {
		t.Fatalf("%s differs from the table; run go test ./gitsync/compose -run Manual -update", name)
	}
	if err := os.WriteFile(name, []byte(before+mark+want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func manual() string {
	var b strings.Builder
	for _, class := range []swarm.Class{swarm.Refused, swarm.Warned, swarm.Honoured} {
		fmt.Fprintf(&b, "\n### %s\n\n| key | |\n|---|---|\n", strings.ToUpper(string(class[:1]))+string(class[1:]))
		for _, row := range Table() {
			if row.Class == class {
				fmt.Fprintf(&b, "| %s | %s |\n", manualKey(row), strings.ReplaceAll(row.Text, "|", `\|`))
			}
		}
	}
	return b.String()
}

func manualKey(row KeyClass) string {
	key := strings.ReplaceAll(strings.TrimSuffix(row.Key, ".**"), ".*", ".NAME")
	others := slices.ContainsFunc(Table(), func(other KeyClass) bool { return other.Key == row.Key && other.Value != "" })
	switch {
	case row.Value != "":
		key += ": " + row.Value
	case others:
		return "`" + key + "`, any other value"
	}
	return "`" + key + "`"
}

func TestTheTableSaysWhatToDo(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range Table() {
		if row.Class != swarm.Honoured && row.Text == "" {
			t.Errorf("%s is %s without a reason", row.Key, row.Class)
		}
		if seen[row.Key+"="+row.Value] {
			t.Errorf("%s: %s is in the table twice", row.Key, row.Value)
		}
		seen[row.Key+"="+row.Value] = true
	}
}
