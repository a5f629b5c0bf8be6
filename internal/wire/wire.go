// Package wire is what managers and agents say to each other: gRPC calls whose
// messages are the nouns of swarm in CBOR. An agent dials any manager and keeps
// one Session open; Blob fetches content by digest; Attach carries a stream (a
// log, a process, usage) that the manager asked for, so an agent needs no open
// port. Managers forward to one another what only the leader may write, what it
// must hear, and streams of each other's agents. The package decides nothing,
// keeps no state of its own and never retries: whoever holds the connection
// does.
package wire

import (
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Limits on messages. What is larger is refused before it is read.
const (
	MaxFromAgent   = 8 << 20   // bytes of one message to a manager
	MaxFromManager = 64 << 20  // bytes of one message to an agent: the full assignment of a large node
	MaxBlob        = 64 << 20  // bytes of one blob
	ChunkSize      = 256 << 10 // bytes of one piece of a blob
	MaxReports     = 1000      // reports in one FromAgent
)

// FromAgent is one message of an agent in its session. Hello is the first and
// comes once; any message at all counts as a sign of life.
type FromAgent struct {
	Hello    *Hello                 `cbor:"1,keyasint,omitempty"`
	Reports  []Report               `cbor:"2,keyasint,omitempty"` // statuses that changed; after Hello, all of them
	Applied  uint64                 `cbor:"3,keyasint,omitempty"` // the network is as the assignment of this index wants it
	Resend   bool                   `cbor:"4,keyasint,omitempty"` // a delta did not fit: send all
	Removed  []swarm.VolumeID       `cbor:"5,keyasint,omitempty"` // volumes of the assignment's list that are gone
	Describe *swarm.NodeDescription `cbor:"6,keyasint,omitempty"` // it differs from Hello's
	Papers   *Papers                `cbor:"7,keyasint,omitempty"` // the node has a new certificate
}

// Hello says who the agent is and what it holds.
type Hello struct {
	Node        swarm.NodeID          `cbor:"1,keyasint,omitempty"`
	Description swarm.NodeDescription `cbor:"2,keyasint,omitempty"`
	Index       uint64                `cbor:"3,keyasint,omitempty"` // of its assignment; 0 means it has none
	Hash        Hash                  `cbor:"4,keyasint,omitempty"` // of its assignment
	Papers      *Papers               `cbor:"5,keyasint,omitempty"` // its certificate; nil means the one that the connection shows
}

// Papers is what a node's certificate says, by the node's own word: it proves
// nothing, and tells whether the certificate has to be renewed.
type Papers struct {
	Role   string `cbor:"1,keyasint,omitempty"`
	Issuer string `cbor:"2,keyasint,omitempty"` // identity.Peer's
}

// Report is what an agent says of one task.
type Report struct {
	Task   swarm.TaskID     `cbor:"1,keyasint,omitempty"`
	Status swarm.TaskStatus `cbor:"2,keyasint,omitempty"` // its times are the manager's to fill in
}

// FromManager is one message of a manager in a session. Welcome is the first
// and comes once; any message at all is a sign of life.
type FromManager struct {
	Welcome  *Welcome `cbor:"1,keyasint,omitempty"`
	Delta    *Delta   `cbor:"2,keyasint,omitempty"`
	Open     *Open    `cbor:"3,keyasint,omitempty"`
	Managers []string `cbor:"4,keyasint,omitempty"` // host:port of all of them; they differ from Welcome's
	Renew    bool     `cbor:"5,keyasint,omitempty"` // the node's certificate is of another role, or of an authority that goes
}

// Welcome answers Hello.
type Welcome struct {
	Session   string        `cbor:"1,keyasint,omitempty"` // goes with each BlobRequest
	Heartbeat time.Duration `cbor:"2,keyasint,omitempty"` // the agent says something at least this often
	Cluster   string        `cbor:"3,keyasint,omitempty"` // its id
	Managers  []string      `cbor:"4,keyasint,omitempty"` // host:port of all of them
	Silence   time.Duration `cbor:"5,keyasint,omitempty"` // a manager that says nothing for so long is to be left; 0 means none is
}

// Open asks the agent to attach a stream: exactly one of Logs, Exec, Stats and
// Upgrade is set.
type Open struct {
	Stream  string                `cbor:"1,keyasint,omitempty"`
	Logs    *swarm.LogQuery       `cbor:"2,keyasint,omitempty"`
	Exec    *swarm.ExecRequest    `cbor:"3,keyasint,omitempty"`
	Stats   []swarm.TaskID        `cbor:"4,keyasint,omitempty"`
	Upgrade *swarm.UpgradeRequest `cbor:"5,keyasint,omitempty"` // a build that does not know it answers with an empty Usage
}

// UpFrame is one message of an agent on an attached stream. Stream is set in
// the first alone.
type UpFrame struct {
	Stream  string               `cbor:"1,keyasint,omitempty"`
	Lines   []swarm.LogLine      `cbor:"2,keyasint,omitempty"`
	Exec    *swarm.ExecFrame     `cbor:"3,keyasint,omitempty"`
	Usage   []swarm.Usage        `cbor:"4,keyasint,omitempty"`
	Error   string               `cbor:"5,keyasint,omitempty"` // why the stream ends early
	Upgrade *swarm.UpgradeAnswer `cbor:"6,keyasint,omitempty"`
}

// DownFrame is one message of a manager on an attached stream.
type DownFrame struct {
	Exec *swarm.ExecFrame `cbor:"1,keyasint,omitempty"`
}

// BlobRequest asks for the content of a digest that the node's tasks name.
type BlobRequest struct {
	Session string       `cbor:"1,keyasint,omitempty"`
	Digest  swarm.Digest `cbor:"2,keyasint,omitempty"`
}

// Chunk is the next piece of a blob.
type Chunk struct {
	Data []byte `cbor:"1,keyasint,omitempty"`
}
