// Package tasklog keeps what one task wrote, as lines with their times, in a
// directory of its own: the shim writes there, the daemon reads, and neither
// needs the other to be alive. It interprets no line and opens no file outside
// of that directory.
//
// A line on disk is a header of 18 bytes and the text up to a newline:
//
//	18b9c3e1f0a2d400 o hello
//
// 16 hex digits of nanoseconds since 1970, a space, the stream, a space. The
// stream is o or e, or O or E where the line goes on in the next record of the
// same stream, because it was longer than MaxText. Times within a directory
// never go back. Files are named by a number that grows; the highest is the
// one that is written.
package tasklog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// MaxText is how many bytes of a line one record holds.
const MaxText = 16 << 10

const (
	headerLen = 18
	maxRecord = headerLen + 1 + MaxText + 1
	suffix    = ".log"
)

// Line is one record.
type Line struct {
	At     time.Time
	Stderr bool
	Part   bool // the line goes on in the next record of its stream
	Text   []byte
}

// errMalformed says that bytes are no record; a reader passes over them.
var errMalformed = errors.New("log record is malformed")

// appendRecord writes l's record behind buf. l.Text holds no newline.
func appendRecord(buf []byte, l Line) []byte {
	var ns [8]byte
	for i, v := 7, uint64(l.At.UnixNano()); i >= 0; i, v = i-1, v>>8 {
		ns[i] = byte(v)
	}

	buf = hex.AppendEncode(buf, ns[:])
	buf = append(buf, ' ', streamByte(l.Stderr, l.Part), ' ')
	buf = append(buf, l.Text...)
	return append(buf, '\n')
}

func streamByte(stderr, part bool) byte {
	stream := byte('o')
	if stderr {
		stream = 'e'
	}
	if part {
		stream -= 'a' - 'A'
	}
	return stream
}

// parseRecord reads one record, without its newline. The Line's Text shares
// the record's memory.
func parseRecord(record []byte) (Line, error) {
	if len(record) < headerLen+1 || record[16] != ' ' || record[headerLen] != ' ' {
		return Line{}, errMalformed
	}

	var ns [8]byte
	if _, err := hex.Decode(ns[:], record[:16]); err != nil {
		return Line{}, errMalformed
	}
	var nanos uint64
	for _, b := range ns {
		nanos = nanos<<8 | uint64(b)
	}

	line := Line{At: time.Unix(0, int64(nanos)), Text: record[headerLen+1:]}
	switch record[17] {
	case 'o':
	case 'e':
		line.Stderr = true
	case 'O':
		line.Part = true
	case 'E':
		line.Stderr, line.Part = true, true
	default:
		return Line{}, errMalformed
	}
	return line, nil
}

// files lists the log files of dir, oldest first. A directory that is not
// there has none.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list log files: %w", err)
	}

	var names []string
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), suffix); ok && len(base) == 10 && strings.Trim(base, "0123456789") == "" {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(names)
	return names, nil
}

// lastTime finds the time of the newest record of a file, or zero.
func lastTime(f *os.File) (time.Time, error) {
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	from := max(0, info.Size()-2*maxRecord)
	tail := make([]byte, info.Size()-from)
	n, err := f.ReadAt(tail, from)
	if err != nil && n == 0 && len(tail) > 0 {
		return time.Time{}, err
	}

	records := bytes.Split(tail[:n], []byte{'\n'})
	for _, record := range slices.Backward(records) {
		if line, err := parseRecord(record); err == nil {
			return line.At, nil
		}
	}
	return time.Time{}, nil
}
