package swarm

import "time"

// Source is a repository, a branch and a path that are watched.
type Source struct {
	ID          SourceID      `cbor:"1,keyasint,omitempty"`
	URL         string        `cbor:"2,keyasint,omitempty"`  // without credentials
	Branch      string        `cbor:"3,keyasint,omitempty"`  // empty means the remote's HEAD
	Path        string        `cbor:"4,keyasint,omitempty"`  // folder within the tree; empty means its root
	Environment string        `cbor:"5,keyasint,omitempty"`  // of gitswarm.yaml
	Credential  Digest        `cbor:"6,keyasint,omitempty"`  // sealed blob: Credential
	Poll        time.Duration `cbor:"7,keyasint,omitempty"`  // 30 s unless set
	Approved    bool          `cbor:"8,keyasint,omitempty"`  // its first sync may act
	Suspended   string        `cbor:"9,keyasint,omitempty"`  // why, or empty
	Status      SourceStatus  `cbor:"10,keyasint,omitempty"` // written by gitsync
	Created     time.Time     `cbor:"11,keyasint,omitzero"`
}

// SourceStatus is what gitsync last saw of a source.
type SourceStatus struct {
	Head    Revision  `cbor:"1,keyasint,omitempty"` // the newest commit that was read
	Seen    time.Time `cbor:"2,keyasint,omitzero"`  // when the remote last answered
	Problem string    `cbor:"3,keyasint,omitempty"` // why the newest commit could not be read
	Since   time.Time `cbor:"4,keyasint,omitzero"`  // when Problem began
	Scope   string    `cbor:"5,keyasint,omitempty"` // branch and path that Head was read under; a change is guarded
	Removed []Removal `cbor:"6,keyasint,omitempty"` // what commits took away without being asked, within the last day, oldest first
}

// Removal is what one commit took away.
type Removal struct {
	At       time.Time `cbor:"1,keyasint,omitzero"`
	Stacks   int       `cbor:"2,keyasint,omitempty"`
	Services int       `cbor:"3,keyasint,omitempty"`
}

// Credential opens a repository. It is kept sealed and shown to nobody.
type Credential struct {
	Username   string `cbor:"1,keyasint,omitempty"`
	Password   string `cbor:"2,keyasint,omitempty"` // or token
	SSHKey     []byte `cbor:"3,keyasint,omitempty"` // PEM
	KnownHosts []byte `cbor:"4,keyasint,omitempty"` // OpenSSH known_hosts
}

// Grant is an operator's leave for a stack to do what policy refuses.
type Grant struct {
	Stack   StackName `cbor:"1,keyasint,omitempty"`
	Service string    `cbor:"2,keyasint,omitempty"` // empty means all of the stack's
	Rule    string    `cbor:"3,keyasint,omitempty"` // the rule's name
	Value   string    `cbor:"4,keyasint,omitempty"` // what of it: a path, a capability; empty means any
}
