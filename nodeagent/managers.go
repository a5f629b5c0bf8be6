package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/wire"
)

const (
	backoffFirst  = 50 * time.Millisecond
	backoffLast   = 2 * time.Second
	patienceFirst = 800 * time.Millisecond // for one manager's welcome; doubled each time that all were asked
	patienceLast  = 8 * time.Second
	dialPatience  = 2 * time.Second // of it, for the connection
	shortSession  = time.Second     // one that ends sooner is no reason to hurry back
	renewFirst    = time.Second
	renewLast     = time.Minute
	renewLook     = time.Hour // clocks are set and machines sleep: how often the date is looked at
)

// errNoManager means that there is nobody to ask.
var errNoManager = errors.New("no manager's address is known: join the node again")

// acquaintance is what the agent knows of its cluster's managers.
type acquaintance struct {
	Cluster  string   `cbor:"1,keyasint,omitempty"` // id
	Managers []string `cbor:"2,keyasint,omitempty"` // host:port
}

// managers keeps it, over restarts.
type managers struct {
	path string
	mu   sync.Mutex
	now  acquaintance
}

// Managers returns the addresses of managers that the agent knows, host:port.
func (a *Agent) Managers() []string {
	a.managers.mu.Lock()
	defer a.managers.mu.Unlock()
	return slices.Clone(a.managers.now.Managers)
}

// open reads what is kept; begin counts where nothing is.
func (m *managers) open(begin []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, err := os.ReadFile(m.path)
	if err == nil {
		err = codec.Decode(data, &m.now)
	}
	if err != nil || len(m.now.Managers) == 0 {
		m.now.Managers = begin
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read kept managers: %w", err)
	}
	return nil
}

// meet judges a manager's welcome. A manager of another cluster has nothing to
// say here, whatever its assignment is.
func (m *managers) meet(k *keeper, welcome wire.Welcome) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now.Cluster != "" && welcome.Cluster != "" && m.now.Cluster != welcome.Cluster {
		return fmt.Errorf("the manager is of cluster %s, this node of %s: `gitswarm leave` makes the node leave that one", welcome.Cluster, m.now.Cluster)
	}
	next := m.now
	if welcome.Cluster != "" {
		next.Cluster = welcome.Cluster
	}
	return m.keep(k, next, welcome.Managers)
}

// learn notes the managers that there are.
func (m *managers) learn(k *keeper, addresses []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keep(k, m.now, addresses)
}

func (m *managers) keep(k *keeper, next acquaintance, addresses []string) error {
	if len(addresses) > 0 {
		next.Managers = addresses
	}
	if next.Cluster == m.now.Cluster && slices.Equal(next.Managers, m.now.Managers) {
		return nil
	}
	m.now = next
	data, err := codec.Encode(next)
	if err == nil {
		err = k.writeFile(m.path, data, true)
	}
	if err != nil {
		return fmt.Errorf("keep managers' addresses: %w", err)
	}
	return nil
}

// candidates are the addresses to try: this machine's own manager, then the
// others as chance has it; the one that was just lost comes last.
func (a *Agent) candidates(lost string) []string {
	a.managers.mu.Lock()
	others := slices.Clone(a.managers.now.Managers)
	a.managers.mu.Unlock()
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	if a.config.Own != nil {
		if own := a.config.Own(); own != "" {
			others = slices.Insert(others, 0, own)
		}
	}
	if at := slices.Index(others, lost); at >= 0 {
		others = append(slices.Delete(others, at, at+1), lost)
	}
	return others
}

// search is how the agent looks for a manager.
type search struct {
	lost     string            // the address of the last session
	said     map[string]string // what each address answered, as it was logged
	backoff  time.Duration
	patience time.Duration
}

// keepSession keeps a session with a manager, and opens another when it ends:
// with the next manager at once, and after a pause when all were asked in vain.
func (a *Agent) keepSession(ctx context.Context) error {
	s := search{said: make(map[string]string), backoff: backoffFirst, patience: patienceFirst}
	for {
		welcomed, lasted := a.round(ctx, &s)
		if welcomed {
			s.patience = patienceFirst
		}
		if lasted > shortSession {
			s.backoff = backoffFirst
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(s.backoff - rand.N(s.backoff/2)):
		}
		if !welcomed {
			s.patience = min(2*s.patience, patienceLast)
		}
		if lasted <= shortSession {
			s.backoff = min(2*s.backoff, backoffLast)
		}
	}
}

// round asks one manager after the other until one lets the agent in, and stays
// with that one. It returns how long that session lasted.
func (a *Agent) round(ctx context.Context, s *search) (welcomed bool, lasted time.Duration) {
	candidates := a.candidates(s.lost)
	if len(candidates) == 0 {
		a.complain(s, "", errNoManager)
	}
	for _, address := range candidates {
		began := time.Now()
		welcomed, err := a.session(ctx, address, s.patience)
		if ctx.Err() != nil {
			return false, 0
		}
		if welcomed {
			clear(s.said)
		}
		a.complain(s, address, err)
		if welcomed {
			s.lost = address
			return true, time.Since(began)
		}
	}
	return false, 0
}

// complain logs why there is no session with a manager, once while the reason
// is the same.
func (a *Agent) complain(s *search, address string, err error) {
	if text := fmt.Sprint(err); s.said[address] != text {
		s.said[address] = text
		a.log.Warn("session ended; the node goes on by its last assignment", "manager", address, "error", err)
	}
}

// keepPapers renews the node's certificate when it is time, and when a manager
// asks for it.
func (a *Agent) keepPapers(ctx context.Context) error {
	if a.config.Renew == nil {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.renew:
		case <-a.renewalDue():
			if a.config.RenewAt().After(time.Now()) {
				continue
			}
		}
		if err := a.renewPapers(ctx); err != nil {
			return err
		}
	}
}

// renewalDue fires when the date is to be looked at.
func (a *Agent) renewalDue() <-chan time.Time {
	if a.config.RenewAt == nil {
		return nil
	}
	return time.After(min(max(time.Until(a.config.RenewAt()), 0), renewLook))
}

// renewPapers renews the certificate, and tries again until it could.
func (a *Agent) renewPapers(ctx context.Context) error {
	for wait := renewFirst; ; wait = min(2*wait, renewLast) {
		err := a.config.Renew(ctx)
		if err == nil {
			a.log.Info("certificate was renewed")
			a.outbox.renewed(a.papers())
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.log.Warn("certificate was not renewed; it is tried again", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// papers is what the node's certificate says now.
func (a *Agent) papers() *wire.Papers {
	if a.config.Papers == nil {
		return nil
	}
	role, issuer := a.config.Papers()
	return &wire.Papers{Role: role, Issuer: issuer}
}
