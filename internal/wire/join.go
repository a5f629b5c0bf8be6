package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/swarm"
)

// JoinServer lets machines into the cluster and renews their certificates.
type JoinServer interface {
	// Authority returns the roots that are trusted, PEM. Anybody may ask; the
	// caller is the zero Peer if it showed no certificate. A node asks by each
	// new certificate of its own, so this is where it is seen to have it: not
	// before is the root of its old one without use.
	Authority(ctx context.Context, caller identity.Peer) ([]byte, error)
	// Join makes a node of a machine. identity.RoleOf says which role the token
	// gives; error ErrBadToken if none. A machine that asks twice with one key
	// is one node (identity.NodeOf).
	Join(context.Context, JoinRequest) (Joined, error)
	// Renew signs a new key of the peer, in the role that the state gives it
	// now. Error: ErrRemoved.
	Renew(ctx context.Context, peer identity.Peer, csr []byte) (Renewed, error)
}

// Why a machine is not let in.
var (
	ErrBadToken = errors.New("the join token is not, or no longer, of this cluster: ask one of its managers for a new one, by `gitswarm token worker` or `gitswarm token manager`")
	ErrRemoved  = errors.New("the node was removed from the cluster: `gitswarm leave --force` here, then join again")
)

// maxToken is the longest text that is looked at as a token, in bytes.
const maxToken = 128

// JoinRequest asks to become a node.
type JoinRequest struct {
	Token        string                `cbor:"1,keyasint,omitempty"`
	CSR          []byte                `cbor:"2,keyasint,omitempty"` // PEM, identity.NewRequest
	Description  swarm.NodeDescription `cbor:"3,keyasint,omitempty"`
	Availability swarm.Availability    `cbor:"4,keyasint,omitempty"` // active unless set
}

// Joined is what a new node gets.
type Joined struct {
	Node     swarm.NodeID `cbor:"1,keyasint,omitempty"`
	Cluster  string       `cbor:"2,keyasint,omitempty"`
	Role     string       `cbor:"3,keyasint,omitempty"`
	Chain    []byte       `cbor:"4,keyasint,omitempty"` // PEM, for identity.Create
	Trust    []byte       `cbor:"5,keyasint,omitempty"` // PEM
	Managers []string     `cbor:"6,keyasint,omitempty"` // host:port
}

// Renewed is what a node gets whose certificate is renewed.
type Renewed struct {
	Chain    []byte   `cbor:"1,keyasint,omitempty"` // PEM, for identity.Node.Save
	Trust    []byte   `cbor:"2,keyasint,omitempty"` // PEM
	Managers []string `cbor:"3,keyasint,omitempty"` // host:port
}

// roots is the answer to Authority.
type roots struct {
	Trust []byte `cbor:"1,keyasint,omitempty"`
}

type renewal struct {
	CSR []byte `cbor:"1,keyasint,omitempty"`
}

const (
	joinService     = "gitswarm.Join"
	authorityMethod = "/" + joinService + "/Authority"
	joinMethod      = "/" + joinService + "/Join"
	renewMethod     = "/" + joinService + "/Renew"
)

// joins answers the service, and logs whom it turns away.
type joins struct {
	server   JoinServer
	refusals *identity.Refusals
}

var joinDescription = grpc.ServiceDesc{
	ServiceName: joinService,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "Authority", Handler: joinCall(joins.authority)},
		{MethodName: "Join", Handler: joinCall(joins.join)},
		{MethodName: "Renew", Handler: joinCall(joins.renew)},
	},
}

func joinCall[In, Out any](call func(joins, context.Context, In) (Out, error)) grpc.MethodHandler {
	return func(server any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var in In
		if err := decode(&in); err != nil {
			return nil, err
		}
		out, err := call(server.(joins), ctx, in)
		return &out, err
	}
}

func (j joins) authority(ctx context.Context, _ nothing) (roots, error) {
	caller, err := Caller(ctx)
	if err != nil {
		caller = identity.Peer{}
	}
	trust, err := j.server.Authority(ctx, caller)
	return roots{Trust: trust}, err
}

func (j joins) join(ctx context.Context, r JoinRequest) (Joined, error) {
	if len(r.Token) > maxToken || len(r.CSR) > identity.MaxPEM {
		return Joined{}, j.refuse(ctx, ErrBadToken)
	}
	answer, err := j.server.Join(ctx, r)
	return answer, j.refuse(ctx, err)
}

func (j joins) renew(ctx context.Context, r renewal) (Renewed, error) {
	caller, err := Caller(ctx)
	if err != nil {
		return Renewed{}, status.Error(codes.Unauthenticated, err.Error())
	}
	answer, err := j.server.Renew(ctx, caller, r.CSR)
	return answer, j.refuse(ctx, err)
}

// refuse logs errors that are the caller's fault.
func (j joins) refuse(ctx context.Context, err error) error {
	for _, cause := range []error{ErrBadToken, ErrRemoved} {
		if errors.Is(err, cause) {
			note(ctx, j.refusals, cause.Error())
			return status.Error(codes.PermissionDenied, err.Error())
		}
	}
	return err
}

func note(ctx context.Context, refusals *identity.Refusals, cause string) {
	if from, ok := peer.FromContext(ctx); ok {
		refusals.Note(from.Addr, cause)
	}
}

// Join asks the manager at address to make this machine a node. Nobody but a
// manager whose root the token names ever sees the token: the root is fetched
// by a first connection, which trusts nobody and says nothing, and compared
// with the token; a second one trusts that root alone.
func Join(ctx context.Context, address string, token identity.Token, r JoinRequest) (Joined, error) {
	joined, err := join(ctx, address, token, r)
	if err != nil {
		return Joined{}, fmt.Errorf("join by manager %s: %w", address, err)
	}
	return joined, nil
}

func join(ctx context.Context, address string, token identity.Token, r JoinRequest) (answer Joined, err error) {
	var said roots
	err = once(ctx, address, identity.Unverified(identity.ProtocolWire), authorityMethod, &nothing{}, &said)
	if err != nil {
		return answer, fmt.Errorf("ask for its authority: %w", err)
	}
	root, err := token.Root(said.Trust)
	if err != nil {
		return answer, err
	}
	pinned, err := identity.Pinned(root, identity.ProtocolWire)
	if err != nil {
		return answer, err
	}
	r.Token = token.Reveal()
	return answer, once(ctx, address, pinned, joinMethod, &r, &answer)
}

// once makes one call by a connection of its own.
func once(ctx context.Context, address string, config *tls.Config, method string, in, out any) error {
	conn, err := identity.Dial(ctx, address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	used := false
	client, err := Dial(func(context.Context) (net.Conn, error) {
		if used {
			return nil, fmt.Errorf("manager at %s broke the connection off", address)
		}
		used = true
		return conn, nil
	})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.conn.Invoke(ctx, method, in, out, grpc.MaxCallRecvMsgSize(maxFromStranger)); err != nil {
		return plain(err)
	}
	return nil
}

// Renew gives n a new key and certificate by the manager at address, in the
// role that the cluster gives it now. It returns once the manager has seen the
// new certificate.
func Renew(ctx context.Context, n *identity.Node, address string) error {
	key, csr, err := identity.NewRequest()
	if err != nil {
		return err
	}
	var answer Renewed
	config := n.Client(identity.ProtocolWire, swarm.RoleManager)
	if err := once(ctx, address, config, renewMethod, &renewal{CSR: csr}, &answer); err != nil {
		return fmt.Errorf("renew certificate of node %s: %w", n.Peer().Node, err)
	}
	if err := n.Save(key, answer.Chain, answer.Trust); err != nil {
		return err
	}
	return FollowTrust(ctx, n, address)
}

// FollowTrust takes over the roots that the manager at address trusts: after a
// rotation has ended, n goes on trusting the old root until somebody calls this
// or Renew.
func FollowTrust(ctx context.Context, n *identity.Node, address string) error {
	var said roots
	config := n.Client(identity.ProtocolWire, swarm.RoleManager)
	if err := once(ctx, address, config, authorityMethod, &nothing{}, &said); err != nil {
		return fmt.Errorf("ask manager %s which roots are trusted: %w", address, err)
	}
	return n.SaveTrust(said.Trust)
}

// Renew asks for a certificate of the key of csr.
func (c *Client) Renew(ctx context.Context, csr []byte) (answer Renewed, err error) {
	if err := c.invoke(ctx, renewMethod, &renewal{CSR: csr}, &answer); err != nil {
		return answer, fmt.Errorf("renew certificate: %w", err)
	}
	return answer, nil
}

// Authority asks which roots are trusted, PEM.
func (c *Client) Authority(ctx context.Context) ([]byte, error) {
	var answer roots
	if err := c.invoke(ctx, authorityMethod, &nothing{}, &answer); err != nil {
		return nil, fmt.Errorf("ask which roots are trusted: %w", err)
	}
	return answer.Trust, nil
}
