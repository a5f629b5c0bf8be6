// Package peers is a manager's way to the other managers, and its answers to
// them: raft's connections, entries of the log for the leader, signs of life of
// agents, content, streams of each other's agents. It keeps one connection to
// each manager and decides nothing; who may connect was settled before, by
// certificates.
package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

var (
	_ store.Peers = (*Peers)(nil)
	_ blobs.Peer  = content{}
)

// Dial connects to the manager at an address. The connection proves both ends.
type Dial func(ctx context.Context, address string) (net.Conn, error)

// Config is what Peers are made of.
type Config struct {
	Raft     net.Listener // required: raft's connections, of managers alone
	DialRaft Dial         // required
	DialWire Dial         // required
}

// Peers reaches other managers. It is safe for concurrent use.
type Peers struct {
	config Config

	mu      sync.Mutex
	clients map[string]*wire.Client // by address
}

// New returns peers that are not connected yet.
func New(config Config) *Peers { return &Peers{config: config, clients: make(map[string]*wire.Client)} }

// Close ends the connections, but for raft's.
func (p *Peers) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, client := range p.clients {
		errs = append(errs, client.Close())
	}
	clear(p.clients)
	return errors.Join(errs...)
}

// Listener gives raft's connections.
func (p *Peers) Listener() net.Listener { return p.config.Raft }

// Dial makes one of raft's connections.
func (p *Peers) Dial(ctx context.Context, address string) (net.Conn, error) {
	return p.config.DialRaft(ctx, address)
}

func (p *Peers) client(address string) (*wire.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if client := p.clients[address]; client != nil {
		return client, nil
	}
	client, err := wire.Dial(func(ctx context.Context) (net.Conn, error) { return p.config.DialWire(ctx, address) })
	if err != nil {
		return nil, err
	}
	p.clients[address] = client
	return client, nil
}

// Forward puts an entry into the log through the manager at address, see
// store.Peers.
func (p *Peers) Forward(ctx context.Context, address string, entry []byte) (uint64, error) {
	client, err := p.client(address)
	if err != nil {
		return 0, err
	}
	reply, err := client.Propose(ctx, entry)
	if errors.Is(err, wire.ErrUnreached) {
		return 0, fmt.Errorf("%w: %w", store.ErrNotLeader, err)
	}
	if err != nil {
		return 0, err
	}
	return reply.Index, refusal(reply)
}

// ReadIndex asks the manager at address where the log is, see store.Peers.
func (p *Peers) ReadIndex(ctx context.Context, address string) (uint64, error) {
	client, err := p.client(address)
	if err != nil {
		return 0, err
	}
	reply, err := client.ReadIndex(ctx)
	if err != nil {
		return 0, err
	}
	return reply.Index, refusal(reply)
}

// Beat tells the manager at address of this manager's agents.
func (p *Peers) Beat(ctx context.Context, address string, beat wire.Beat) (wire.BeatReply, error) {
	client, err := p.client(address)
	if err != nil {
		return wire.BeatReply{}, err
	}
	return client.Beat(ctx, beat)
}

// Relay opens a stream through the manager at address, until ctx ends.
func (p *Peers) Relay(ctx context.Context, address string) (wire.Relayed, error) {
	client, err := p.client(address)
	if err != nil {
		return nil, err
	}
	return client.Relay(ctx)
}

// Blobs returns what the voters of state other than node keep, as blobs.Config
// asks for it.
func (p *Peers) Blobs(node swarm.NodeID, state *store.Store) []blobs.Peer {
	var others []blobs.Peer
	for _, member := range state.Members() {
		if member.Voter && member.Node != node {
			others = append(others, content{peers: p, address: member.Address})
		}
	}
	return others
}

// content is what one manager keeps.
type content struct {
	peers   *Peers
	address string
}

// PutBlob gives the manager content.
func (c content) PutBlob(ctx context.Context, digest swarm.Digest, data []byte) error {
	client, err := c.peers.client(c.address)
	if err != nil {
		return err
	}
	return client.PutBlob(ctx, digest, data)
}

// GetBlob fetches content from the manager.
func (c content) GetBlob(ctx context.Context, digest swarm.Digest) ([]byte, error) {
	client, err := c.peers.client(c.address)
	if err != nil {
		return nil, err
	}
	return client.GetBlob(ctx, digest)
}
