package wire

import (
	"bytes"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/swarm"
)

// frames are the messages that come from outside, one of each kind.
func frames() []any {
	return []any{
		&FromAgent{Hello: &Hello{Node: "n1", Index: 7}, Reports: []Report{{Task: "shop/web.1.a"}}},
		&FromManager{Welcome: &Welcome{Session: "s", Heartbeat: time.Second}, Open: &Open{Stream: "x", Stats: []swarm.TaskID{"a"}}},
		&UpFrame{Stream: "x", Lines: []swarm.LogLine{{Text: []byte("hello")}}},
		&DownFrame{Exec: &swarm.ExecFrame{Stdin: []byte("hello")}},
		&BlobRequest{Session: "s", Digest: "sha256:00"},
		&Chunk{Data: []byte("piece")},
		&RelayFrame{Node: "n1", Open: &Open{Stream: "x"}},
		&Beat{Manager: "m1", Sessions: []swarm.NodeID{"n1"}, Behind: []Reach{{Node: "n1", Index: 3}}},
		&ProposeReply{Index: 3, Refusal: RefusedStale, Reason: "older"},
		&JoinRequest{Token: "GSTKN-1-…", CSR: []byte("pem"), Description: swarm.NodeDescription{Hostname: "w1"}},
		&Joined{Node: "n1", Cluster: "c1", Managers: []string{"m1:2377"}},
		&Renewed{Chain: []byte("pem")},
		&roots{Trust: []byte("pem")},
		&renewal{CSR: []byte("pem")},
	}
}

// blank returns an empty message of each kind.
func blank() []any {
	return []any{
		new(FromAgent), new(FromManager), new(UpFrame), new(DownFrame), new(BlobRequest), new(Chunk), new(RelayFrame),
		new(Beat), new(ProposeReply), new(JoinRequest), new(Joined), new(Renewed), new(roots), new(renewal),
	}
}

// FuzzFrames reads strangers' bytes as every message of the wire: what is taken
// for a message can be written, and reads as the same message again.
func FuzzFrames(f *testing.F) {
	for _, frame := range frames() {
		seed, err := (cborCodec{}).Marshal(frame)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		again := blank()
		for i, frame := range blank() {
			if (cborCodec{}).Unmarshal(data, frame) != nil {
				continue
			}
			first, err := codec.Encode(frame)
			if err != nil {
				t.Fatalf("%T was read and can't be written: %v", frame, err)
			}
			if err := codec.Decode(first, again[i]); err != nil {
				t.Fatalf("%T was written and can't be read: %v", frame, err)
			}
			if second, err := codec.Encode(again[i]); err != nil || !bytes.Equal(first, second) {
				t.Fatalf("%T is %x, then %x (%v)", frame, first, second, err)
			}
		}
	})
}
