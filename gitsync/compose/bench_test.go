package compose

import "testing"

// BenchmarkRender is what the child does for one small stack.
func BenchmarkRender(b *testing.B) {
	scratch, table := b.TempDir(), rules(Table())
	for b.Loop() {
		if result, err := render(b.Context(), table, confine(simple), Project{Dir: "shop"}, scratch); err != nil || result.refused() {
			b.Fatal(err, result.Findings)
		}
	}
}
