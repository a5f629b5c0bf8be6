package identity

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// Server returns the configuration of a port that speaks the protocols. A
// client's certificate is asked for, and verified if there is one; protocols
// of managers alone refuse all others. It holds the identity as it is now:
// take a new one for each handshake, as Listen does.
func (n *Node) Server(protocols ...string) *tls.Config {
	p := n.papers()
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             protocols,
		Certificates:           []tls.Certificate{p.certificate},
		ClientAuth:             tls.VerifyClientCertIfGiven,
		ClientCAs:              p.roots,
		SessionTicketsDisabled: true, // each connection proves itself anew
		VerifyConnection: func(state tls.ConnectionState) error {
			if !slices.Contains(protocols, spoken(state)) {
				return ErrProtocol
			}
			return p.admit(state)
		},
	}
}

// spoken is the protocol of a connection.
func spoken(state tls.ConnectionState) string { return cmp.Or(state.NegotiatedProtocol, ProtocolHTTP) }

// admit judges a client whose certificate, if it has one, was found to be of a
// trusted root.
func (p papers) admit(state tls.ConnectionState) error {
	peer, err := PeerOf(state)
	managers := state.NegotiatedProtocol == ProtocolRaft || state.NegotiatedProtocol == ProtocolAPI
	switch {
	case errors.Is(err, ErrNoCertificate) && !managers:
		return nil
	case err != nil:
		return err
	case peer.Cluster != p.peer.Cluster:
		return ErrCluster
	case managers && peer.Role != swarm.RoleManager:
		return ErrRole
	}
	return nil
}

// Client returns the configuration of a connection to a node of the role (only
// managers can be reached) that speaks the protocol. Host names count for
// nothing. It holds the identity as it is now: take a new one for each dial.
func (n *Node) Client(protocol, role string) *tls.Config {
	p := n.papers()
	config := pinned(p.roots, protocol, role)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &p.certificate, nil }
	config.VerifyConnection = func(state tls.ConnectionState) error {
		peer, err := expect(state, protocol, role)
		if err == nil && peer.Cluster != p.peer.Cluster {
			return ErrCluster
		}
		return err
	}
	return config
}

// Pinned is the configuration of a joiner: it has no certificate, and trusts
// the one root that its token named.
func Pinned(root []byte, protocol string) (*tls.Config, error) {
	roots, err := poolOf(root)
	if err != nil {
		return nil, err
	}
	return pinned(roots, protocol, swarm.RoleManager), nil
}

func pinned(roots *x509.CertPool, protocol, role string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocol},
		RootCAs:    roots,
		ServerName: role, // the one name in a manager's certificate
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := expect(state, protocol, role)
			return err
		},
	}
}

func expect(state tls.ConnectionState, protocol, role string) (Peer, error) {
	peer, err := PeerOf(state)
	switch {
	case err != nil:
		return peer, err
	case state.NegotiatedProtocol != protocol:
		return peer, ErrProtocol
	case peer.Role != role:
		return peer, ErrRole
	}
	return peer, nil
}

// Unverified is the configuration of a joiner's first connection, which asks
// for the authority's certificate and says nothing: whoever answers is
// believed only as far as the token's digest goes.
func Unverified(protocol string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, InsecureSkipVerify: true, ServerName: swarm.RoleManager}
}

// Dial reaches the manager at address and speaks the protocol with it. A
// manager that refuses this node's certificate says so at the first read.
func (n *Node) Dial(ctx context.Context, address, protocol string) (net.Conn, error) {
	return Dial(ctx, address, n.Client(protocol, swarm.RoleManager))
}

// Dial connects to address and shakes hands until ctx ends.
func Dial(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect to manager at %s: %w", address, err)
	}
	return conn, nil
}
