package tasklog

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The bounds of a task's log unless its Options say otherwise.
const (
	DefaultSize  = 10 << 20
	DefaultFiles = 3
)

// Options bound a task's log.
type Options struct {
	Size  int64 // bytes of one file; 0 means DefaultSize
	Files int   // how many files are kept; 0 means DefaultFiles
}

// Writer writes one task's log. What cannot be written, because the disk is
// full, is counted and dropped: a task never stands still for its log.
type Writer struct {
	dir  string
	opts Options
	now  func() time.Time

	mu     sync.Mutex
	file   *os.File
	number int
	size   int64
	last   time.Time
	lost   int
	buf    []byte
}

// Create opens the log in dir for writing and makes dir if needed.
func Create(dir string, opts Options) (*Writer, error) {
	if opts.Size <= 0 {
		opts.Size = DefaultSize
	}
	if opts.Files <= 0 {
		opts.Files = DefaultFiles
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}

	w := &Writer{dir: dir, opts: opts, now: time.Now}
	names, err := files(dir)
	if err != nil {
		return nil, err
	}
	w.number = 1
	if len(names) > 0 {
		base := strings.TrimSuffix(filepath.Base(names[len(names)-1]), suffix)
		w.number, _ = strconv.Atoi(base) // files lists digits only
	}
	return w, w.open()
}

// open opens the file of w.number behind what it holds.
func (w *Writer) open() error {
	f, err := os.OpenFile(w.path(w.number), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}

	if last, err := lastTime(f); err == nil && last.After(w.last) {
		w.last = last
	}
	w.file, w.size = f, info.Size()
	return nil
}

func (w *Writer) path(number int) string {
	return filepath.Join(w.dir, fmt.Sprintf("%010d%s", number, suffix))
}

// Copy writes all lines of r, a stream of the task, until it ends. Its last
// line needs no newline.
func (w *Writer) Copy(r io.Reader, stderr bool) error {
	var pending []byte
	chunk := make([]byte, MaxText)
	for {
		n, err := r.Read(chunk)
		pending = append(pending, chunk[:n]...)
		done := w.write(pending, stderr, err != nil)
		pending = append(pending[:0], pending[done:]...)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read task output: %w", err)
		}
	}
}

// write takes the whole lines of data, and its rest if the stream ended or the
// rest fills a record. It returns how many bytes it took.
func (w *Writer) write(data []byte, stderr, ended bool) (done int) {
	if len(data) == 0 {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()

	w.buf = w.buf[:0]
	line := Line{At: w.time(), Stderr: stderr}
	lines := 0
	for done < len(data) {
		end := bytes.IndexByte(data[done:], '\n')
		next := done + end + 1
		switch {
		case end > MaxText || end < 0 && len(data)-done > MaxText:
			end, next, line.Part = MaxText, done+MaxText, true
		case end < 0 && ended:
			end, next, line.Part = len(data)-done, len(data), false
		case end < 0:
			w.flush(lines)
			return done
		default:
			line.Part = false
		}
		line.Text = data[done : done+end]
		w.buf = appendRecord(w.buf, line)
		done, lines = next, lines+1
		if len(w.buf) > maxRecord {
			w.flush(lines)
			w.buf, lines = w.buf[:0], 0
		}
	}
	w.flush(lines)
	return done
}

// time is now, but never before the last record.
func (w *Writer) time() time.Time {
	if now := w.now(); now.After(w.last) {
		w.last = now
	}
	return w.last
}

// flush writes w.buf, which holds whole records, and turns to the next file
// when this one is full.
func (w *Writer) flush(lines int) {
	if lines == 0 {
		return
	}
	if w.lost > 0 {
		text := fmt.Appendf(nil, "gitswarm: %d lines were lost: the log could not be written", w.lost)
		w.buf = append(appendRecord(nil, Line{At: w.last, Stderr: true, Text: text}), w.buf...)
	}
	if w.size >= w.opts.Size {
		w.rotate()
	}

	n, err := w.file.Write(w.buf)
	if err != nil {
		w.lost += lines
		if n > 0 { // a torn record must not swallow the next one
			_ = w.file.Truncate(w.size)
		}
		return
	}
	w.size += int64(n)
	w.lost = 0
}

// rotate starts the next file and drops the oldest. When it fails, the old
// file grows on: too long a log is better than none.
func (w *Writer) rotate() {
	old := w.file
	w.number++
	if err := w.open(); err != nil {
		w.number--
		w.file = old
		return
	}
	old.Close()

	names, err := files(w.dir)
	for err == nil && len(names) > w.opts.Files {
		err = os.Remove(names[0])
		names = names[1:]
	}
}

// Close ends the log.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.file.Close()
}
