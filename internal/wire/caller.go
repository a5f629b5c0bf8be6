package wire

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/swarm"
)

// ErrPlain means that a connection has no TLS: it is of this machine, by a
// socket that only its owner may use, or of this very process.
var ErrPlain = errors.New("the connection has no certificates")

// Caller returns who calls. Errors: ErrPlain, identity.ErrNoCertificate.
func Caller(ctx context.Context) (identity.Peer, error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return identity.Peer{}, ErrPlain
	}
	secured, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return identity.Peer{}, ErrPlain
	}
	return identity.PeerOf(secured.State)
}

// managerCalls refuses whoever shows no manager's certificate. Where there is
// no TLS, whoever opened the listener knows who comes.
func managerCalls(ctx context.Context) error {
	caller, err := Caller(ctx)
	switch {
	case errors.Is(err, ErrPlain):
		return nil
	case err != nil:
		return status.Error(codes.Unauthenticated, err.Error())
	case caller.Role != swarm.RoleManager:
		return status.Error(codes.PermissionDenied, identity.ErrRole.Error())
	}
	return nil
}
