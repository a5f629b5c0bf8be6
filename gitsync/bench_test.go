package gitsync

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
)

// manyStacks is a repository of n folders with three files each.
func manyStacks(t testing.TB, n int) *repository {
	r := newRepository(t)
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("stack-%04d/compose.yaml", i)] = fmt.Sprintf("services:\n  web:\n    image: example/web:%d\n%s", i, strings.Repeat("    # a line of a usual compose file\n", 30))
		files[fmt.Sprintf("stack-%04d/.env", i)] = fmt.Sprintf("N=%d\n", i)
		files[fmt.Sprintf("stack-%04d/config/app.conf", i)] = fmt.Sprintf("n=%d\n", i)
	}
	r.push("many", files)
	return r
}

// BenchmarkOneFileCommit is what a commit of one file costs in a local
// repository of 1,000 stacks: reading it, what changed, and which stacks
// there are. The push itself is not counted.
func BenchmarkOneFileCommit(b *testing.B) {
	r := manyStacks(b, 1000)
	l := newLocal(r.bare, "main", nil)
	first, err := l.read(b.Context(), "")
	if err != nil {
		b.Fatal(err)
	}
	if _, _, err := FindStacks(first.Tree, "", ""); err != nil {
		b.Fatal(err)
	}
	benchmarkCommits(b, r, first, func() (*Commit, error) { return l.read(b.Context(), "") })
}

// BenchmarkOneFileCommitOverHTTP is the same through a git server on loopback.
func BenchmarkOneFileCommitOverHTTP(b *testing.B) {
	r := manyStacks(b, 1000)
	server := newGitServer(b, r)
	o, err := New(Config{Dir: b.TempDir()}).open(server.source(), tokenCredential)
	if err != nil {
		b.Fatal(err)
	}
	defer o.close()
	first, err := o.sync(b.Context(), "", false)
	if err != nil {
		b.Fatal(err)
	}
	benchmarkCommits(b, r, first, func() (*Commit, error) { return o.sync(b.Context(), swarm.Revision("x"), false) })
}

func benchmarkCommits(b *testing.B, r *repository, before *Commit, sync func() (*Commit, error)) {
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		r.push("one", map[string]string{fmt.Sprintf("stack-%04d/compose.yaml", n%1000): fmt.Sprintf("services:\n  web:\n    image: other:%d\n", n)})
		b.StartTimer()

		commit, err := sync()
		if err != nil {
			b.Fatal(err)
		}
		changed, err := commit.Tree.Changed(before.Tree)
		if err != nil || len(changed) != 1 {
			b.Fatalf("changed %q, %v", changed, err)
		}
		if found, _, err := FindStacks(commit.Tree, "", ""); err != nil || len(found) != 1000 {
			b.Fatalf("found %d, %v", len(found), err)
		}
		before = commit
	}
}

// BenchmarkFirstSync is what a daemon's start costs for 1,000 stacks.
func BenchmarkFirstSync(b *testing.B) {
	r := manyStacks(b, 1000)
	for b.Loop() {
		commit, err := newLocal(r.bare, "main", nil).read(b.Context(), "")
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := FindStacks(commit.Tree, "", ""); err != nil {
			b.Fatal(err)
		}
	}
}
