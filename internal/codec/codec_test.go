package codec_test

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestEqualSpecsHaveEqualDigests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		env := rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "env")
		spec := swarm.TaskSpec{Image: rapid.String().Draw(t, "image"), Env: env, StopGrace: time.Duration(rapid.Int64().Draw(t, "grace"))}

		data, err := codec.Encode(spec)
		if err != nil {
			t.Fatal(err)
		}
		var back swarm.TaskSpec
		if err := codec.DecodeStrict(data, &back); err != nil {
			t.Fatal(err)
		}
		again, err := codec.Encode(back)
		if err != nil || !bytes.Equal(data, again) {
			t.Fatalf("encoded %x, then %x (%v)", data, again, err)
		}
	})
}

// TestTheDigestsOfReleasedSpecsStay holds what a daemon upgrade must never
// change: a spec that a released build wrote has the same digest today, so the
// upgrade replaces no container.
func TestTheDigestsOfReleasedSpecsStay(t *testing.T) {
	for claim, c := range map[string]struct {
		spec   swarm.TaskSpec
		digest swarm.Digest
	}{
		"the empty spec": {swarm.TaskSpec{}, "sha256:c19a797fa1fd590cd2e5b42d1cf5f246e29b91684e2f87404b81dc345c7a56a0"},
		"a web server": {
			swarm.TaskSpec{
				Image: "example.org/web:v1", Manifest: "sha256:00", Command: []string{"serve"}, Env: map[string]string{"B": "2", "A": "1"},
				Health:   &swarm.Healthcheck{Test: []string{"/health"}, Interval: time.Second, Retries: 3},
				Mounts:   []swarm.Mount{{Kind: swarm.MountVolume, Source: "data", Target: "/data"}},
				Files:    []swarm.File{{Kind: swarm.FileConfig, Name: "greeting", Target: "/greeting", Content: "sha256:01", Mode: 0o444}},
				Networks: []swarm.Attachment{{Network: "default"}}, StopGrace: 10 * time.Second, Limits: swarm.Resources{Memory: 1 << 26},
			},
			"sha256:9b12dd455b5bc077f52bf356d9beed42eba3ba37c3b9411c001f9c1080915b5b",
		},
	} {
		got, err := codec.Digest(c.spec)
		if err != nil || got != c.digest {
			t.Errorf("%s: digest is %s (%v), want %s", claim, got, err, c.digest)
		}
	}
}

func TestAnUnknownFieldIsRefusedInTheLogAndPassedOverOnTheWire(t *testing.T) {
	newer := struct {
		Name   string `cbor:"1,keyasint"`
		Future string `cbor:"99,keyasint"`
	}{"shop", "?"}
	data, err := codec.Encode(newer)
	if err != nil {
		t.Fatal(err)
	}
	var stack swarm.Stack
	if err := codec.Decode(data, &stack); err != nil || stack.Name != "shop" {
		t.Errorf("decoded %+v, %v; want the field that is known", stack, err)
	}
	if err := codec.DecodeStrict(data, &stack); err == nil {
		t.Error("an unknown field was passed over where nothing may be")
	}
}

func FuzzDecode(f *testing.F) {
	seed, err := codec.Encode(swarm.Stack{Name: "shop", Services: []swarm.Service{{Name: "web", Replicas: 3}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var stack swarm.Stack
		if codec.DecodeStrict(data, &stack) != nil {
			return
		}
		if _, err := codec.Encode(stack); err != nil {
			t.Errorf("what was read can't be written: %v", err)
		}
	})
}
