// Package identity says who is who in a cluster: certificates of its nodes,
// the authority that signs them, tokens that let machines in, and the one port
// on which managers are reached, with TLS 1.3 on both ends. It refuses to judge
// what a peer may do beyond its role, asks nobody whether a node still exists
// (Port.Admit does), renews nothing by itself, and takes no host name for proof.
package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Protocols by their ALPN names. All but the last share the managers' port.
const (
	ProtocolRaft = "gitswarm-raft" // the store's transport: managers alone
	ProtocolWire = "h2"            // gRPC, internal/wire: anybody; the services ask for certificates
	ProtocolAPI  = "gitswarm-api"  // HTTP/1.1 from manager to manager
	ProtocolHTTP = "http/1.1"      // the users' API, on a port of its own; also of clients that name no protocol
)

// Peer is what a verified certificate says of its holder.
type Peer struct {
	Node    swarm.NodeID
	Role    string // swarm.RoleManager or swarm.RoleWorker
	Cluster string
	Issuer  string // Issuer of the authority that signed it; Issue passes over it
}

// Why a peer is refused.
var (
	ErrNoCertificate = errors.New("no certificate was shown")
	ErrRole          = errors.New("its certificate is not a manager's")
	ErrCluster       = errors.New("its certificate is of another cluster")
	ErrProtocol      = errors.New("it speaks none of this port's protocols")
	ErrMalformed     = errors.New("its certificate names no node")
)

// PeerOf returns who is at the other end of a connection of Server's or
// Client's configuration. Errors: ErrNoCertificate, ErrMalformed.
func PeerOf(state tls.ConnectionState) (Peer, error) {
	if len(state.VerifiedChains) == 0 {
		return Peer{}, ErrNoCertificate
	}
	return peerIn(state.VerifiedChains[0][0])
}

// maxName is the longest name of a node or cluster in a certificate, in bytes.
const maxName = 64 // ub-common-name of RFC 5280

func peerIn(leaf *x509.Certificate) (Peer, error) {
	subject := leaf.Subject
	if leaf.IsCA || len(subject.Organization) != 1 || len(subject.OrganizationalUnit) != 1 {
		return Peer{}, ErrMalformed
	}
	p := Peer{
		Node: swarm.NodeID(subject.CommonName), Role: subject.OrganizationalUnit[0], Cluster: subject.Organization[0],
		Issuer: hex.EncodeToString(leaf.AuthorityKeyId),
	}
	return p, p.check()
}

func (p Peer) check() error {
	switch {
	case p.Node == "" || len(p.Node) > maxName:
		return fmt.Errorf("%w: node %.80q", ErrMalformed, p.Node)
	case p.Cluster == "" || len(p.Cluster) > maxName:
		return fmt.Errorf("%w: cluster %.80q", ErrMalformed, p.Cluster)
	case p.Role != swarm.RoleManager && p.Role != swarm.RoleWorker:
		return fmt.Errorf("%w: role %.80q", ErrMalformed, p.Role)
	}
	return nil
}

// backdate lets nodes whose clocks are behind take a new certificate.
const backdate = time.Hour
