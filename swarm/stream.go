package swarm

import "time"

// LogQuery asks for lines that tasks wrote.
type LogQuery struct {
	Tasks  []TaskID  `cbor:"1,keyasint,omitempty"`
	Follow bool      `cbor:"2,keyasint,omitempty"` // go on with new lines until cancelled
	Since  time.Time `cbor:"3,keyasint,omitzero"`
	Tail   int       `cbor:"4,keyasint,omitempty"` // the last lines of each task; -1 means all
}

// LogLine is one line that a task wrote.
type LogLine struct {
	Task   TaskID    `cbor:"1,keyasint,omitempty"`
	At     time.Time `cbor:"2,keyasint,omitzero"`
	Stderr bool      `cbor:"3,keyasint,omitempty"`
	Text   []byte    `cbor:"4,keyasint,omitempty"` // without the newline; at most 16 KiB, longer lines are split
}

// ExecRequest asks for a process in a running task.
type ExecRequest struct {
	Task       TaskID   `cbor:"1,keyasint,omitempty"`
	Args       []string `cbor:"2,keyasint,omitempty"`
	Env        []string `cbor:"3,keyasint,omitempty"` // "K=V", added to the container's
	User       string   `cbor:"4,keyasint,omitempty"`
	WorkingDir string   `cbor:"5,keyasint,omitempty"`
	TTY        bool     `cbor:"6,keyasint,omitempty"`
	Stdin      bool     `cbor:"7,keyasint,omitempty"`
	Rows       uint16   `cbor:"8,keyasint,omitempty"`
	Cols       uint16   `cbor:"9,keyasint,omitempty"`
}

// ExecFrame is one piece of a process's conversation, in either direction.
type ExecFrame struct {
	Stdin  []byte `cbor:"1,keyasint,omitempty"` // to the process
	EOF    bool   `cbor:"2,keyasint,omitempty"` // to the process: no more Stdin
	Rows   uint16 `cbor:"3,keyasint,omitempty"` // to the process: the terminal's new size
	Cols   uint16 `cbor:"4,keyasint,omitempty"`
	Stdout []byte `cbor:"5,keyasint,omitempty"` // from the process
	Stderr []byte `cbor:"6,keyasint,omitempty"` // from the process
	Exit   *int   `cbor:"7,keyasint,omitempty"` // from the process: the last frame
}

// Usage is what a running task consumes.
type Usage struct {
	Task        TaskID        `cbor:"1,keyasint,omitempty"`
	At          time.Time     `cbor:"2,keyasint,omitzero"`
	CPU         time.Duration `cbor:"3,keyasint,omitempty"` // used since it started
	Memory      int64         `cbor:"4,keyasint,omitempty"` // bytes, without the page cache that can go
	MemoryLimit int64         `cbor:"5,keyasint,omitempty"` // bytes; 0 means none
	Pids        int64         `cbor:"6,keyasint,omitempty"`
	Received    int64         `cbor:"7,keyasint,omitempty"` // bytes on its networks
	Sent        int64         `cbor:"8,keyasint,omitempty"`
}
