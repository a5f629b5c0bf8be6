package tasklog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// clock gives one second more at each call.
func clock() func() time.Time {
	at := time.Unix(1000, 0)
	return func() time.Time { at = at.Add(time.Second); return at }
}

func written(t *testing.T, opts Options, lines ...string) string {
	t.Helper()
	dir := t.TempDir()
	w, err := Create(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	w.now = clock()
	for _, line := range lines {
		text, stderr := strings.CutPrefix(line, "!")
		if err := w.Copy(strings.NewReader(text), stderr); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// shown is what a query gives, as text: "o hello|e oops".
func shown(t *testing.T, dir string, q Query) string {
	t.Helper()
	var out []string
	err := Read(t.Context(), dir, q, func(l Line) error {
		out = append(out, fmt.Sprintf("%c %s", streamByte(l.Stderr, l.Part), l.Text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "|")
}

func TestKeepsBothStreamsApartAndInOrder(t *testing.T) {
	dir := written(t, Options{}, "one\ntwo\n", "!oops\n", "three without newline", "!\n")
	if got, want := shown(t, dir, Query{Tail: -1}), "o one|o two|e oops|o three without newline|e "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSplitsALineThatIsTooLong(t *testing.T) {
	long := strings.Repeat("x", MaxText) + "rest\n"
	dir := written(t, Options{}, long, "next\n")
	if got, want := shown(t, dir, Query{Tail: -1}), "O "+strings.Repeat("x", MaxText)+"|o rest|o next"; got != want {
		t.Errorf("got %d bytes: %.40q…, want %d", len(got), got, len(want))
	}
	if got := shown(t, dir, Query{Tail: 2}); !strings.HasPrefix(got, "O xxx") || !strings.HasSuffix(got, "o rest|o next") {
		t.Errorf("the last two lines are %.60q", got)
	}
}

func TestKeepsOnlyTheNewestFiles(t *testing.T) {
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprintf("line %02d\n", i))
	}
	dir := written(t, Options{Size: 200, Files: 3}, lines...)

	names, _ := files(dir)
	got := shown(t, dir, Query{Tail: -1})
	if len(names) != 3 || strings.Contains(got, "line 50") || !strings.HasSuffix(got, "line 98|o line 99") {
		t.Errorf("%d files hold %q", len(names), got)
	}
	if got := shown(t, dir, Query{Tail: 12}); strings.Count(got, "line") != 12 {
		t.Errorf("the last 12 lines over several files are %q", got)
	}
}

func TestFindsWhereToBeginByTime(t *testing.T) {
	var lines []string
	for i := range 20000 {
		lines = append(lines, fmt.Sprintf("line %05d %s\n", i, strings.Repeat("y", 30)))
	}
	dir := written(t, Options{Size: 300_000, Files: 9}, lines...)

	since := time.Unix(1000, 0).Add(19990 * time.Second) // one tick a line, the first at 1001
	got := shown(t, dir, Query{Since: since, Tail: -1})
	if strings.Count(got, "line") != 11 || !strings.HasPrefix(got, "o line 19989") {
		t.Errorf("got %.200q", got)
	}
	if got := shown(t, dir, Query{Since: time.Unix(5, 0), Tail: -1}); strings.Count(got, "line") != 20000 {
		t.Errorf("since long ago gives %d lines", strings.Count(got, "line"))
	}
}

func TestPassesOverATornRecordAndGoesOnBehindIt(t *testing.T) {
	dir := written(t, Options{}, "one\n", "two\n")
	names, _ := files(dir)
	f, err := os.OpenFile(names[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "0000garbage\nand 17 more\n")
	f.Close()

	w, err := Create(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Copy(strings.NewReader("three\n"), false); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if got, want := shown(t, dir, Query{Tail: -1}), "o one|o two|o three"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := shown(t, dir, Query{Tail: 2}), "o two|o three"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFollowsThroughRotationUntilTheTaskEnds(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir, Options{Size: 500, Files: 50})
	if err != nil {
		t.Fatal(err)
	}
	in, out := io.Pipe()
	copied := make(chan error, 1)
	go func() { copied <- w.Copy(in, false) }()

	ended, seen := make(chan struct{}), make(chan string, 1000)
	done := make(chan error, 1)
	go func() {
		done <- Read(t.Context(), dir, Query{Tail: -1, Follow: true, Ended: ended}, func(l Line) error {
			seen <- string(l.Text)
			return nil
		})
	}()

	for i := range 300 {
		fmt.Fprintf(out, "line %d\n", i)
		if i%50 == 0 {
			<-seen // it follows, not only reads at the end
		}
	}
	out.Close()
	if err := <-copied; err != nil {
		t.Fatal(err)
	}
	close(ended)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(seen) != 300-6 {
		t.Errorf("followed %d lines of 300", len(seen)+6)
	}
}

func TestATaskNeverStandsStillForItsLog(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.file.Close() // every write fails from here on
	if err := w.Copy(strings.NewReader("a\nb\n"), false); err != nil {
		t.Fatal(err)
	}
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	if err := w.Copy(strings.NewReader("c\n"), false); err != nil {
		t.Fatal(err)
	}
	if got := shown(t, dir, Query{Tail: -1}); got != "e gitswarm: 2 lines were lost: the log could not be written|o c" {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom([]byte{'a', 0, 0xff, '\n', ' '}), 0, 300).Draw(rt, "text")
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		w, err := Create(dir, Options{Size: 400, Files: 1000})
		if err != nil {
			rt.Fatal(err)
		}
		if err := w.Copy(bytes.NewReader(text), true); err != nil {
			rt.Fatal(err)
		}
		w.Close()

		var got []byte
		err = Read(context.Background(), dir, Query{Tail: -1}, func(l Line) error {
			got = append(append(got, l.Text...), '\n')
			return nil
		})
		want := text
		if len(text) > 0 && text[len(text)-1] != '\n' {
			want = append(bytes.Clone(text), '\n')
		}
		if err != nil || !bytes.Equal(got, want) {
			rt.Fatalf("read %q, wrote %q: %v", got, want, err)
		}
	})
}

func FuzzReadsAnyFileWithoutPanic(f *testing.F) {
	f.Add([]byte("18b9c3e1f0a2d400 o hello\n18b9c3e1f0a2d401 E par"), 3, int64(5))
	f.Add([]byte("\n\n 0 0 \n"), -1, int64(0))
	f.Fuzz(func(t *testing.T, data []byte, tail int, since int64) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "0000000001.log"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		lines := 0
		q := Query{Tail: tail % 100, Since: time.Unix(0, since)}
		if err := Read(t.Context(), dir, q, func(Line) error { lines++; return nil }); err != nil {
			t.Fatal(err)
		}
		if lines > len(data)/headerLen {
			t.Errorf("%d lines from %d bytes", lines, len(data))
		}
	})
}
