package api

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/gitswarm/gitswarm/swarm"
)

// ExecProtocol is the value of the Upgrade header that an exec asks for. After
// the answer 101 both sides send frames: one byte for the kind, four bytes for
// the length of what follows, big-endian, then that many bytes.
const ExecProtocol = "gitswarm-exec/1"

// The kinds of frames. To the process: stdin, its end, and the terminal's size
// (rows and columns, two bytes each). From it: stdout, stderr, then its exit
// code (four bytes), or a Failure in JSON.
const (
	frameStdin  = 1
	frameEOF    = 2
	frameResize = 3
	frameStdout = 4
	frameStderr = 5
	frameExit   = 6
	frameError  = 7
)

// maxFrame bounds what a frame carries.
const maxFrame = 64 << 10

// Frames reads and writes the frames of an exec. One goroutine may read while
// others write.
type Frames struct {
	reader *bufio.Reader
	mu     sync.Mutex
	writer io.Writer
}

// NewFrames frames a connection.
func NewFrames(reader io.Reader, writer io.Writer) *Frames {
	return &Frames{reader: bufio.NewReader(reader), writer: writer}
}

// Write sends a frame; content longer than a frame may be is sent as several.
func (f *Frames) Write(frame swarm.ExecFrame) error {
	switch {
	case frame.Exit != nil:
		return f.send(frameExit, binary.BigEndian.AppendUint32(nil, uint32(int32(*frame.Exit))))
	case len(frame.Stdout) > 0:
		return f.chunks(frameStdout, frame.Stdout)
	case len(frame.Stderr) > 0:
		return f.chunks(frameStderr, frame.Stderr)
	case len(frame.Stdin) > 0:
		return f.chunks(frameStdin, frame.Stdin)
	case frame.EOF:
		return f.send(frameEOF, nil)
	case frame.Rows > 0 || frame.Cols > 0:
		size := binary.BigEndian.AppendUint16(nil, frame.Rows)
		return f.send(frameResize, binary.BigEndian.AppendUint16(size, frame.Cols))
	}
	return nil
}

// Fail sends the error that ended the conversation.
func (f *Frames) Fail(err error) error {
	data, encoding := json.Marshal(failure(err, http.StatusBadGateway))
	if encoding != nil {
		return fmt.Errorf("encode failure of exec: %w", encoding)
	}
	return f.send(frameError, data[:min(len(data), maxFrame)])
}

func (f *Frames) chunks(kind byte, content []byte) error {
	for len(content) > 0 {
		n := min(len(content), maxFrame)
		if err := f.send(kind, content[:n]); err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

func (f *Frames) send(kind byte, content []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	frame := make([]byte, 0, 5+len(content))
	frame = binary.BigEndian.AppendUint32(append(frame, kind), uint32(len(content)))
	if _, err := f.writer.Write(append(frame, content...)); err != nil {
		return fmt.Errorf("send exec frame: %w", err)
	}
	return nil
}

// Read returns the next frame; io.EOF means that the other side ended between
// two frames. The error of a Failure frame is that Failure.
func (f *Frames) Read() (swarm.ExecFrame, error) {
	var header [5]byte
	if _, err := io.ReadFull(f.reader, header[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return swarm.ExecFrame{}, io.EOF
		}
		return swarm.ExecFrame{}, fmt.Errorf("read exec frame: %w", err)
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > maxFrame {
		return swarm.ExecFrame{}, fmt.Errorf("read exec frame: %d bytes, at most %d are taken", size, maxFrame)
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(f.reader, content); err != nil {
		return swarm.ExecFrame{}, fmt.Errorf("read exec frame: %w", err)
	}
	return decodeFrame(header[0], content)
}

func decodeFrame(kind byte, content []byte) (swarm.ExecFrame, error) {
	switch {
	case kind == frameStdin:
		return swarm.ExecFrame{Stdin: content}, nil
	case kind == frameEOF && len(content) == 0:
		return swarm.ExecFrame{EOF: true}, nil
	case kind == frameResize && len(content) == 4:
		return swarm.ExecFrame{Rows: binary.BigEndian.Uint16(content), Cols: binary.BigEndian.Uint16(content[2:])}, nil
	case kind == frameStdout:
		return swarm.ExecFrame{Stdout: content}, nil
	case kind == frameStderr:
		return swarm.ExecFrame{Stderr: content}, nil
	case kind == frameExit && len(content) == 4:
		code := int(int32(binary.BigEndian.Uint32(content)))
		return swarm.ExecFrame{Exit: &code}, nil
	case kind == frameError:
		failed := new(Failure)
		if err := json.Unmarshal(content, failed); err != nil {
			return swarm.ExecFrame{}, fmt.Errorf("read exec failure: %w", err)
		}
		return swarm.ExecFrame{}, failed
	}
	return swarm.ExecFrame{}, fmt.Errorf("read exec frame: kind %d with %d bytes is unknown", kind, len(content))
}
