package compose

import (
	"bytes"
	"fmt"
	"time"
)

// What a stack may hold. Each is checked before the bytes reach a parser that
// it could hurt.
const (
	maxFileBytes    = 1 << 20    // a compose or env file
	maxTotalBytes   = 10 << 20   // all compose and env files of a stack
	maxFiles        = 256        // compose and env files of a stack
	maxDepth        = 16         // includes and extends within one another
	maxNodes        = 100_000    // YAML nodes of a file
	maxVisits       = 400_000    // YAML nodes of a file with its aliases written out
	maxNesting      = 100        // YAML nodes within one another
	maxServices     = 1_000      // of a stack
	maxReplicas     = 10_000     // of a service
	maxPorts        = 1_000      // of a stack, ranges written out
	maxSubstitution = 16         // ${} within one another
	maxExpanded     = 1 << 20    // bytes of one value after interpolation
	maxReferences   = 16 << 20   // bytes × variables of an env file
	maxConfig       = 1000 << 10 // a config; Docker Swarm has the same limit
	maxSecret       = 500 << 10  // a secret; Docker Swarm has the same limit
	maxRepoBytes    = 64 << 20   // repository files that a stack mounts
	maxRepoFiles    = 2_000      // their number
)

// Limits bound the child process that loads stacks. The zero value is ready
// for use.
type Limits struct {
	Wall       time.Duration // optional; for one stack, 5 s unless set
	Memory     int64         // optional; bytes of the child, 512 MiB unless set, at least 128 MiB
	Executable string        // optional; a program whose main calls ServeChild, this program unless set
	Folder     string        // optional; where each child gets an empty folder, the system's for temporary files unless set
}

const (
	defaultWall   = 5 * time.Second
	defaultMemory = 512 << 20
	leastMemory   = 128 << 20
)

func (l Limits) withDefaults() Limits {
	if l.Wall <= 0 {
		l.Wall = defaultWall
	}
	if l.Memory <= 0 {
		l.Memory = defaultMemory
	}
	l.Memory = max(l.Memory, leastMemory)
	if l.Executable == "" {
		l.Executable = "/proc/self/exe"
	}
	return l
}

// checkText refuses bytes that no compose or env file has.
func checkText(name string, data []byte) *located {
	if at := bytes.IndexByte(data, 0); at >= 0 {
		return &located{place{name, line(data, at)}, "the file holds a NUL byte; compose and env files are text"}
	}
	if bytes.HasPrefix(data, []byte{0xfe, 0xff}) || bytes.HasPrefix(data, []byte{0xff, 0xfe}) { // byte order marks; YAML 1.1, section 5.2
		return &located{place{name, 1}, "the file is UTF-16; save it as UTF-8"}
	}
	return nil
}

// checkEnv refuses an env file whose interpolation takes time out of all
// proportion: the cost grows with its bytes times its variables.
func checkEnv(name string, data []byte) *located {
	if found := checkText(name, data); found != nil {
		return found
	}
	first := bytes.IndexByte(data, '$')
	if first >= 0 && int64(bytes.Count(data, []byte("$")))*int64(len(data)) > maxReferences {
		return &located{place{name, line(data, first)}, "the file has too many $ for its size; put values that hold $ in single quotes in a file of their own"}
	}
	return nil
}

// line is the line, from 1, of the byte at offset.
func line(data []byte, offset int) int { return 1 + bytes.Count(data[:offset], []byte("\n")) }

// place is a line of a file of the tree.
type place struct {
	file string
	line int // from 1; 0 if unknown
}

func (p place) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// located is an error with its place.
type located struct {
	place
	text string
}

func (l *located) Error() string { return l.place.String() + ": " + l.text }
