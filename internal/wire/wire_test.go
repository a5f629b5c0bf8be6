package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/swarm"
)

// echo answers Hello with the node's name, gives blobs of any size, and sends
// attached lines back as standard input.
type echo struct{}

func (echo) Session(s Stream[FromManager, FromAgent]) error {
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Hello == nil {
			return errors.New("the first message is no hello")
		}
		if err := s.Send(&FromManager{Welcome: &Welcome{Session: string(m.Hello.Node), Heartbeat: time.Second}}); err != nil {
			return err
		}
	}
}

var content = bytes.Repeat([]byte("0123456789abcdef"), 50_000)

func (echo) Blob(_ context.Context, r BlobRequest) ([]byte, error) {
	switch {
	case r.Session != "n1":
		return nil, errors.New("no such session")
	case r.Digest == "sha256:empty", strings.HasPrefix(string(r.Digest), "hmac-"):
		return nil, nil
	}
	return content, nil
}

func (echo) Attach(s Stream[DownFrame, UpFrame]) error {
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, line := range m.Lines {
			if err := s.Send(&DownFrame{Exec: &swarm.ExecFrame{Stdin: line.Text}}); err != nil {
				return err
			}
		}
	}
}

func serveEcho(t *testing.T) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agents.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, listener, Services{Agents: echo{}}) }()

	client, err := Dial(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return client
}

func TestSessionCarriesNounsBothWays(t *testing.T) {
	s, err := serveEcho(t).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&FromAgent{Hello: &Hello{Node: "n1", Index: 7}}); err != nil {
		t.Fatal(err)
	}
	m, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if m.Welcome == nil || m.Welcome.Session != "n1" || m.Welcome.Heartbeat != time.Second {
		t.Errorf("welcome is %+v", m.Welcome)
	}
}

func TestAServersErrorReachesTheAgentAsASentence(t *testing.T) {
	s, err := serveEcho(t).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&FromAgent{Resend: true}); err != nil {
		t.Fatal(err)
	}
	if _, err = s.Recv(); err == nil || !strings.Contains(err.Error(), "the first message is no hello") {
		t.Errorf("error is %v", err)
	}
}

func TestBlobArrivesWholeAndIsChecked(t *testing.T) {
	client := serveEcho(t)
	data, err := client.Blob(t.Context(), "n1", codec.DigestBytes(content))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, content) {
		t.Errorf("%d bytes arrived of %d", len(data), len(content))
	}

	if _, err := client.Blob(t.Context(), "n1", "sha256:empty"); err == nil {
		t.Error("other content was taken for the digest's")
	}
	if data, err := client.Blob(t.Context(), "n1", "hmac-sha256:00"); err != nil || len(data) != 0 {
		t.Errorf("empty secret: %q, %v", data, err)
	}
	_, err = client.Blob(t.Context(), "n2", "sha256:00")
	if want := "fetch blob sha256:00: no such session"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %q", err, want)
	}
}

func TestAttachedStreamWaitsForItsReader(t *testing.T) {
	stream, err := serveEcho(t).Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		for i := range 2000 {
			line := swarm.LogLine{Text: fmt.Append(nil, i, strings.Repeat(".", 1000))}
			if err := stream.Send(&UpFrame{Lines: []swarm.LogLine{line}}); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()

	select {
	case err := <-sent:
		t.Fatalf("2 MB were taken though nobody reads: %v", err)
	case <-time.After(50 * time.Millisecond): // flow control holds the sender
	}
	for i := range 2000 {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(m.Exec.Stdin), fmt.Sprint(i, ".")) {
			t.Fatalf("frame %d is %.20q", i, m.Exec.Stdin)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func FuzzApply(f *testing.F) {
	seed, err := codec.Encode(Everything(1, largeAssignmentHead()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var d Delta
		if codec.Decode(data, &d) != nil {
			return
		}
		held, err := Apply(Held{}, d)
		if err == nil && held.Hash != Sum(held.Assignment) {
			t.Errorf("the delta passed with hash %x of %x", held.Hash, Sum(held.Assignment))
		}
	})
}

func largeAssignmentHead() swarm.Assignment {
	a := largeAssignment()
	a.Tasks = a.Tasks[:2]
	a.Volumes = []swarm.VolumeID{"shop/data"}
	return a
}
