package swarm

// UpgradeRequest asks a node about a build of the daemon that lies on its disk.
type UpgradeRequest struct {
	Binary  string `cbor:"1,keyasint,omitempty"` // absolute path on the node; empty means where its daemon was started from
	Digest  Digest `cbor:"2,keyasint,omitempty"` // the binary must have; empty means any
	Install bool   `cbor:"3,keyasint,omitempty"` // run it in the place of the one that runs
}

// UpgradeAnswer is what the node found there.
type UpgradeAnswer struct {
	Digest  Digest `cbor:"1,keyasint,omitempty"` // of the binary
	Running Digest `cbor:"2,keyasint,omitempty"` // of the build that runs
	Version string `cbor:"3,keyasint,omitempty"` // what the binary calls itself
	Level   int    `cbor:"4,keyasint,omitempty"` // as in NodeDescription, of the binary
	Own     string `cbor:"5,keyasint,omitempty"` // path that the daemon runs from
	Refused string `cbor:"6,keyasint,omitempty"` // why the node does not take the binary; nothing was done
}

// Current reports whether the node runs the build that was asked about.
func (a UpgradeAnswer) Current() bool { return a.Digest == a.Running }
