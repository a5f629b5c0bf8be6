package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/swarm"
)

// The kinds of frames.
const (
	kindHeader  = 'H'
	kindState   = 'S'
	kindBlob    = 'B'
	kindData    = 'D'
	kindMissing = 'M'
	kindEnd     = 'E'
)

const (
	maxFrame   = 1 << 20 // bytes of content
	maxBlob    = 1 << 30 // bytes, as blobs.MaxSize
	maxMissing = 100_000 // blobs that a file says it lacks
)

// frameWriter writes frames until the first error.
type frameWriter struct {
	to  io.Writer
	sum hash.Hash
	err error
}

func newFrameWriter(to io.Writer) *frameWriter { return &frameWriter{to: to, sum: sha256.New()} }

func (w *frameWriter) frame(kind byte, content []byte) {
	head := binary.AppendUvarint([]byte{kind}, uint64(len(content)))
	for _, part := range [][]byte{head, content} {
		if w.err != nil {
			return
		}
		w.sum.Write(part)
		_, w.err = w.to.Write(part)
	}
}

func (w *frameWriter) value(kind byte, v any) {
	content, err := codec.Encode(v)
	if w.err == nil {
		w.err = err
	}
	w.frame(kind, content)
}

func (w *frameWriter) blob(digest swarm.Digest, data []byte) {
	w.value(kindBlob, blobHeader{Digest: digest, Size: int64(len(data))})
	for len(data) > 0 && w.err == nil {
		n := min(len(data), maxFrame)
		w.frame(kindData, data[:n])
		data = data[n:]
	}
}

// pieces writes what is written to it as frames of one kind.
type pieces struct {
	*frameWriter
	kind byte
}

// Write implements io.Writer.
func (p pieces) Write(data []byte) (int, error) {
	written := 0
	for len(data) > 0 && p.err == nil {
		n := min(len(data), maxFrame)
		p.frame(p.kind, data[:n])
		data = data[n:]
		written += n
	}
	return written, p.err
}

// readFrames reads the clear frames of a file.
func readFrames(from io.Reader, to Taker) (Summary, error) {
	r := &frameReader{from: bufio.NewReaderSize(from, 64<<10), sum: sha256.New()}
	var h Header
	if err := r.value(kindHeader, &h); err != nil {
		return Summary{}, err
	}
	if h.Format > frameFormat {
		return Summary{}, ErrNewer
	}
	if err := to.Begin(h); err != nil {
		return Summary{}, err
	}
	if err := r.state(to); err != nil {
		return Summary{}, err
	}
	summary := Summary{Cluster: h.Cluster, Build: h.Build, Taken: h.Taken}
	if err := r.blobs(to, &summary); err != nil {
		return Summary{}, err
	}
	return summary, r.end(&summary)
}

// frameReader reads frames; next is one that was looked at and not yet used.
type frameReader struct {
	from    *bufio.Reader
	sum     hash.Hash
	next    byte
	content []byte
	held    bool
}

// peek reads the next frame, unless it waits already, and returns its kind.
func (r *frameReader) peek() (byte, error) {
	if r.held {
		return r.next, nil
	}
	kind, err := r.from.ReadByte()
	if err != nil {
		return 0, early(err)
	}
	length, err := binary.ReadUvarint(r.from)
	if err != nil {
		return 0, early(err)
	}
	if length > maxFrame {
		return 0, fmt.Errorf("%w: a frame of %d bytes", ErrDamaged, length)
	}
	var content bytes.Buffer // grows with what is there, whatever length says
	if _, err := io.CopyN(&content, r.from, int64(length)); err != nil {
		return 0, early(err)
	}
	r.next, r.content, r.held = kind, content.Bytes(), true
	return kind, nil
}

// take uses the frame that peek found.
func (r *frameReader) take() []byte {
	r.held = false
	r.sum.Write(binary.AppendUvarint([]byte{r.next}, uint64(len(r.content))))
	r.sum.Write(r.content)
	return r.content
}

// early names an end that comes too soon: the stream is whole, what was
// written into it is not.
func early(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends within a frame", ErrDamaged)
	}
	return err
}

// value reads one frame that must be of that kind.
func (r *frameReader) value(kind byte, v any) error {
	got, err := r.peek()
	if err != nil {
		return err
	}
	if got != kind {
		return fmt.Errorf("%w: frame %q where %q belongs", ErrDamaged, got, kind)
	}
	if err := codec.Decode(r.take(), v); err != nil {
		return fmt.Errorf("%w: frame %q: %w", ErrDamaged, kind, err)
	}
	return nil
}

// state gives the pieces of the state as one stream.
func (r *frameReader) state(to Taker) error {
	from := &stateReader{frames: r}
	if err := to.State(from); err != nil {
		return err
	}
	if _, err := from.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: there is more after the state's end", ErrDamaged)
	}
	return nil
}

type stateReader struct {
	frames *frameReader
	rest   []byte
}

// Read implements io.Reader; it ends before the first frame of another kind.
func (s *stateReader) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		kind, err := s.frames.peek()
		if err != nil {
			return 0, err
		}
		if kind != kindState {
			return 0, io.EOF
		}
		s.rest = s.frames.take()
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (r *frameReader) blobs(to Taker, summary *Summary) error {
	for {
		kind, err := r.peek()
		if err != nil {
			return err
		}
		switch kind {
		case kindBlob:
			if err := r.blob(to); err != nil {
				return err
			}
			summary.Blobs++
		case kindMissing:
			var digest swarm.Digest
			if err := r.value(kindMissing, &digest); err != nil {
				return err
			}
			if summary.Missing = append(summary.Missing, digest); len(summary.Missing) > maxMissing {
				return fmt.Errorf("%w: it lacks too many blobs", ErrDamaged)
			}
		case kindEnd:
			return nil
		default:
			return fmt.Errorf("%w: frame %q among blobs", ErrDamaged, kind)
		}
	}
}

func (r *frameReader) blob(to Taker) error {
	var h blobHeader
	if err := r.value(kindBlob, &h); err != nil {
		return err
	}
	if h.Size < 0 || h.Size > maxBlob {
		return fmt.Errorf("%w: a blob of %d bytes", ErrDamaged, h.Size)
	}
	var data bytes.Buffer
	for int64(data.Len()) < h.Size {
		kind, err := r.peek()
		if err != nil {
			return err
		}
		content := r.content
		if kind != kindData || len(content) == 0 || int64(data.Len()+len(content)) > h.Size {
			return fmt.Errorf("%w: blob %s is not what its header says", ErrDamaged, h.Digest)
		}
		data.Write(r.take())
	}
	return to.Blob(h.Digest, data.Bytes())
}

// end verifies that all that was written was read.
func (r *frameReader) end(summary *Summary) error {
	sum := r.sum.Sum(nil)
	var e end
	if err := r.value(kindEnd, &e); err != nil {
		return err
	}
	if !bytes.Equal(sum, e.Sum) || e.Blobs != summary.Blobs || e.Missing != len(summary.Missing) {
		return fmt.Errorf("%w: its checksum does not fit", ErrDamaged)
	}
	if _, err := r.from.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: there is more after its end", errors.Join(ErrDamaged, err))
	}
	summary.Index = e.Index
	return nil
}
