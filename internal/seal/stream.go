package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

// A stream is format (1) | key id (4) | nonce prefix (19), then chunks of
// chunkSize plain bytes, each with its tag. A chunk's nonce is the prefix, the
// chunk's number (4 bytes, big endian) and 1 for the last chunk, so chunks can
// be neither cut off, swapped nor repeated.
const (
	chunkSize  = 64 << 10
	prefixSize = nonceSize - 5
	streamSize = 1 + idSize + prefixSize
	maxChunks  = 1 << 32
)

// errTooLong guards the chunk number: 2^32 chunks are 256 TiB.
var errTooLong = errors.New("more than 2^32 chunks")

// sealer is what the two directions of a stream share.
type sealer struct {
	aead   cipher.AEAD
	nonce  [nonceSize]byte
	bound  []byte
	number uint64
}

// next moves on to the nonce of the next chunk.
func (s *sealer) next(last bool) error {
	if s.number == maxChunks {
		return errTooLong
	}
	binary.BigEndian.PutUint32(s.nonce[prefixSize:], uint32(s.number))
	s.nonce[nonceSize-1] = 0
	if last {
		s.nonce[nonceSize-1] = 1
	}
	s.number++
	return nil
}

func newSealer(key dataKey, header, context []byte) (*sealer, error) {
	aead, err := chacha20poly1305.NewX(key.Secret)
	if err != nil {
		return nil, err
	}
	s := &sealer{aead: aead, bound: bind(header, context)}
	copy(s.nonce[:], header[1+idSize:])
	return s, nil
}

// Writer seals what is written to it, chunk by chunk. Only Close makes the
// stream whole; it does not close what the Writer writes to.
type Writer struct {
	*sealer
	to     io.Writer
	buffer []byte
	err    error
}

// NewWriter begins a sealed stream on to. NewReader needs the same context.
func (k *Keyring) NewWriter(to io.Writer, context []byte) (*Writer, error) {
	key := k.state.Load().current()
	header := make([]byte, streamSize)
	header[0] = formatStream
	copy(header[1:], key.ID[:])
	if _, err := rand.Read(header[1+idSize:]); err != nil {
		return nil, fmt.Errorf("begin sealed stream: %w", err)
	}

	s, err := newSealer(key, header, context)
	if err != nil {
		return nil, fmt.Errorf("begin sealed stream: %w", err)
	}
	if _, err := to.Write(header); err != nil {
		return nil, fmt.Errorf("begin sealed stream: %w", err)
	}
	return &Writer{sealer: s, to: to, buffer: make([]byte, 0, chunkSize+tagSize)}, nil
}

// Write implements io.Writer. A chunk goes out once there is more than one,
// because the last one is marked.
func (w *Writer) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 && w.err == nil {
		if len(w.buffer) == chunkSize {
			w.flush(false)
			continue
		}
		n := min(chunkSize-len(w.buffer), len(p))
		w.buffer = append(w.buffer, p[:n]...)
		p = p[n:]
		written += n
	}
	return written, w.err
}

// Close writes the last chunk.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	w.flush(true)
	if w.err != nil {
		return w.err
	}
	w.err = errors.New("the sealed stream is closed")
	return nil
}

func (w *Writer) flush(last bool) {
	if w.err = w.next(last); w.err != nil {
		return
	}
	sealed := w.aead.Seal(w.buffer[:0], w.nonce[:], w.buffer, w.bound)
	_, w.err = w.to.Write(sealed)
	w.buffer = w.buffer[:0]
}

// Reader opens a sealed stream. It returns no byte that it has not verified,
// and io.EOF only at the end that Close wrote.
type Reader struct {
	*sealer
	from   io.Reader
	buffer []byte // sealed: one chunk, and one byte that tells whether more follow
	filled int
	plain  []byte
	err    error
}

// NewReader opens the stream that NewWriter made with the same context.
func (k *Keyring) NewReader(from io.Reader, context []byte) (*Reader, error) {
	header := make([]byte, streamSize)
	if _, err := io.ReadFull(from, header[:1]); err != nil {
		return nil, fmt.Errorf("open sealed stream: %w", cutOff(err))
	}
	if header[0] != formatStream {
		return nil, fmt.Errorf("open sealed stream: format %d: %w", header[0], ErrFormat)
	}
	if _, err := io.ReadFull(from, header[1:]); err != nil {
		return nil, fmt.Errorf("open sealed stream: %w", cutOff(err))
	}

	key, err := k.state.Load().find(header[1 : 1+idSize])
	if err != nil {
		return nil, fmt.Errorf("open sealed stream: %w", err)
	}
	s, err := newSealer(key, header, context)
	if err != nil {
		return nil, fmt.Errorf("open sealed stream: %w", err)
	}
	return &Reader{sealer: s, from: from, buffer: make([]byte, chunkSize+tagSize+1)}, nil
}

// Read implements io.Reader. Its errors are ErrTruncated, ErrTampered, and
// those of what it reads from.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 && r.err == nil {
		r.fill()
	}
	if len(r.plain) == 0 {
		return 0, r.err
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// fill opens the next chunk. It sets err to io.EOF after the last one.
func (r *Reader) fill() {
	n, err := io.ReadFull(r.from, r.buffer[r.filled:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		r.err = fmt.Errorf("open sealed stream: %w", err)
		return
	}
	have := r.filled + n
	last := have < len(r.buffer)
	if last && have < tagSize {
		r.err = fmt.Errorf("open sealed stream: %w", ErrTruncated)
		return
	}

	chunk := r.buffer[:min(have, chunkSize+tagSize)]
	if r.err = r.open(chunk, last); r.err != nil {
		return
	}
	if last {
		r.err = io.EOF
		return
	}
	r.buffer[0], r.filled = r.buffer[have-1], 1
}

// open verifies one chunk. A stream that ends in a chunk which is not the last
// one was cut off there; any other mismatch is a change.
func (r *Reader) open(chunk []byte, last bool) error {
	if err := r.next(last); err != nil {
		return fmt.Errorf("open sealed stream: %w", err)
	}
	plain, err := r.aead.Open(nil, r.nonce[:], chunk, r.bound)
	if err == nil {
		r.plain = plain
		return nil
	}
	if last && len(chunk) == chunkSize+tagSize {
		r.nonce[nonceSize-1] = 0
		if _, err := r.aead.Open(nil, r.nonce[:], chunk, r.bound); err == nil {
			return fmt.Errorf("open sealed stream: %w", ErrTruncated)
		}
	}
	return fmt.Errorf("open sealed stream: chunk %d: %w", r.number-1, ErrTampered)
}

// cutOff names the early end of a stream.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return err
}
