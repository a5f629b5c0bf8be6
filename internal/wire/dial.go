package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/gitswarm/gitswarm/swarm"
)

// Client is a connection to one manager: an agent's, or another manager's. It
// mends itself, but what was under way when it broke is lost.
type Client struct {
	conn *grpc.ClientConn
}

// Dial prepares a connection over what dial returns: a unix socket, a pipe,
// TLS. The first call makes it.
func Dial(dial func(context.Context) (net.Conn, error)) (*Client, error) {
	conn, err := grpc.NewClient("passthrough:///manager",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return watch(dial(ctx)) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // dial's connection is the secure one
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithReadBufferSize(bufferSize),
		grpc.WithWriteBufferSize(bufferSize),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodec(cborCodec{}),
			grpc.MaxCallRecvMsgSize(MaxFromManager),
			grpc.MaxCallSendMsgSize(MaxFromAgent),
		),
	)
	if err != nil {
		return nil, fmt.Errorf("dial manager: %w", err)
	}
	return &Client{conn: conn}, nil
}

// Close ends every stream of the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Session opens the session, until ctx ends.
func (c *Client) Session(ctx context.Context) (Stream[FromAgent, FromManager], error) {
	return open[FromAgent, FromManager](ctx, c, sessionMethod)
}

// Attached is the agent's end of a stream that a manager asked for.
type Attached interface {
	Stream[UpFrame, DownFrame]
	CloseSend() error // the agent has said all
}

// Attach opens a stream that the manager asked for, until ctx ends.
func (c *Client) Attach(ctx context.Context) (Attached, error) {
	return open[UpFrame, DownFrame](ctx, c, attachMethod)
}

func open[Out, In any](ctx context.Context, c *Client, method string) (*grpc.GenericClientStream[Out, In], error) {
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := c.conn.NewStream(ctx, desc, method)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", method, plain(err))
	}
	return &grpc.GenericClientStream[Out, In]{ClientStream: stream}, nil
}

// Blob fetches the content of a digest that the session's tasks name.
func (c *Client) Blob(ctx context.Context, session string, digest swarm.Digest) ([]byte, error) {
	return c.fetch(ctx, blobMethod, BlobRequest{Session: session, Digest: digest})
}

func (c *Client) fetch(ctx context.Context, method string, request BlobRequest) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err == nil {
		err = stream.SendMsg(&request)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("fetch blob %s: %w", request.Digest, plain(err))
	}

	data, err := readChunks(stream, MaxBlob)
	if err != nil {
		return nil, fmt.Errorf("fetch blob %s: %w", request.Digest, plain(err))
	}
	return data, checkBlob(request.Digest, data)
}

type sender interface{ SendMsg(any) error }

type receiver interface{ RecvMsg(any) error }

func readChunks(from receiver, limit int) ([]byte, error) {
	var data []byte
	for {
		var chunk Chunk
		err := from.RecvMsg(&chunk)
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		if len(data)+len(chunk.Data) > limit {
			return nil, fmt.Errorf("it is larger than %d MiB", limit>>20)
		}
		data = append(data, chunk.Data...)
	}
}

// Lost reports whether err is the connection's fault: another one may do better.
func Lost(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return true
	}
	return false
}

// plain takes gRPC's prefix from an error, so that people read the sentence.
func plain(err error) error {
	if s, ok := status.FromError(err); ok && s.Message() != "" {
		return &remote{text: s.Message(), cause: err}
	}
	return err
}

type remote struct {
	text  string
	cause error
}

func (r *remote) Error() string { return r.text }
func (r *remote) Unwrap() error { return r.cause }
