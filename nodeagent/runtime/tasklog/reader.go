package tasklog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Query says which lines Read gives.
type Query struct {
	Since  time.Time       // none before; zero means all
	Tail   int             // the last lines only; negative means all
	Follow bool            // go on until ctx ends or Ended is closed
	Ended  <-chan struct{} // closed when nothing more will be written; nil means never
}

// Read gives the lines of the log in dir to emit, oldest first. A Line's Text
// is valid until emit returns. A log that is not there is empty. Read returns
// nil when ctx ends, and emit's error if it has one.
func Read(ctx context.Context, dir string, q Query, emit func(Line) error) error {
	var changed <-chan fsnotify.Event
	if q.Follow {
		watcher, err := fsnotify.NewWatcher()
		if err != nil {
			return fmt.Errorf("watch log: %w", err)
		}
		defer watcher.Close()
		if err := watcher.Add(dir); err != nil {
			return fmt.Errorf("watch log: %w", err)
		}
		changed = watcher.Events
	}

	r := &reader{dir: dir, emit: emit}
	defer r.close()
	if err := r.seek(q); err != nil {
		return err
	}
	return r.run(ctx, q, changed)
}

// reader is a place in a log.
type reader struct {
	dir  string
	emit func(Line) error

	file *os.File
	name string // of file; "" before the first
	in   *bufio.Reader
	rest []byte // of a record whose end is not yet written
}

func (r *reader) run(ctx context.Context, q Query, changed <-chan fsnotify.Event) error {
	last := !q.Follow
	for {
		if err := r.drain(ctx, q.Since); err != nil || last || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-q.Ended:
			last = true
		}
	}
}

// drain gives all whole records that are there, over all files.
func (r *reader) drain(ctx context.Context, since time.Time) error {
	for ctx.Err() == nil {
		if r.file != nil {
			if err := r.records(ctx, since); err != nil {
				return err
			}
		}
		more, err := r.next(ctx, since)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// records gives the whole records between here and the end of the file.
func (r *reader) records(ctx context.Context, since time.Time) error {
	for ctx.Err() == nil {
		piece, err := r.in.ReadSlice('\n')
		if len(r.rest)+len(piece) <= 2*maxRecord { // what is longer is no record
			r.rest = append(r.rest, piece...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read log: %w", err)
		}

		line, err := parseRecord(bytes.TrimSuffix(r.rest, []byte{'\n'}))
		if err == nil && !line.At.Before(since) {
			if err := r.emit(line); err != nil {
				return err
			}
		}
		r.rest = r.rest[:0]
	}
	return nil
}

// next opens the file behind r.name; more is false if there is none. The file
// left has been read to its end after its successor came to be, so nothing of
// it is missed.
func (r *reader) next(ctx context.Context, since time.Time) (more bool, err error) {
	names, err := files(r.dir)
	if err != nil {
		return false, err
	}
	i := sort.SearchStrings(names, r.name)
	if i < len(names) && names[i] == r.name {
		i++
	}
	if i >= len(names) {
		return false, nil
	}
	if r.file != nil { // written between the last read and the rotation
		if err := r.records(ctx, since); err != nil {
			return false, err
		}
	}
	return true, r.open(names[i], 0)
}

func (r *reader) open(name string, offset int64) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) { // rotated away meanwhile
		r.close()
		r.name = name
		return nil
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}

	r.close()
	r.file, r.name, r.in, r.rest = f, name, bufio.NewReader(f), r.rest[:0]
	return nil
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// seek goes to the first record that q asks for.
func (r *reader) seek(q Query) error {
	names, err := files(r.dir)
	if err != nil || len(names) == 0 {
		return err
	}
	if q.Tail >= 0 {
		return r.seekTail(names, q.Tail)
	}
	if q.Since.IsZero() {
		return nil
	}
	return r.seekSince(names, q.Since)
}

// seekTail goes back from the end over count lines.
func (r *reader) seekTail(names []string, count int) error {
	for i, name := range slices.Backward(names) {
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		offset, found, err := lastLines(f, count)
		f.Close()
		if err != nil {
			return err
		}
		if count -= found; count <= 0 || i == 0 {
			return r.open(name, offset)
		}
	}
	return nil
}

// lastLines finds where the last count lines of f begin, and how many it has
// if they are fewer. A line that spans records counts once.
func lastLines(f *os.File, count int) (offset int64, found int, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, fmt.Errorf("read log: %w", err)
	}
	end := info.Size()
	if count <= 0 {
		return end, 0, nil
	}

	const block = 64 << 10
	var tail []byte
	for start := end; ; {
		step := min(block, start)
		start -= step
		piece := make([]byte, step, int(step)+len(tail))
		if _, err := f.ReadAt(piece, start); err != nil && err != io.EOF {
			return 0, 0, fmt.Errorf("read log: %w", err)
		}
		tail = append(piece, tail...)
		at, n, all := scanBack(tail, count, start == 0)
		if all || start == 0 {
			return start + int64(at), n, nil
		}
	}
}

// scanBack finds where the last count lines of data begin. Unless whole, the
// first record of data may be cut off and does not count. all tells that no
// record further back belongs to them.
func scanBack(data []byte, count int, whole bool) (offset, found int, all bool) {
	end := bytes.LastIndexByte(data, '\n') // behind it: a torn record
	offset = end + 1
	for end >= 0 {
		begin := bytes.LastIndexByte(data[:end], '\n') + 1
		if begin == 0 && !whole {
			break
		}
		if line, err := parseRecord(data[begin:end]); err == nil {
			if !line.Part && found == count {
				return offset, found, true
			}
			if !line.Part {
				found++
			}
			offset = begin
		}
		end = begin - 1
	}
	return offset, found, false
}

// seekSince goes to a record near the first one that is not before since:
// records does the rest.
func (r *reader) seekSince(names []string, since time.Time) error {
	for i := len(names) - 1; i >= 0; i-- {
		f, err := os.Open(names[i])
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		first, offset := bisect(f, since)
		f.Close()
		if i == 0 || first.Before(since) && !first.IsZero() {
			return r.open(names[i], offset)
		}
	}
	return nil
}

// bisect gives the time of f's first record and an offset at which a record
// begins, such that all records before it are older than since.
func bisect(f *os.File, since time.Time) (first time.Time, offset int64) {
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, 0
	}
	_, first = recordAt(f, 0)

	low, high := int64(0), info.Size()
	for high-low > 2*maxRecord {
		middle := low + (high-low)/2
		begin, at := recordAt(f, middle)
		if at.IsZero() || !at.Before(since) {
			high = middle
		} else {
			low = begin
		}
	}
	return first, low
}

// recordAt finds the first record that begins at or behind offset.
func recordAt(f *os.File, offset int64) (begin int64, at time.Time) {
	data := make([]byte, 2*maxRecord)
	n, _ := f.ReadAt(data, offset) // a short read at the end is what is there
	data = data[:n]
	begin = offset
	if offset > 0 {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			return offset, time.Time{}
		}
		begin, data = begin+int64(i)+1, data[i+1:]
	}
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			return offset, time.Time{}
		}
		if line, err := parseRecord(data[:i]); err == nil {
			return begin, line.At
		}
		begin, data = begin+int64(i)+1, data[i+1:]
	}
}
