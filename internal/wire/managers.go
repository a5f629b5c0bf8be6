package wire

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"github.com/gitswarm/gitswarm/swarm"
)

// ErrUnreached means that there was no connection: nothing was sent.
var ErrUnreached = errors.New("the manager was not reached")

// ManagerServer is what a manager does for the others. Whoever implements it
// may trust that a manager calls.
type ManagerServer interface {
	// Propose puts an entry into the log, at the leader.
	Propose(ctx context.Context, entry []byte) (ProposeReply, error)
	// ReadIndex is the leader's, once it has made sure that it leads.
	ReadIndex(context.Context) (ProposeReply, error)
	// Beat tells the leader of the agents at another manager.
	Beat(context.Context, Beat) (BeatReply, error)
	// PutBlob keeps sealed content durably.
	PutBlob(ctx context.Context, digest swarm.Digest, data []byte) error
	// GetBlob reads content.
	GetBlob(ctx context.Context, digest swarm.Digest) ([]byte, error)
	// Relay joins the caller to a stream of a node whose session is here.
	Relay(Stream[UpFrame, RelayFrame]) error
}

// maxEntry bounds a log entry that one manager forwards to another, in bytes.
const maxEntry = 17 << 20

// ProposeReply says what became of an entry, or where the log is.
type ProposeReply struct {
	Index   uint64  `cbor:"1,keyasint,omitempty"` // also where the state refused the entry
	Refusal Refusal `cbor:"2,keyasint,omitempty"`
	Reason  string  `cbor:"3,keyasint,omitempty"` // in words, where there is a Refusal
}

// Refusal says why an entry was not taken, so that the caller can tell these
// apart; what is in the words is for people.
type Refusal int

// The refusals. Other errors are errors of the call.
const (
	RefusedStale     Refusal = 1 // the decision was taken on an older record
	RefusedNotFound  Refusal = 2 // what the command speaks of is not there
	RefusedNotLeader Refusal = 3 // the manager asked does not lead, or not any more
	RefusedLevel     Refusal = 4 // a voter's build does not know the command
	RefusedOther     Refusal = 5 // the state refused it for the reason in words
)

// Beat is what a manager tells the leader of its agents' sessions: many signs
// of life in one message, outside the log.
type Beat struct {
	Manager  swarm.NodeID   `cbor:"1,keyasint,omitempty"`
	Index    uint64         `cbor:"2,keyasint,omitempty"` // of the state that the manager's assignments are made from
	Full     bool           `cbor:"3,keyasint,omitempty"` // Sessions are all there are; what was said before counts no more
	Sessions []swarm.NodeID `cbor:"4,keyasint,omitempty"` // that began, or all of them
	Ended    []swarm.NodeID `cbor:"5,keyasint,omitempty"` // nodes without a session here any more
	Heard    []swarm.NodeID `cbor:"6,keyasint,omitempty"` // gave a sign of life since the last Beat
	Behind   []Reach        `cbor:"7,keyasint,omitempty"` // sessions that have not reached Index
}

// Reach is how far a node has come: it acts as the assignment of Index wants.
type Reach struct {
	Node  swarm.NodeID `cbor:"1,keyasint,omitempty"`
	Index uint64       `cbor:"2,keyasint,omitempty"`
}

// BeatReply is the leader's answer.
type BeatReply struct {
	Refused bool `cbor:"1,keyasint,omitempty"` // the manager asked does not lead
	Full    bool `cbor:"2,keyasint,omitempty"` // the leader does not know the sessions: send all of them
}

// RelayFrame is one message of the manager that reaches through. Open is set
// in the first alone.
type RelayFrame struct {
	Node   swarm.NodeID `cbor:"1,keyasint,omitempty"` // whose stream is asked for
	Open   *Open        `cbor:"2,keyasint,omitempty"`
	Passed int          `cbor:"3,keyasint,omitempty"` // managers that this came through; bounded, so that it never runs in a circle
	Down   *DownFrame   `cbor:"4,keyasint,omitempty"`
}

// blobHead comes before the pieces of a blob.
type blobHead struct {
	Digest swarm.Digest `cbor:"1,keyasint,omitempty"`
}

// nothing is an answer without content.
type nothing struct{}

const (
	managersService = "gitswarm.Managers"
	proposeMethod   = "/" + managersService + "/Propose"
	indexMethod     = "/" + managersService + "/ReadIndex"
	beatMethod      = "/" + managersService + "/Beat"
	putBlobMethod   = "/" + managersService + "/PutBlob"
	getBlobMethod   = "/" + managersService + "/GetBlob"
	relayMethod     = "/" + managersService + "/Relay"
)

var managersDescription = grpc.ServiceDesc{
	ServiceName: managersService,
	HandlerType: (*ManagerServer)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "ReadIndex", Handler: unary(func(ctx context.Context, s ManagerServer, _ nothing) (ProposeReply, error) { return s.ReadIndex(ctx) })},
		{MethodName: "Beat", Handler: unary(func(ctx context.Context, s ManagerServer, b Beat) (BeatReply, error) { return s.Beat(ctx, b) })},
	},
	Streams: []grpc.StreamDesc{
		{StreamName: "Propose", Handler: servePropose, ClientStreams: true, ServerStreams: true},
		{StreamName: "PutBlob", Handler: servePutBlob, ClientStreams: true, ServerStreams: true},
		{StreamName: "GetBlob", Handler: serveGetBlob, ServerStreams: true},
		{StreamName: "Relay", Handler: serveRelay, ClientStreams: true, ServerStreams: true},
	},
}

// unary makes gRPC's handler from a call of one message each way.
func unary[In, Out any](call func(context.Context, ManagerServer, In) (Out, error)) grpc.MethodHandler {
	return func(server any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if err := managerCalls(ctx); err != nil {
			return nil, err
		}
		var in In
		if err := decode(&in); err != nil {
			return nil, err
		}
		out, err := call(ctx, server.(ManagerServer), in)
		return &out, err
	}
}

func servePropose(server any, stream grpc.ServerStream) error {
	if err := managerCalls(stream.Context()); err != nil {
		return err
	}
	entry, err := readChunks(stream, maxEntry)
	if err != nil {
		return err
	}
	reply, err := server.(ManagerServer).Propose(stream.Context(), entry)
	if err != nil {
		return err
	}
	return stream.SendMsg(&reply)
}

func serveRelay(server any, stream grpc.ServerStream) error {
	if err := managerCalls(stream.Context()); err != nil {
		return err
	}
	return server.(ManagerServer).Relay(&grpc.GenericServerStream[RelayFrame, UpFrame]{ServerStream: stream})
}

func serveGetBlob(server any, stream grpc.ServerStream) error {
	if err := managerCalls(stream.Context()); err != nil {
		return err
	}
	var request BlobRequest
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	data, err := server.(ManagerServer).GetBlob(stream.Context(), request.Digest)
	if err != nil {
		return err
	}
	return sendChunks(stream, data)
}

func servePutBlob(server any, stream grpc.ServerStream) error {
	if err := managerCalls(stream.Context()); err != nil {
		return err
	}
	var head blobHead
	if err := stream.RecvMsg(&head); err != nil {
		return err
	}
	data, err := readChunks(stream, MaxBlob)
	if err != nil {
		return err
	}
	if err := server.(ManagerServer).PutBlob(stream.Context(), head.Digest, data); err != nil {
		return err
	}
	return stream.SendMsg(&nothing{})
}

// Propose forwards an entry to the manager, which must lead. Error:
// ErrUnreached.
func (c *Client) Propose(ctx context.Context, entry []byte) (reply ProposeReply, err error) {
	if err := c.give(ctx, proposeMethod, nil, entry, &reply); err != nil {
		return reply, fmt.Errorf("forward an entry: %w", plain(err))
	}
	return reply, nil
}

// ReadIndex asks the manager, which must lead, where the log is.
func (c *Client) ReadIndex(ctx context.Context) (reply ProposeReply, err error) {
	return reply, c.invoke(ctx, indexMethod, &nothing{}, &reply)
}

// Beat tells the manager, which should lead, of the agents at this one.
func (c *Client) Beat(ctx context.Context, beat Beat) (reply BeatReply, err error) {
	return reply, c.invoke(ctx, beatMethod, &beat, &reply)
}

func (c *Client) invoke(ctx context.Context, method string, in, out any) error {
	if err := c.conn.Invoke(ctx, method, in, out); err != nil {
		return fmt.Errorf("call %s: %w", method, plain(err))
	}
	return nil
}

// PutBlob gives the manager content, which is durable there once this returns.
func (c *Client) PutBlob(ctx context.Context, digest swarm.Digest, data []byte) error {
	if err := c.give(ctx, putBlobMethod, &blobHead{Digest: digest}, data, &nothing{}); err != nil {
		return fmt.Errorf("give blob %s: %w", digest, plain(err))
	}
	return nil
}

// give sends a first message, if there is one, then data in pieces, and reads
// the answer.
func (c *Client) give(ctx context.Context, method string, first any, data []byte, answer any) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreached, plain(err))
	}
	if first != nil {
		err = stream.SendMsg(first)
	}
	if err == nil {
		err = sendChunks(stream, data)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err == nil || errors.Is(err, io.EOF) { // io.EOF: the answer says why
		err = stream.RecvMsg(answer)
	}
	return err
}

// GetBlob fetches content from the manager.
func (c *Client) GetBlob(ctx context.Context, digest swarm.Digest) ([]byte, error) {
	return c.fetch(ctx, getBlobMethod, BlobRequest{Digest: digest})
}

// Relayed is the near end of a stream of a node at another manager.
type Relayed interface {
	Stream[RelayFrame, UpFrame]
	CloseSend() error
}

// Relay opens a stream through the manager, until ctx ends.
func (c *Client) Relay(ctx context.Context) (Relayed, error) {
	return open[RelayFrame, UpFrame](ctx, c, relayMethod)
}

func sendChunks(to sender, data []byte) error {
	for first := true; first || len(data) > 0; first = false {
		n := min(len(data), ChunkSize)
		if err := to.SendMsg(&Chunk{Data: data[:n]}); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
