// Package manager runs the control plane of a cluster: it follows the sources,
// agrees with the other managers on what should run, and brings the stacks
// there step by step. It runs no container and asks no node but through the
// dispatcher.
package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/gitsync/compose"
	"github.com/gitswarm/gitswarm/manager/allocator"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/registry"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/policy"
	"github.com/gitswarm/gitswarm/swarm"
)

// keptContents is how many rendered stacks are kept decoded: more than a
// placement looks at, the accepted and the healthy content of 2,000 stacks.
const keptContents = 4000

var (
	errNotWatched = errors.New("it is not watched; see `gitswarm source ls`")
	errNoStack    = errors.New("there is no such stack; see `gitswarm status -a`")
)

// Config is what a Manager is made of.
type Config struct {
	Node     swarm.NodeID     // required
	Founding *swarm.Cluster   // optional: a cluster that begins here, for a log that does not know it yet
	Store    *store.Store     // required
	Blobs    *blobs.Blobs     // required
	Registry *registry.Client // required
	Syncer   *gitsync.Syncer  // required
	Agents   Agents           // required
	Limits   compose.Limits   // optional
	Grants   []swarm.Grant    // of the cluster's configuration; they replace those in the log
	Pool     allocator.Pool   // optional
	Log      *slog.Logger     // optional
}

// Agents are the nodes' daemons.
type Agents interface {
	// Upgrade asks a node about a build of the daemon, or has it install one.
	Upgrade(context.Context, swarm.NodeID, swarm.UpgradeRequest) (swarm.UpgradeAnswer, error)
}

// Manager is one manager of a cluster. The zero value is of no use: see New.
type Manager struct {
	config   Config
	store    *store.Store
	blobs    *blobs.Blobs
	registry *registry.Client
	syncer   *gitsync.Syncer
	rules    *policy.Rules
	contents *lru.Cache[swarm.Digest, *swarm.Stack]
	picture  *picture
	loader   compose.Loader
	log      *slog.Logger

	answers chan gitsync.Report // from the watches to followCommits
	orders  chan swarm.SourceID // from operators to followCommits: look at its last commit again

	// followCommits' own, of this term.
	caches     map[swarm.SourceID]*sourceCache
	unreadable map[swarm.SourceID]string // what of the newest commit can't be read
	regranted  bool                      // the term began with other grants: stacks are judged anew

	upgrading chan struct{} // of capacity 1: whoever upgrades nodes holds it

	mu      sync.Mutex
	watches map[swarm.SourceID]*watch
	waiters map[swarm.SourceID][]waiter
}

// New makes a manager over an open store.
func New(config Config) (*Manager, error) {
	rules, err := policy.Compile(policy.Builtin())
	if err != nil {
		return nil, err
	}
	contents, err := lru.New[swarm.Digest, *swarm.Stack](keptContents)
	if err != nil {
		return nil, fmt.Errorf("prepare the cache of rendered stacks: %w", err)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		config: config, store: config.Store, blobs: config.Blobs, registry: config.Registry,
		syncer: config.Syncer, rules: rules, contents: contents, loader: compose.Loader{Limits: config.Limits}, log: config.Log,
		answers: make(chan gitsync.Report), orders: make(chan swarm.SourceID, 1), upgrading: make(chan struct{}, 1),
		watches: make(map[swarm.SourceID]*watch), waiters: make(map[swarm.SourceID][]waiter),
	}
	m.picture = newPicture(config.Store, m.claimsOf)
	return m, nil
}

// Run leads whenever this manager is the leader, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	return inTerms(ctx, m.store.Leading(), m.leads, m.lead)
}

// leads reports whether this manager is the leader, as far as it knows.
func (m *Manager) leads() bool {
	leader, known := m.store.Leader()
	return known && leader.Node == m.config.Node
}

// now is the wall clock, in the form that the log keeps.
func (m *Manager) now() time.Time { return time.Now().UTC() }

// serviceOfTask returns the service that a task of any stack is of.
func (m *Manager) serviceOfTask(view *store.View, task swarm.Task) (swarm.Service, bool) {
	record, found := view.Stack(task.Service.Stack())
	if !found {
		return swarm.Service{}, false
	}
	for _, digest := range []swarm.Digest{record.Accepted.Content, record.Healthy.Content} {
		stack, err := m.content(context.Background(), digest)
		if err != nil {
			continue
		}
		if service, named := stack.Service(task.Service.Name()); named && service.Spec == task.Spec {
			return service, true
		}
	}
	return swarm.Service{}, false
}
