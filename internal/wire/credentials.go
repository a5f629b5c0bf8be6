package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/gitswarm/gitswarm/internal/identity"
)

// shaken are the credentials of connections that are secure before gRPC gets
// them: identity's port has shaken hands, or they never leave this machine. It
// refuses plain TCP.
type shaken struct{}

// ServerHandshake keeps what the handshake proved, for Caller.
func (shaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	private := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	if secured, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return conn, credentials.TLSInfo{State: secured.ConnectionState(), CommonAuthInfo: private}, nil
	}
	if _, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		return nil, nil, fmt.Errorf("take connection of %s: it is TCP without TLS", conn.RemoteAddr())
	}
	return conn, local{private}, nil
}

// ClientHandshake is no part of a server's credentials.
func (shaken) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("shake hands: these credentials are a server's")
}

// Info names the protocol.
func (shaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "gitswarm"}
}

// Clone returns itself: there is nothing in it.
func (s shaken) Clone() credentials.TransportCredentials { return s }

// OverrideServerName changes nothing: names of hosts are no proof.
func (shaken) OverrideServerName(string) error { return nil }

// local is what is known of a connection that never leaves this machine.
type local struct{ credentials.CommonAuthInfo }

// AuthType is credentials.AuthInfo's.
func (local) AuthType() string { return "local" }

// guard refuses a call by who makes it, before anything of it is read.
func guard(services Services) tap.ServerInHandle {
	return func(ctx context.Context, call *tap.Info) (context.Context, error) {
		may, protocol := nodeCalls, identity.ProtocolWire
		if strings.HasPrefix(call.FullMethodName, "/"+managersService+"/") {
			may, protocol = managerCalls, identity.ProtocolRaft
		}
		err := may(ctx)
		if err == nil {
			err = services.judge(ctx, protocol)
		}
		if err != nil {
			note(ctx, services.Refusals, status.Convert(err).Message())
		}
		return ctx, err
	}
}

// judge asks Admit about callers who showed a certificate.
func (s Services) judge(ctx context.Context, protocol string) error {
	caller, err := Caller(ctx)
	if err != nil || s.Admit == nil {
		return nil
	}
	if err := s.Admit(caller, protocol); err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return nil
}

// nodeCalls refuses whoever shows no certificate of the cluster. Where there is
// no TLS, whoever opened the listener knows who comes.
func nodeCalls(ctx context.Context) error {
	if _, err := Caller(ctx); err != nil && !errors.Is(err, ErrPlain) {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	return nil
}
