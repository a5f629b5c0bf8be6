package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/swarm"
)

// Stream is a conversation: Send may be called from one goroutine while
// another calls Recv. Recv gives io.EOF when the other side has said all.
type Stream[Out, In any] interface {
	Context() context.Context
	Send(*Out) error
	Recv() (*In, error)
}

// Server is what a manager does for agents. Each call ends when it returns; an
// error reaches the agent as its text.
type Server interface {
	Session(Stream[FromManager, FromAgent]) error
	Blob(context.Context, BlobRequest) ([]byte, error)
	Attach(Stream[DownFrame, UpFrame]) error
}

const (
	service       = "gitswarm.Agents"
	sessionMethod = "/" + service + "/Session"
	blobMethod    = "/" + service + "/Blob"
	attachMethod  = "/" + service + "/Attach"
)

// Keepalive finds a peer that is gone without a word. The session's own
// heartbeats are faster; these guard attached streams.
const (
	pingAfter      = 10 * time.Second
	pingTimeout    = 5 * time.Second
	connectTimeout = 2 * time.Second
	maxStreams     = 1000    // of one connection
	bufferSize     = 4 << 10 // bytes, of each direction of a connection: a manager has thousands
)

// Services is what a manager answers. A nil one is refused as unknown.
type Services struct {
	Agents   Server             // optional
	Managers ManagerServer      // optional: other managers alone may call it
	Join     JoinServer         // optional: anybody may call it
	Refusals *identity.Refusals // optional: who is turned away is noted there

	// Admit judges the caller at each call, as Port.Admit does at each
	// handshake: connections outlive what is known of their nodes. Calls that
	// are for managers alone count as identity.ProtocolRaft. Optional.
	Admit func(caller identity.Peer, protocol string) error
}

// Serve answers on listener until ctx ends, which is not an error. It closes
// listener, and every stream. Whoever shows no certificate on a TLS connection
// gets the service Join and nothing else.
func Serve(ctx context.Context, listener net.Listener, services Services) error {
	if services.Refusals == nil {
		services.Refusals = identity.NewRefusals(slog.New(slog.DiscardHandler))
	}
	door := newDoor(listener, services.Refusals)
	group, serving := errgroup.WithContext(ctx)
	group.Go(func() error { return serveStrangers(serving, door.hall, services) })
	group.Go(func() error { return serveNodes(serving, door, services) })
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// serveNodes answers whoever has a certificate, or is on this machine.
func serveNodes(ctx context.Context, listener net.Listener, services Services) error {
	s := grpc.NewServer(
		grpc.Creds(shaken{}),
		grpc.InTapHandle(guard(services)),
		grpc.ForceServerCodec(cborCodec{}),
		grpc.MaxRecvMsgSize(MaxFromAgent),
		grpc.MaxSendMsgSize(MaxFromManager),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ReadBufferSize(bufferSize),
		grpc.WriteBufferSize(bufferSize),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	if services.Agents != nil {
		s.RegisterService(&description, services.Agents)
	}
	if services.Managers != nil {
		s.RegisterService(&managersDescription, services.Managers)
	}
	if services.Join != nil {
		s.RegisterService(&joinDescription, joins{server: services.Join, refusals: services.Refusals})
	}

	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(listener); err != nil && ctx.Err() == nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	}
	return nil
}

// description is written by hand: the messages have no protobuf form.
var description = grpc.ServiceDesc{
	ServiceName: service,
	HandlerType: (*Server)(nil),
	Streams: []grpc.StreamDesc{
		{StreamName: "Session", Handler: serveSession, ServerStreams: true, ClientStreams: true},
		{StreamName: "Blob", Handler: serveBlob, ServerStreams: true},
		{StreamName: "Attach", Handler: serveAttach, ServerStreams: true, ClientStreams: true},
	},
}

func serveSession(server any, stream grpc.ServerStream) error {
	if err := nodeCalls(stream.Context()); err != nil {
		return err
	}
	return server.(Server).Session(&grpc.GenericServerStream[FromAgent, FromManager]{ServerStream: stream})
}

func serveAttach(server any, stream grpc.ServerStream) error {
	if err := nodeCalls(stream.Context()); err != nil {
		return err
	}
	return server.(Server).Attach(&grpc.GenericServerStream[UpFrame, DownFrame]{ServerStream: stream})
}

func serveBlob(server any, stream grpc.ServerStream) error {
	if err := nodeCalls(stream.Context()); err != nil {
		return err
	}
	var request BlobRequest
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	data, err := server.(Server).Blob(stream.Context(), request)
	if err != nil {
		return err
	}
	return sendChunks(stream, data)
}

// cborCodec is the wire's only encoding.
type cborCodec struct{}

func (cborCodec) Name() string                       { return "cbor" }
func (cborCodec) Marshal(v any) ([]byte, error)      { return codec.Encode(v) }
func (cborCodec) Unmarshal(data []byte, v any) error { return codec.Decode(data, v) }

// checkBlob compares data with what its digest promises. Keyed digests, those
// of secrets, only managers can check.
func checkBlob(digest swarm.Digest, data []byte) error {
	if len(digest) > 7 && digest[:7] == "sha256:" && codec.DigestBytes(data) != digest {
		return fmt.Errorf("blob %s arrived with other content: fetch it again", digest)
	}
	return nil
}
