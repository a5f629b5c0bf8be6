package store

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	messageTimeout = 3 * time.Second // for an answer of another manager; longer for snapshots, by their size
	pooledStreams  = 3               // connections to each manager that wait to be used again
	oneAtATime     = 1               // messages with entries under way to one manager: see below
	reachableFor   = time.Second     // since the last answer; heartbeats go out every 70 to 140 ms
)

// With more than one message under way, raft 1.8.0 pipelines them, and hangs
// when the other manager refuses one because its disk failed: that manager then
// gets heartbeats and never an entry again, and Close of this one never ends.
// https://github.com/hashicorp/raft/issues/612

// transport is raft's way to other managers. It remembers what they answered
// last.
type transport struct {
	*raft.NetworkTransport
	streams *streams

	mu      sync.Mutex
	answers map[raft.ServerAddress]answer
}

// answer is what another manager said to a heartbeat.
type answer struct {
	at   time.Time
	last uint64 // of its log
}

func newTransport(peers Peers, address, incarnation string, logger hclog.Logger) *transport {
	s := newStreams(peers, address, incarnation)
	return &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: s, MaxPool: pooledStreams, Timeout: messageTimeout, Logger: logger, MaxRPCsInFlight: oneAtATime,
		}),
		streams: s,
		answers: map[raft.ServerAddress]answer{},
	}
}

// AppendEntries implements raft.Transport; heartbeats come this way.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, request *raft.AppendEntriesRequest, response *raft.AppendEntriesResponse) error {
	if err := t.NetworkTransport.AppendEntries(id, target, request, response); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answers[target] = answer{at: time.Now(), last: response.LastLog}
	return nil
}

// answered returns the last answer of that manager and whether it is recent.
func (t *transport) answered(target raft.ServerAddress) (answer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.answers[target]
	return a, ok && time.Since(a.at) < reachableFor
}

// forget drops the answers of managers that are no members any more.
func (t *transport) forget(members []raft.Server) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := map[raft.ServerAddress]answer{}
	for _, m := range members {
		if a, ok := t.answers[m.Address]; ok {
			kept[m.Address] = a
		}
	}
	t.answers = kept
}
