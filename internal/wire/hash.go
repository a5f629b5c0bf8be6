package wire

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/swarm"
)

// Hash sums an assignment: the sum, modulo 2⁶⁴, of its parts' hashes. It
// follows a change at the cost of the change, and it is blind to order. It
// guards against mistakes, not against forgers.
type Hash uint64

// The kinds of parts, so that equal bytes of two kinds differ in hash.
const (
	kindTask byte = iota + 1
	kindNetwork
	kindService
	kindVolume
)

// Sum hashes a whole assignment.
func Sum(a swarm.Assignment) Hash {
	return sumOf(kindTask, a.Tasks) + sumOf(kindNetwork, a.Networks) +
		sumOf(kindService, a.Services) + sumOf(kindVolume, a.Volumes)
}

func sumOf[T any](kind byte, parts []T) Hash {
	var sum Hash
	for i := range parts {
		sum += hashOf(kind, parts[i])
	}
	return sum
}

// hashOf panics on a noun without a CBOR form: a mistake in swarm, which every
// test meets.
func hashOf(kind byte, part any) Hash {
	data, err := codec.Encode(part)
	if err != nil {
		panic("wire: " + err.Error())
	}
	sum := sha256.Sum256(append(data, kind))
	return Hash(binary.BigEndian.Uint64(sum[:]))
}
