package swarm

import (
	"cmp"
	"time"
)

// Cluster is what all its nodes share. It is one row of the state.
type Cluster struct {
	ID         string          `cbor:"1,keyasint,omitempty"` // random; its first manager gives it
	Settings   ClusterSettings `cbor:"2,keyasint,omitempty"`
	Authority  Authority       `cbor:"3,keyasint,omitempty"`
	Tokens     JoinTokens      `cbor:"4,keyasint,omitempty"`
	UnlockKey  []byte          `cbor:"5,keyasint,omitempty"` // autolock: each manager wraps its data keys in it; nil means that it is off
	SecretName []byte          `cbor:"6,keyasint,omitempty"` // the key that names secrets: managers must agree on digests
	Version    uint64          `cbor:"7,keyasint,omitempty"` // raft index of its last change; a command on an older one is stale
}

// ClusterSettings is what `init` is told and `cluster set` changes. Zero means
// the default.
type ClusterSettings struct {
	CertExpiry       time.Duration `cbor:"1,keyasint,omitempty"` // of node certificates; 90 days unless set, 1 h at least
	TaskHistory      int           `cbor:"2,keyasint,omitempty"` // ended tasks kept for each slot; 5 unless set
	SnapshotInterval uint64        `cbor:"3,keyasint,omitempty"` // log entries between snapshots; 4096 unless set
	Heartbeat        time.Duration `cbor:"4,keyasint,omitempty"` // of agents; 800 ms unless set, 100 ms at least
	AddressPool      []string      `cbor:"5,keyasint,omitempty"` // CIDRs that networks get their subnets from
	DataPort         uint16        `cbor:"6,keyasint,omitempty"` // VXLAN; 4789 unless set
}

// Defaulted fills in what was not set. An empty AddressPool stays: the
// allocator has its own.
func (s ClusterSettings) Defaulted() ClusterSettings {
	s.CertExpiry = cmp.Or(s.CertExpiry, 90*24*time.Hour)
	s.TaskHistory = cmp.Or(s.TaskHistory, 5)
	s.SnapshotInterval = cmp.Or(s.SnapshotInterval, 4096)
	s.Heartbeat = cmp.Or(s.Heartbeat, 800*time.Millisecond)
	s.DataPort = cmp.Or(s.DataPort, 4789)
	return s
}

// Authority is the cluster's certificate authority. Its Key is secret: it is
// in the log, in snapshots (both sealed) and in managers' memory, nowhere else.
type Authority struct {
	Certificate []byte `cbor:"1,keyasint,omitempty"` // PEM: what new certificates are signed by
	Key         []byte `cbor:"2,keyasint,omitempty"` // PEM
	Trust       []byte `cbor:"3,keyasint,omitempty"` // PEM: every root that is trusted, oldest first; one unless a rotation is under way
	Cross       []byte `cbor:"4,keyasint,omitempty"` // PEM: Certificate, signed by the root before it, and so on back to the oldest, while a rotation is under way
}

// JoinTokens let machines in. They are secret.
type JoinTokens struct {
	Worker  string `cbor:"1,keyasint,omitempty"`
	Manager string `cbor:"2,keyasint,omitempty"`
}

// The roles of nodes.
const (
	RoleManager = "manager"
	RoleWorker  = "worker"
)

// UserRole is what a user may do by a token.
type UserRole string

// The roles of users; each may do what those before it may.
const (
	UserViewer   UserRole = "viewer"   // reads, no secrets
	UserCI       UserRole = "ci"       // plans; syncs a source, reads its stacks' status and logs
	UserOperator UserRole = "operator" // nodes, stacks, sources
	UserAdmin    UserRole = "admin"    // tokens, certificates, unlock keys
)

// UserToken is a user's right to use the control API from afar. The token
// itself is shown once and kept by nobody.
type UserToken struct {
	ID      string    `cbor:"1,keyasint,omitempty"` // public part of the token
	Name    string    `cbor:"2,keyasint,omitempty"` // whose it is, for people
	Role    UserRole  `cbor:"3,keyasint,omitempty"`
	Source  SourceID  `cbor:"4,keyasint,omitempty"` // role ci: the one source it may act on; empty means every one
	Hash    []byte    `cbor:"5,keyasint,omitempty"` // SHA-256 of its secret part, which has 256 bits of chance
	Created time.Time `cbor:"6,keyasint,omitzero"`
	Expires time.Time `cbor:"7,keyasint,omitzero"`
}

// GenericResource is something that a node has and a task may reserve: a
// number of kind, or named pieces of it.
type GenericResource struct {
	Kind  string   `cbor:"1,keyasint,omitempty"` // "gpu"
	Count int64    `cbor:"2,keyasint,omitempty"` // of pieces without names, or of what is reserved
	Names []string `cbor:"3,keyasint,omitempty"` // sorted; of a node, or of a task that was given them
}
