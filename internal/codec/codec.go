// Package codec writes and reads the CBOR (RFC 8949) of the raft log, the wire
// and hashed specs: integer keys, core deterministic encoding, so equal values
// give equal bytes. It keeps no state and knows no type by name.
package codec

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"

	"github.com/fxamacker/cbor/v2"

	"github.com/gitswarm/gitswarm/swarm"
)

// Limits on what is read. They are far above what this program writes.
const (
	maxNesting  = 32
	maxElements = 4 << 20
)

var (
	encoder = mustMode(encoding().EncMode())
	decoder = mustMode(decoding(false).DecMode())
	strict  = mustMode(decoding(true).DecMode())
)

func encoding() cbor.EncOptions {
	opts := cbor.CoreDetEncOptions()
	opts.Time = cbor.TimeRFC3339NanoUTC
	opts.NilContainers = cbor.NilContainerAsNull
	return opts
}

func decoding(refuseUnknown bool) cbor.DecOptions {
	opts := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		MaxNestedLevels:  maxNesting,
		MaxArrayElements: maxElements,
		MaxMapPairs:      maxElements,
		DefaultMapType:   reflect.TypeFor[map[string]any](),
	}
	if refuseUnknown {
		opts.ExtraReturnErrors = cbor.ExtraDecErrorUnknownField
	}
	return opts
}

// mustMode panics on an option that the library refuses: a mistake in this
// file, which every test meets.
func mustMode[M any](mode M, err error) M {
	if err != nil {
		panic(fmt.Sprintf("codec: %v", err))
	}
	return mode
}

// Encode writes v. It fails only on types that CBOR has no form for.
func Encode(v any) ([]byte, error) {
	data, err := encoder.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return data, nil
}

// Decode reads data into v and passes over fields that this build does not
// know.
func Decode(data []byte, v any) error { return decode(decoder, data, v) }

// DecodeStrict reads data into v and refuses fields that this build does not
// know: the raft log holds nothing that may be passed over.
func DecodeStrict(data []byte, v any) error { return decode(strict, data, v) }

func decode(mode cbor.DecMode, data []byte, v any) error {
	if err := mode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}

// Digest names the bytes that Encode gives for v.
func Digest(v any) (swarm.Digest, error) {
	data, err := Encode(v)
	if err != nil {
		return "", err
	}
	return DigestBytes(data), nil
}

// DigestBytes names data by its SHA-256.
func DigestBytes(data []byte) swarm.Digest {
	sum := sha256.Sum256(data)
	return swarm.Digest("sha256:" + hex.EncodeToString(sum[:]))
}
