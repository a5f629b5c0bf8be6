package api

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Nodes changes what operators say of machines. A refusal's text says why.
type Nodes interface {
	SetAvailability(ctx context.Context, node swarm.NodeID, availability swarm.Availability, by string) error
	// SetRole promotes to swarm.RoleManager or demotes to swarm.RoleWorker. The
	// last manager, and one without whom the rest would have no quorum, stay.
	SetRole(ctx context.Context, node swarm.NodeID, role, by string) error
	Label(ctx context.Context, node swarm.NodeID, set map[string]string, remove []string, by string) error
	// RemoveNode forgets a node and voids its certificate. One that is not down
	// is refused unless force is set; a manager is refused always.
	RemoveNode(ctx context.Context, node swarm.NodeID, force bool, by string) error
}

// Membership is how a machine stands in a cluster.
type Membership string

// The memberships of a machine.
const (
	InNone    Membership = "none"    // it may begin a cluster, join one or restore one
	IsLocked  Membership = "locked"  // a manager that waits for its unlock key
	IsJoining Membership = "joining" // it has its certificate, and waits for the managers or for their state
	IsWorker  Membership = "worker"
	IsManager Membership = "manager"
)

// Standing is what a daemon knows of its own place.
type Standing struct {
	Membership Membership
	Cluster    string       // empty in none
	Node       swarm.NodeID // empty in none
	Managers   []string     // addresses that this machine knows, host:port
	Why        string       // for IsJoining: what it waits for; else empty
}

// Addresses are where a machine is reached and listens. Empty fields have
// defaults: the address of the route to the others, port 2377, and Advertise's
// host for DataPath.
type Addresses struct {
	Advertise string // host[:port] that other machines dial
	Listen    string // host[:port] to listen on
	DataPath  string // address that containers' traffic goes to
}

// Beginning is what a new cluster is told.
type Beginning struct {
	Addresses
	Settings swarm.ClusterSettings // zero fields have their defaults
	Autolock bool
	ForceNew bool // this manager alone goes on with its state; the others are forgotten
}

// Begun is a cluster that began.
type Begun struct {
	Cluster   string
	Node      swarm.NodeID
	Address   string // host:port that other machines dial
	UnlockKey string // with autolock: nobody keeps it but the person who is told
}

// Joining is how a machine joins a cluster.
type Joining struct {
	Addresses
	Token        string // its digest names the cluster's authority
	Manager      string // host[:port] of any manager
	Availability swarm.Availability
}

// Restoring is how a cluster begins again from a backup.
type Restoring struct {
	Addresses
	Key    string
	Backup io.Reader
}

// Machine is this machine's daemon, in a cluster or not.
type Machine interface {
	Standing() Standing
	Begin(ctx context.Context, beginning Beginning, by string) (Begun, error)
	Join(ctx context.Context, joining Joining, by string) error
	// Leave stops what runs here and forgets the cluster. A manager is refused
	// unless force is set.
	Leave(ctx context.Context, force bool, by string) error
	Unlock(ctx context.Context, key, by string) error
	Restore(ctx context.Context, restoring Restoring, by string) (Begun, error)
}

// Keys are a cluster's secrets that people are told. They are logged nowhere.
type Keys interface {
	// JoinToken returns the token of a role; rotated, the old one lets nobody
	// in any more.
	JoinToken(ctx context.Context, role string, rotate bool, by string) (string, error)
	// UnlockKey returns the key that managers need when they start, or an error
	// while autolock is off.
	UnlockKey(ctx context.Context, rotate bool, by string) (string, error)
	// RotateCA begins a new authority and returns once it is in the log;
	// certificates follow by themselves.
	RotateCA(ctx context.Context, by string) error
}

// Change is what `cluster set` asks for; nil fields stay as they are.
type Change struct {
	Autolock         *bool
	CertExpiry       *time.Duration
	TaskHistory      *int
	SnapshotInterval *uint64
	Heartbeat        *time.Duration
}

// Upgrading says which build to roll out, and where.
type Upgrading struct {
	Binary string         // absolute path on each node; empty means where its daemon was started from
	Digest string         // "sha256:…" of the binary; empty means any
	Nodes  []swarm.NodeID // empty means all
	Check  bool           // say what would happen, and no more
}

// ErrGoOn ends an upgrade that the next leader goes on with once it is asked
// for again.
var ErrGoOn = errors.New("another manager leads and goes on: ask again")

// Upkeep is what an operator does for a cluster as a whole.
type Upkeep interface {
	// Configure returns the unlock key if the change turned autolock on.
	Configure(ctx context.Context, change Change, by string) (unlockKey string, err error)
	// Backup writes the cluster's state and blobs, sealed by a key that is made
	// from the one given.
	Backup(ctx context.Context, to io.Writer, key string) error
	// Upgrade replaces the daemons node by node and emits a line for each step.
	// Asked for again, it goes on where it stopped. Error: ErrGoOn.
	Upgrade(ctx context.Context, upgrading Upgrading, by string, emit func(line string) error) error
	// Rebalance moves replicas of a stack, or of every one, to emptier nodes,
	// one at a time. It returns the services that it concerns.
	Rebalance(ctx context.Context, stack swarm.StackName, by string) ([]swarm.ServiceID, error)
}

// Users keeps the tokens of people and pipelines.
type Users interface {
	PutToken(ctx context.Context, token swarm.UserToken, by string) error
	DropToken(ctx context.Context, id, by string) error
}

// Member is a manager as another one knows it.
type Member struct {
	Node    swarm.NodeID
	Address string // host:port of its port 2377
	Voter   bool
}

// Managers is what this manager knows of all managers.
type Managers interface {
	Members() []Member // by node
	// Leader is false while none is known.
	Leader() (Member, bool)
	// LastContact is when the leader was last heard of; on the leader it is now.
	LastContact() time.Time
	// Confirm returns nil once View shows all that was acknowledged before.
	Confirm(ctx context.Context) error
}
