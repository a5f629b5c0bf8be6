package swarm

import (
	"io/fs"
	"time"
)

// TaskSpec is what makes a container: two tasks whose TaskSpecs are equal are
// interchangeable. It holds no commit, no author and no bookkeeping, so a new
// Revision that changes none of it replaces nothing.
type TaskSpec struct {
	Image      string            `cbor:"1,keyasint,omitempty"`  // as the compose file writes it
	Manifest   Digest            `cbor:"2,keyasint,omitempty"`  // what Image was resolved to
	Entrypoint []string          `cbor:"3,keyasint,omitempty"`  // nil means the image's own
	Command    []string          `cbor:"4,keyasint,omitempty"`  // nil means the image's own, unless Entrypoint is set
	Env        map[string]string `cbor:"5,keyasint,omitempty"`  // added to the image's own
	Labels     map[string]string `cbor:"6,keyasint,omitempty"`  // of the container
	User       string            `cbor:"7,keyasint,omitempty"`  // "uid[:gid]" or names; empty means the image's own
	WorkingDir string            `cbor:"8,keyasint,omitempty"`  // empty means the image's own
	Hostname   string            `cbor:"9,keyasint,omitempty"`  // empty means the task's id
	ExtraHosts []Host            `cbor:"10,keyasint,omitempty"` // lines of /etc/hosts
	Health     *Healthcheck      `cbor:"11,keyasint,omitempty"` // nil means none: the image's own was resolved into it
	Mounts     []Mount           `cbor:"12,keyasint,omitempty"` // by target
	Files      []File            `cbor:"13,keyasint,omitempty"` // by target: configs, secrets, files of the repository
	StopSignal string            `cbor:"14,keyasint,omitempty"` // empty means the image's own, or SIGTERM
	StopGrace  time.Duration     `cbor:"15,keyasint,omitempty"`
	Init       bool              `cbor:"16,keyasint,omitempty"`
	ReadOnly   bool              `cbor:"17,keyasint,omitempty"`
	ShmSize    int64             `cbor:"18,keyasint,omitempty"` // bytes; 0 means 64 MiB
	Ulimits    []Ulimit          `cbor:"19,keyasint,omitempty"` // by name
	Sysctls    map[string]string `cbor:"20,keyasint,omitempty"`
	CapAdd     []string          `cbor:"21,keyasint,omitempty"` // "NET_ADMIN", sorted
	CapDrop    []string          `cbor:"22,keyasint,omitempty"`
	Devices    []Device          `cbor:"23,keyasint,omitempty"`
	Limits     Resources         `cbor:"24,keyasint,omitempty"`
	Networks   []Attachment      `cbor:"25,keyasint,omitempty"` // by network
	HostPorts  []Port            `cbor:"26,keyasint,omitempty"` // published in mode host
	TTY        bool              `cbor:"27,keyasint,omitempty"`
	StdinOpen  bool              `cbor:"28,keyasint,omitempty"`
	Privileged bool              `cbor:"29,keyasint,omitempty"` // needs a grant
	HostPID    bool              `cbor:"30,keyasint,omitempty"` // pid: host; needs a grant
	HostIPC    bool              `cbor:"31,keyasint,omitempty"` // ipc: host; needs a grant
	HostNet    bool              `cbor:"32,keyasint,omitempty"` // network_mode: host; needs a grant
}

// Host is one line of /etc/hosts.
type Host struct {
	Name    string `cbor:"1,keyasint,omitempty"`
	Address string `cbor:"2,keyasint,omitempty"` // "host-gateway" means the node as the container sees it
}

// Healthcheck is how a running container is asked whether it is well.
type Healthcheck struct {
	Test          []string      `cbor:"1,keyasint,omitempty"` // argv, run in the container
	Shell         bool          `cbor:"2,keyasint,omitempty"` // Test[0] is a line for /bin/sh -c
	Interval      time.Duration `cbor:"3,keyasint,omitempty"` // 30 s unless set
	Timeout       time.Duration `cbor:"4,keyasint,omitempty"` // 30 s unless set
	Retries       int           `cbor:"5,keyasint,omitempty"` // 3 unless set
	StartPeriod   time.Duration `cbor:"6,keyasint,omitempty"` // failures within it do not count
	StartInterval time.Duration `cbor:"7,keyasint,omitempty"` // 5 s unless set; used within StartPeriod
}

// MountKind is what a Mount shows.
type MountKind string

// The kinds of mounts.
const (
	MountVolume MountKind = "volume"
	MountBind   MountKind = "bind"
	MountTmpfs  MountKind = "tmpfs"
)

// Mount is storage that a container sees at Target.
type Mount struct {
	Kind        MountKind   `cbor:"1,keyasint,omitempty"`
	Source      string      `cbor:"2,keyasint,omitempty"` // volume: its name in the stack, empty if anonymous; bind: absolute path on the node
	Target      string      `cbor:"3,keyasint,omitempty"`
	ReadOnly    bool        `cbor:"4,keyasint,omitempty"`
	Size        int64       `cbor:"5,keyasint,omitempty"` // tmpfs: bytes; 0 means unlimited
	Mode        fs.FileMode `cbor:"6,keyasint,omitempty"` // tmpfs: permission bits; 0 means 1777
	NoCopy      bool        `cbor:"7,keyasint,omitempty"` // volume: do not copy what the image has at Target
	Subpath     string      `cbor:"8,keyasint,omitempty"`
	CreateHost  bool        `cbor:"9,keyasint,omitempty"` // bind: make Source when it is absent
	Propagation string      `cbor:"10,keyasint,omitempty"`
	Options     []string    `cbor:"11,keyasint,omitempty"` // tmpfs: further mount options, "noexec"
}

// FileKind says how a File's content is kept.
type FileKind string

// The kinds of files.
const (
	FileConfig FileKind = "config" // tmpfs on the node
	FileSecret FileKind = "secret" // tmpfs on the node, sealed everywhere else
	FileRepo   FileKind = "repo"   // a file of the repository, mounted read-only
)

// File is content of the revision that a container sees at Target, read-only.
type File struct {
	Kind    FileKind    `cbor:"1,keyasint,omitempty"`
	Name    string      `cbor:"2,keyasint,omitempty"` // of the config or secret, or the path in the repository
	Target  string      `cbor:"3,keyasint,omitempty"` // absolute
	Content Digest      `cbor:"4,keyasint,omitempty"` // blob
	Mode    fs.FileMode `cbor:"5,keyasint,omitempty"` // permission bits; 0 means 0444
	UID     uint32      `cbor:"6,keyasint,omitempty"`
	GID     uint32      `cbor:"7,keyasint,omitempty"`
}

// Ulimit is a process limit.
type Ulimit struct {
	Name string `cbor:"1,keyasint,omitempty"` // "nofile"
	Soft int64  `cbor:"2,keyasint,omitempty"` // -1 means unlimited
	Hard int64  `cbor:"3,keyasint,omitempty"`
}

// Device is a device of the node that a container sees.
type Device struct {
	Source      string `cbor:"1,keyasint,omitempty"`
	Target      string `cbor:"2,keyasint,omitempty"`
	Permissions string `cbor:"3,keyasint,omitempty"` // "rwm"
}

// Resources are amounts of what a node has. Zero means no limit, or nothing reserved.
type Resources struct {
	NanoCPUs int64 `cbor:"1,keyasint,omitempty"` // 10⁹ is one core
	Memory   int64 `cbor:"2,keyasint,omitempty"` // bytes
	Pids     int64 `cbor:"3,keyasint,omitempty"`

	Generic []GenericResource `cbor:"4,keyasint,omitempty"` // by kind
}

// Attachment puts a container on a network.
type Attachment struct {
	Network string   `cbor:"1,keyasint,omitempty"` // its name in the stack
	Aliases []string `cbor:"2,keyasint,omitempty"` // further names, sorted
}
