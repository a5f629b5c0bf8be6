package compose

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gitswarm/gitswarm/internal/codec"
)

// ChildArgument is the first argument of a process that must call ServeChild
// and nothing else.
const ChildArgument = "compose-load"

// frame is one message between parent and child: exactly one field is set.
type frame struct {
	Render *Project  `cbor:"1,keyasint,omitempty"` // to the child
	Ask    *ask      `cbor:"2,keyasint,omitempty"` // to the parent, while rendering
	Answer *answer   `cbor:"3,keyasint,omitempty"` // to the child
	Done   *rendered `cbor:"4,keyasint,omitempty"` // to the parent
	Failed string    `cbor:"5,keyasint,omitempty"` // to the parent: no commit mends this
}

// ask is a question about the tree.
type ask struct {
	What  string `cbor:"1,keyasint,omitempty"` // "read", "list" or "files"
	Path  string `cbor:"2,keyasint,omitempty"`
	Limit int64  `cbor:"3,keyasint,omitempty"`
}

type answer struct {
	Data    []byte  `cbor:"1,keyasint,omitempty"`
	Entries []Entry `cbor:"2,keyasint,omitempty"`
	Files   []file  `cbor:"3,keyasint,omitempty"`
	Folder  bool    `cbor:"4,keyasint,omitempty"`
	Refused string  `cbor:"5,keyasint,omitempty"` // a *refusal
	Absent  bool    `cbor:"6,keyasint,omitempty"` // its absent
	Failed  string  `cbor:"7,keyasint,omitempty"` // the tree's own error
}

// maxFrame bounds a message: a stack's inline configs and its specs.
const maxFrame = 64 << 20

func writeFrame(to io.Writer, message frame) error {
	data, err := codec.Encode(message)
	if err != nil {
		return err
	}
	if len(data) > maxFrame {
		return fmt.Errorf("message of %d bytes is larger than %d", len(data), maxFrame)
	}
	_, err = to.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}

func readFrame(from io.Reader) (frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return frame{}, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length > maxFrame {
		return frame{}, fmt.Errorf("message of %d bytes is larger than %d", length, maxFrame)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(from, data); err != nil {
		return frame{}, err
	}
	var message frame
	return message, codec.Decode(data, &message)
}

// ServeChild loads projects for the parent process until stdin ends. The
// process gives up the file system first, but for the folder that its second
// argument names, and sets its own limits. main calls it before anything else
// if the first argument is ChildArgument, and exits when it returns.
func ServeChild(stdin io.Reader, stdout io.Writer) error {
	if len(os.Args) != 4 {
		return fmt.Errorf("%s is for gitswarm itself; use `gitswarm validate`", ChildArgument)
	}
	memory, err := strconv.ParseInt(os.Args[3], 10, 64)
	if err != nil {
		return fmt.Errorf("read memory limit: %w", err)
	}
	scratch, err := enclose(os.Args[2], memory)
	if err != nil {
		return fmt.Errorf("enclose compose loader: %w", err)
	}

	pipe := &remote{from: bufio.NewReader(stdin), to: stdout, table: rules(Table())}
	for number := 0; ; number++ {
		message, err := readFrame(pipe.from)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		if message.Render == nil {
			return errors.New("read request: it holds no project")
		}
		if err := pipe.serve(*message.Render, filepath.Join(scratch, strconv.Itoa(number))); err != nil {
			return fmt.Errorf("answer request: %w", err)
		}
	}
}

// remote is the tree as the child sees it: at the other end of a pipe.
type remote struct {
	from  *bufio.Reader
	to    io.Writer
	table *rule
}

func (r *remote) serve(project Project, scratch string) error {
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(scratch)

	if err := limitTime(); err != nil {
		return err
	}
	result, err := render(context.Background(), r.table, r, project, scratch)
	if err != nil {
		return writeFrame(r.to, frame{Failed: err.Error()})
	}
	return writeFrame(r.to, frame{Done: &result})
}

func (r *remote) ask(question ask) (answer, error) {
	if err := writeFrame(r.to, frame{Ask: &question}); err != nil {
		return answer{}, err
	}
	message, err := readFrame(r.from)
	switch {
	case err != nil:
		return answer{}, err
	case message.Answer == nil:
		return answer{}, errors.New("the parent gave no answer")
	case message.Answer.Refused != "":
		return answer{}, &refusal{text: message.Answer.Refused, absent: message.Answer.Absent}
	case message.Answer.Failed != "":
		return answer{}, errors.New(message.Answer.Failed)
	}
	return *message.Answer, nil
}

func (r *remote) read(name string, limit int64) ([]byte, error) {
	got, err := r.ask(ask{What: "read", Path: name, Limit: limit})
	return got.Data, err
}

func (r *remote) list(name string) ([]Entry, error) {
	got, err := r.ask(ask{What: "list", Path: name})
	return got.Entries, err
}

func (r *remote) files(name string, limit int) ([]file, bool, error) {
	got, err := r.ask(ask{What: "files", Path: name, Limit: int64(limit)})
	return got.Files, got.Folder, err
}
